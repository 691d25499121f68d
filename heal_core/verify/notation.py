r"""One way to write an answer: Unicode signs as LaTeX, and no mark-up that means nothing.

What does not belong here: anything that changes a value, or that decides whether two answers
are equal (`grade`). A superscript stays an exponent: compatibility normalisation would read 5² as 52.
"""

from __future__ import annotations

import re
import unicodedata

_SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹"
_EXPONENT = re.compile(rf"(?<=[\w)\]}}])⁻?[{_SUPERSCRIPTS}]+")  # one that stands alone is no exponent
_EXPONENT_DIGITS = str.maketrans(_SUPERSCRIPTS + "⁻", "0123456789-")

_INVISIBLE = re.compile("[\u200b-\u200d\u2060\ufeff]")
_WIDE = re.compile("[\uff01-\uff5e\U0001d7ce-\U0001d7ff]+")  # full-width signs, mathematical digits
_VULGAR_FRACTION = re.compile("[¼-¾⅐-⅞↉]")
_LEADING_DASH = re.compile(r"(?:(?<=^)|(?<=[(\[{,;=]))(\s*)[\u2010\u2012\u2013]\s*(?=[\d.\\√πA-Za-z])")
_ROOT = re.compile(r"√\s*(\d+|[A-Za-zπ]|\{[^{}]*\})")
_SIGNS = {
    "−": "-",
    "⁄": "/",
    "×": r"\times ",
    "·": r"\cdot ",
    "⋅": r"\cdot ",
    "÷": r"\div ",
    "±": r"\pm ",
    "≤": r"\le ",
    "≥": r"\ge ",
    "≠": r"\ne ",
    "≈": r"\approx ",
    "∞": r"\infty ",
    "π": r"\pi ",
    "°": r"^\circ",
    "∅": r"\emptyset ",
    "∪": r"\cup ",
    "∩": r"\cap ",
    "∈": r"\in ",
    "ℝ": r"\mathbb{R}",
}
_SIGN = re.compile("|".join(map(re.escape, _SIGNS)))

_SYNONYMS = [
    (re.compile(r"\\varnothing(?![A-Za-z])"), r"\\emptyset"),
    (re.compile(r"\\lbrace(?![A-Za-z])\s*"), r"\\{"),
    (re.compile(r"\\rbrace(?![A-Za-z])"), r"\\}"),
    (re.compile(r"\\langle(?![A-Za-z])\s*"), "("),
    (re.compile(r"\\rangle(?![A-Za-z])"), ")"),
    (re.compile(r"\\[bB]igg?[lr]?(?![A-Za-z])"), ""),
    (re.compile(r"\\(?:mathrm|text)\s*\{e\}(?=\s*\^)"), "e"),
    (re.compile(r"\\(?:mathbf|bold)\s*\{([NZQRC])\}"), r"\\mathbb{\1}"),
    (re.compile(r"\\(?:color|textcolor)\s*\{\w+\}"), ""),
    (re.compile(r"(?<![A-Za-z\\])pi(?![A-Za-z])"), r"\\pi"),
    # a power as programs write it; bold type has nothing before its asterisks
    (re.compile(r"(?<=[\w)}\]])\s*\*\*\s*(-?\d+(?:\.\d+)?|[A-Za-z])(?!\w)"), r"^{\1}"),
    (re.compile(r"(?<=[\w)}\]])\s*\*\*\s*\(([^()]*)\)"), r"^{\1}"),
]
TEXT = re.compile(r"\\(?:text|textbf|textit|mathrm|mbox)\s*\{([^{}]*)\}")
_WHOLE_TEXT = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|mbox)\s*\{([^{}]*\d[^{}]*)\}")
_NUMBER_AND_WORDS = re.compile(r"(-?[\d.,/ ]*\d)( [^\W\d]{2,}(?: [^\W\d]+)*)")
_DEGREES_IN_FUNCTION = re.compile(
    r"\\(sin|cos|tan|cot|sec|csc)\s*[({]?\s*(-?\d+(?:\.\d+)?)\s*\^\s*(?:\\circ(?![A-Za-z])|\{\s*\\circ\s*\})\s*[)}]?"
)
_SET_BUILDER = re.compile(
    r"(?:\\left)?\\\{ *[A-Za-z] *(?:\\in *(?:\\mathbb *\{R\}|\\R) *)?"
    r"(?:\\mid(?![A-Za-z])|\\?\||:)(?P<condition>[^{}|:]+)\\\}"
)
_NAMED_VALUE = re.compile(r"\s*(?P<name>[A-Za-z])\s*=[^=]+")
_LEADING_EQUALS = re.compile(r"^(?:=|\\approx(?![A-Za-z]))\s*")
_WORDS_FOR_SETS = {
    "all real numbers": r"\mathbb{R}",
    "all reals": r"\mathbb{R}",
    "no solution": r"\emptyset",
    "no solutions": r"\emptyset",
    "the empty set": r"\emptyset",
    "empty set": r"\emptyset",
}


def unify(answer: str) -> str:
    r"""Return the answer with Unicode signs as LaTeX, and without mark-up around it that means nothing.

    Signs of equality before it, a full stop and line breaks after it, and a `\text{..}` around a
    whole answer with digits are dropped; "no solution" is the empty set.
    """
    text = unify_signs(answer)
    for pattern, replacement in _SYNONYMS:
        text = pattern.sub(replacement, text)
    text = _LEADING_EQUALS.sub("", text.strip().rstrip("\\ \t\n"))
    text = text.removesuffix(".") if not text.endswith("..") else text
    if wrapped := _WHOLE_TEXT.fullmatch(text):
        text = _NUMBER_AND_WORDS.sub(r"\1\\text{\2}", wrapped[1].strip(), count=1)
    if builder := _SET_BUILDER.fullmatch(text):
        text = builder["condition"].removesuffix("\\right").strip()
    text = _DEGREES_IN_FUNCTION.sub(r"\\\1(\\frac{\2 \\pi}{180})", text)
    words = TEXT.fullmatch(text)
    return _WORDS_FOR_SETS.get((words[1] if words else text).strip().casefold(), _by_name(text))


def _by_name(text: str) -> str:
    """Return named values in the order of their names: "y=1, x=2" as "x=2, y=1"."""
    parts = text.split(",")
    names = [match["name"] for part in parts if (match := _NAMED_VALUE.fullmatch(part))]
    if len(parts) == 1 or len(set(names)) != len(parts):
        return text
    return ", ".join(part.strip() for _, part in sorted(zip(names, parts, strict=True)))


def unify_signs(text: str) -> str:
    """Return the text with Unicode signs, exponents, fractions and digits as ASCII and LaTeX."""
    text = _INVISIBLE.sub("", unicodedata.normalize("NFC", text))
    if text.isascii():
        return text
    text = _WIDE.sub(lambda run: unicodedata.normalize("NFKC", run[0]), text)
    text = _VULGAR_FRACTION.sub(lambda sign: _fraction(sign[0]), text)
    text = _EXPONENT.sub(lambda run: "^{" + run[0].translate(_EXPONENT_DIGITS) + "}", text)
    text = _LEADING_DASH.sub(r"\1-", text)
    text = _ROOT.sub(lambda root: r"\sqrt{" + root[1].strip("{}") + "}", text)
    return _SIGN.sub(lambda sign: _SIGNS[sign[0]], text)


def _fraction(sign: str) -> str:
    numerator, denominator = unicodedata.normalize("NFKC", sign).split("⁄")
    return rf"\frac{{{numerator}}}{{{denominator}}}"
