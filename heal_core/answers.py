"""Where a text states a reference answer: written forms, and offsets of assertions.

Shared by the leak gates (G1, G3, G4), the span of PURE (D7) and the surface forms of
U_k. What does not belong here: whether a whole solution is right (`verify`), which
compares values with a real parser; here a match must be cheap, local and linear in
the text's length.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

MAX_FORMS = 3
MIN_SIGNIFICANT_CHARACTERS = 4
"""Answers with fewer letters and digits count only beside a cue: "7" is everywhere."""

_MAX_NUMERAL_CHARACTERS = 200  # longer numerals are compared as text: int() is quadratic
_MAX_DENOMINATOR = 1000  # 0.333333 written as a fraction would be no form that anyone writes
_COMMON_WORDS = frozenset({"true", "false", "none", "even"})

_MINUS = "-\u2212\u2013"  # hyphen, minus sign, en dash
_WORD = r"A-Za-z0-9_\u00c0-\u024f\u0370-\u03ff"  # no CJK: in "答案是42" the number stands alone
_INTEGER = r"(?:[0-9]{1,3}(?:(?:,|\{,\}|\\,|,\\!)[0-9]{3})+(?![0-9])|[0-9]+)"
_DECIMAL = rf"(?:{_INTEGER}(?:\.[0-9]+)?|\.[0-9]+)"
_NUMBER = re.compile(
    rf"\\[dtc]?frac ?\{{ ?(?P<top>[{_MINUS}]?{_DECIMAL}) ?\}} ?\{{ ?(?P<bottom>{_DECIMAL}) ?\}}"
    r"|\\[dtc]?frac ?(?P<short_top>[0-9]) ?(?P<short_bottom>[0-9])"
    rf"|(?P<number>{_DECIMAL})(?: ?/ ?(?P<divisor>{_DECIMAL}))?"
)

_CUE = re.compile(
    r"(?:(?<![<>!])=|≈|≡|\\approx|\\equiv|\uff1d|\bis\b|\banswers?\b|\bequals?\b|答案|等于|是|为|\\f?box(?:ed)?\s*\{)"
    r"(?:[\s:\uff1a=$*&~'\"“`€£¥]|\\[,;:!()\[\] $]"
    r"|\\(?:text|mathrm|mathbf|textbf|boxed|fbox)\s*\{|\\(?:quad|displaystyle)\b"
    r"|\b(?:equal|to|exactly|approximately|about|simply|just|therefore|thus|then|now|should|must|will|would|be)"
    r"\b)*+",
    re.IGNORECASE,
)
_GOES_ON = re.compile(  # the form is only the beginning of a longer expression
    r"[ \t]*(?:[+*/^\u00d7·÷√±]|\\(?:times|cdot|div|sqrt|pi|d?frac|pm|binom)\b"
    rf"|[{_MINUS}] ?(?:[0-9(\\]|[A-Za-z]\b))|[(_]|[ \t]+[0-9]+/[0-9]"
)
_ENDS_BOX = re.compile(r"\s*(?:[}$%°]|\\[,;:!% )]|\\(?:text|mathrm)\b|\^|\Z)|\s+(?!or\b|and\b)[A-Za-z]")
_CUE_AFTER = r"(?!\w|[.,][0-9])[\s)}$*]*(?:=|,? ?(?:is |as )?(?:the |your )?(?:final |correct )*answer\b)"
_OPERATORS = tuple("+-\u2212*/^\u00d7·÷_({[,=<>")
_LIST_MARK = re.compile(r"[.)][ \t]+\S")


def surface_forms(answer: str) -> tuple[str, ...]:
    """Return up to three ways to write a reference answer, the given one (stripped) first.

    Numbers: without separators, and as decimal or fraction where that is exact and
    short. LaTeX: without `$`, `\\text` and the like. A choice letter: with and without
    parentheses. A blank answer has no form.

    Source: METHOD sections 3 (U_k, "up to three surface forms") and 9 (docs/method.md).
    """
    given = answer.strip()
    plain = _strip_latex(given)
    assigned = re.fullmatch(r"[A-Za-z] ?= ?([^=]+)", plain)
    if assigned:
        plain = assigned[1].strip()
    number = _parse_number(plain)
    if number is not None:
        others = _number_forms(number)
    elif choice := re.fullmatch(r"\(?([A-J])\)?", plain):
        others = [choice[1], f"({choice[1]})"]
    else:
        others = [plain]
    return tuple(dict.fromkeys(form for form in [given, *others] if form))[:MAX_FORMS]


def find_assertions(text: str, forms: tuple[str, ...]) -> tuple[int, ...]:
    """Return the character offsets at which `text` asserts an answer that is written in any of the forms, ascending.

    An assertion is a form that stands alone (no letter, digit or decimal point glued to it). Where
    one form has fewer than `MIN_SIGNIFICANT_CHARACTERS` letters and digits, all also need "=", "is" or
    "answer" right before them, or a box around them, and must not go on as a longer expression:
    "= 3 * 5 = 15" asserts 15, not 3.

    Source: METHOD section 4 (G1, G3) and definition D7 (docs/method.md).
    """
    matcher = _matcher(forms)
    spans = [span for pattern in matcher.patterns for span in _pattern_spans(text, pattern)]
    if matcher.numbers:
        spans += _number_spans(text, matcher.numbers)
    if matcher.needs_cue:
        cues = {cue.end(): cue for cue in _CUE.finditer(text)}
        spans = [(a, b) for a, b in spans if a in cues and _is_result(text, a, b, cues[a])]
    return tuple(sorted({start for start, _ in spans}))


def find_leak(hint: str, forms: tuple[str, ...]) -> int | None:
    """Return where a hint first states an answer, None where it does not. Source: gate G1."""
    # here a cue may also follow: "5 is the answer"
    offsets = list(find_assertions(hint, forms))
    for form in forms:
        for match in re.finditer(rf"(?<![\w.\\]){re.escape(form)}{_CUE_AFTER}", hint):
            # In "a^2 + b^2 = c^2" no 2 is the whole side of an equation.
            if not hint[: match.start()].rstrip().endswith(_OPERATORS):
                offsets.append(match.start())
    return min(offsets, default=None)


@dataclass(frozen=True)
class _Number:
    """An exact value; `is_quotient` when it was written with a division."""

    value: Fraction
    is_quotient: bool

    def is_written_by(self, other: _Number) -> bool:
        # "6/3" is a computation whose result has not been stated, so it does not assert 2.
        unfinished = other.is_quotient and other.value.denominator == 1 and not self.is_quotient
        return self.value == other.value and not unfinished


@dataclass(frozen=True)
class _Matcher:
    numbers: tuple[_Number, ...]
    patterns: tuple[re.Pattern[str], ...]
    needs_cue: bool


@lru_cache(maxsize=1024)
def _matcher(forms: tuple[str, ...]) -> _Matcher:
    numbers: list[_Number] = []
    patterns: list[re.Pattern[str]] = []
    significant = []
    for form in forms:
        plain = _strip_latex(form)
        number = _parse_number(plain)
        if number is not None:
            numbers.append(number)
        elif plain:
            patterns.append(_form_pattern(plain))
        significant.append(_count_significant(plain))
    is_common = any(form.strip().lower() in _COMMON_WORDS for form in forms)
    needs_cue = is_common or min(significant, default=0) < MIN_SIGNIFICANT_CHARACTERS
    return _Matcher(tuple(numbers), tuple(patterns), needs_cue)


def _strip_latex(form: str) -> str:
    """Return `form` without markup that does not change what is meant."""
    text = re.sub(f"[{_MINUS}]", "-", form)
    text = re.sub(r"\\(?:left|right|displaystyle)(?![A-Za-z])|\\[,;:!()\[\]$ ]|\$", " ", _join_groups(text))
    text = re.sub(r"\\(?:text|textbf|mathrm|mathbf|mbox|boxed|fbox)\s*\{([^{}]*)\}", r"\1", text)
    text = re.sub(r"\\[dtc]?frac(?![A-Za-z])", r"\\frac", text)
    text = re.sub(r"\\frac ?([0-9]) ?([0-9])", r"\\frac{\1}{\2}", text)
    text = re.sub(r"\^ ?\{? ?\\circ ?\}?", "°", text).replace("\\%", "%")
    return re.sub(r"\s+", " ", text).strip().rstrip(".").strip()


def _join_groups(text: str) -> str:
    r"""Return `text` with LaTeX's thousands separators, as in `1\,000` and `1{,}000`, as plain commas."""
    return re.sub(r"(?<=[0-9])(?:\{,\}|\\,|,\\!)(?=[0-9]{3})", ",", text)


@lru_cache(maxsize=65536)  # trajectories repeat their numbers, and exact fractions are slow to build
def _parse_number(form: str) -> _Number | None:
    """Return the value that the whole of `form` writes, or None."""
    sign = -1 if form[:1] in tuple(_MINUS) else 1
    match = _NUMBER.fullmatch(form[1:].lstrip() if sign < 0 else form)
    if match is None or len(form) > _MAX_NUMERAL_CHARACTERS:
        return None
    top = _decimal(match["number"] or match["top"] or match["short_top"])
    bottom = match["divisor"] or match["bottom"] or match["short_bottom"]
    if bottom is None:
        return _Number(sign * top, False)
    divisor = _decimal(bottom)
    return _Number(sign * top / divisor, True) if divisor else None


def _decimal(digits: str) -> Fraction:
    is_negative = digits[0] in _MINUS
    value = Fraction(re.sub(r"[^0-9.]", "", digits))
    return -value if is_negative else value


def _number_forms(number: _Number) -> list[str]:
    value = number.value
    if value.denominator == 1:
        return [str(value)]
    quotient = [str(value)] if number.is_quotient or value.denominator <= _MAX_DENOMINATOR else []
    decimal = _terminating_decimal(value)
    decimals = [] if decimal is None else [decimal]
    return quotient + decimals if number.is_quotient else decimals + quotient


def _terminating_decimal(value: Fraction) -> str | None:
    for places in range(1, 13):
        scaled = value * 10**places
        if scaled.denominator == 1:
            digits = str(abs(scaled.numerator)).zfill(places + 1)
            return f"{'-' if value < 0 else ''}{digits[:-places]}.{digits[-places:]}"
    return None


def _count_significant(form: str) -> int:
    """Return the number of letters and digits, a LaTeX command counting as one, leading zeros as none."""
    return len(re.sub(r"[\W_]", "", re.sub(r"\\[A-Za-z]+", "c", form)).lstrip("0"))


_EQUIVALENTS = {
    "\\frac": r"\\[dtc]?frac",
    "-": f"[{_MINUS}]",
    "^": r"\^\{?",
    "_": r"_\{?",
    "(": r"(?:\\left)?\(",
    ")": r"(?:\\right)?\)",
    "[": r"(?:\\left)?\[",
    "]": r"(?:\\right)?\]",
    "\\pi": r"(?:\\pi|π)",
    "π": r"(?:\\pi|π)",
    "%": r"\\?%",
    "°": r"(?:°|\^ ?\{? ?\\circ)",
} | dict.fromkeys(["*", "\\cdot", "\\times", "\u00d7", "·"], r"(?:\*|\u00d7|·|\\cdot|\\times)")


def _form_pattern(form: str) -> re.Pattern[str]:
    """Return a pattern for an expression or a phrase that tolerates spacing and markup."""
    form = re.sub(r"([\^_])\{([A-Za-z0-9])\}", r"\1\2", form)
    pieces: list[str] = []
    for token in re.findall(r"\\[A-Za-z]+|[A-Za-z]+|[0-9.]+|\S", form):
        if pieces:
            # A brace is noise only where none is due, so that the possessive run cannot eat it.
            brace = "" if token == "}" else r"|\}"
            pieces.append(rf"(?:[\s$~]|\\[,;:! ]|\\(?:text|mathrm|mathbf)\s?\{{{brace}){{0,4}}+")
        pieces.append(_EQUIVALENTS.get(token, re.escape(token)))
    is_phrase = re.fullmatch(r"[A-Za-z ]{2,}", form) is not None
    return re.compile("".join(pieces), re.IGNORECASE if is_phrase else 0)


def _pattern_spans(text: str, pattern: re.Pattern[str]) -> list[tuple[int, int]]:
    return [match.span() for match in pattern.finditer(text) if _stands_alone(text, *match.span())]


def _number_spans(text: str, numbers: tuple[_Number, ...]) -> list[tuple[int, int]]:
    spans = []
    for match in _NUMBER.finditer(text):
        start, end = match.span()
        if _has_sign(text, start):
            start -= 1
        found = _parse_number(text[start:end])
        if found is not None and any(number.is_written_by(found) for number in numbers):
            spans.append((start, end))
    return [span for span in spans if _stands_alone(text, *span)]


_OPERAND = re.compile(r"(?:[0-9)\]}] ?|[A-Za-z]|(?<![A-Za-z])[A-Za-z] )\Z")


def _has_sign(text: str, start: int) -> bool:
    """Return whether a minus stands at `start - 1` that is a sign: "is -3", but not "5-3" or "x -3"."""
    is_minus = start > 0 and text[start - 1] in _MINUS
    return is_minus and _OPERAND.search(text[max(0, start - 4) : start - 1]) is None


_GLUED_BEFORE = re.compile(rf"(?:[{_WORD}\\]|[0-9][.,])\Z")
_GLUED_AFTER = re.compile(rf"[{_WORD}]|[.,][0-9]|\{{,\}}")


def _stands_alone(text: str, start: int, end: int) -> bool:
    """Return whether nothing glued to the span makes it part of a longer word or number."""
    first, last = text[start], text[end - 1]
    if (first == "\\" or first == "." or first.isalnum()) and _GLUED_BEFORE.search(text[max(0, start - 2) : start]):
        return False
    return not (last.isalnum() and _GLUED_AFTER.match(text, end))


def _is_result(text: str, start: int, end: int, cue: re.Match[str]) -> bool:
    """Return whether the span after `cue` is the whole of what the cue announces."""
    gap = cue.group()
    if "box" in gap:
        return _ENDS_BOX.match(text, end) is not None
    if gap.endswith("*"):  # emphasis, whose closing asterisk is no product
        return True
    if "\n" in gap and _LIST_MARK.match(text, end):
        return False
    return _GOES_ON.match(text, end) is None
