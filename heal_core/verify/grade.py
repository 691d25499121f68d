r"""One text against one reference answer: what it answers, and whether that is right.

Plain numbers and plain words are compared here; the rest is math-verify's, which reads
"1 1/2" as 1 and "east" as a product of letters that equals "seat". It hangs on some
inputs, and its own time limits fail in threads: so `grade` belongs in a worker process
(`worker`, `pool`); the other functions are safe anywhere.
"""

from __future__ import annotations

import math
import re
import time
import unicodedata
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import cache, lru_cache
from importlib import metadata
from typing import Any

from heal_core.keys import STAGE_VERSIONS
from heal_core.records import Verdict, VerdictLabel

PROBLEM_TYPES = ("math", "numeric", "exact")
MAX_ANSWER_CHARS = 1000

_MATH_TOLERANCE = Fraction(1, 10**6)  # 1/3 is 0.333333, as math-verify has it
_NUMERIC_TOLERANCE = Fraction(1, 10**9)
_MAX_NUMBER_CHARS = 200  # int() refuses thousands of digits

_BOX_OR_BRACE = re.compile(r"\\boxed\s*\{|\\.|[{}]", re.DOTALL)
_TEXT = re.compile(r"\\(?:text|textbf|mathrm|mbox)\s*\{([^{}]*)\}")
_TRAILING_UNIT = re.compile(r"(?<=\d)\s*\\(?:text|mathrm|mbox)\s*\{[^{}\d]*\}(?:\^\{?[23]\}?)?$")
_LATEX_SPACE = re.compile(r"\\[,;: ]|~")
_LATEX_FRACTION = re.compile(r"\\[dt]?frac\{(\d+)\}\{(\d+)\}")
_NUMBER = re.compile(
    r"(?P<sign>[+-]?) ?"
    r"(?:(?:(?P<whole>\d+) )?(?P<numerator>\d+) ?/ ?(?P<denominator>\d+)"
    r"|(?P<decimal>(?:\d{1,3}(?:(?:,\d{3})+|(?: \d{3})+)|\d+)(?:\.\d*)?|\.\d+)"
    r"(?:[eE](?P<exponent>[+-]?\d{1,2}))?)"
    r" ?(?P<percent>\\?%)?"
)
_WORDS = re.compile(r"[^\W\d_]{3,}(?: [^\W\d_]+)*")

Outcome = tuple[VerdictLabel, str | None]

_CORRECT: Outcome = (VerdictLabel.CORRECT, None)
_DIFFERENT: Outcome = (VerdictLabel.WRONG, "different")
_NO_ANSWER: Outcome = (VerdictLabel.WRONG, "no_answer")
_UNPARSABLE_ANSWER: Outcome = (VerdictLabel.WRONG, "unparsable_answer")
_UNPARSABLE_GOLD: Outcome = (VerdictLabel.UNVERIFIABLE, "unparsable_gold")


def grade(text: str, answer: str, problem_type: str) -> Verdict:
    """Return the verdict on the final answer of `text` against the reference `answer`.

    A reference that cannot be read makes every text unverifiable, one without an answer
    too, so that a problem is either graded or not. May hang or eat memory on a math answer.

    Args:
        text: A completion; with its `<think>` where the prompt's template opened it.
        answer: The reference.
        problem_type: One of `PROBLEM_TYPES`.
    """
    started = time.perf_counter()
    extracted = extract_answer(text)
    if problem_type == "exact":
        label, reason = _grade_exact(extracted, answer)
    elif problem_type == "numeric":
        label, reason = _grade_numeric(extracted, answer)
    else:
        label, reason = _grade_math(extracted, answer)
    name, version = verifier_identity(problem_type)
    shown = None if extracted is None else extracted[:MAX_ANSWER_CHARS]
    return Verdict(label, shown, reason, name, version, time.perf_counter() - started)


def extract_answer(text: str) -> str | None:
    r"""Return the content of the last complete, non-empty `\boxed{..}` of the answer, or None.

    Only what follows the last `</think>` counts; an unclosed `<think>` has no answer. Of
    nested boxes the inner one is read. Takes time linear in the text.
    """
    answer = text.rpartition("</think>")[2]
    if "<think>" in answer:
        return None
    last_start, last = -1, None
    box_starts: list[int | None] = []  # per open brace; None for a brace that opens no box
    for token in _BOX_OR_BRACE.finditer(answer):
        if token[0].endswith("{") and token[0] != "\\{":
            box_starts.append(None if token[0] == "{" else token.end())
        elif token[0] == "}" and box_starts:
            start = box_starts.pop()
            if start is not None and start > last_start and answer[start : token.start()].strip():
                last_start, last = start, answer[start : token.start()].strip()
    return last


@cache
def verifier_identity(problem_type: str) -> tuple[str, str]:
    """Return name and version of what grades such problems, as verdicts carry them."""
    stage = str(STAGE_VERSIONS["verdict"])
    if problem_type == "math":
        return "math-verify", f"{metadata.version('math-verify')}+{stage}"
    return problem_type, stage


def verifier_identities() -> list[tuple[str, str]]:
    """Return name and version of every verifier of this installation."""
    return [verifier_identity(problem_type) for problem_type in PROBLEM_TYPES]


@dataclass(frozen=True)
class Number:
    """A plain number as written; `is_exact` unless its decimals may be rounded."""

    value: Fraction
    is_exact: bool
    is_percent: bool


def parse_number(text: str) -> Number | None:
    r"""Return the plain number that the text is, else None.

    Reads integers, decimals, powers of ten (1e-3), fractions (1/2, \frac{1}{2}), mixed
    numbers (1 1/2), thousand separators (1,000, 1 000, 1{,}000), per cent, dollars, and a
    unit in \text{..} at the end, which it ignores.
    """
    if len(text) > _MAX_NUMBER_CHARS:
        return None
    match = _NUMBER.fullmatch(_plain(text))
    if match is None:
        return None
    if match["decimal"]:
        value = Fraction(Decimal(re.sub("[, ]", "", match["decimal"]) + f"E{match['exponent'] or 0}"))
    else:
        numerator, denominator = int(match["numerator"]), int(match["denominator"])
        if denominator == 0 or (match["whole"] and numerator >= denominator):
            return None
        value = int(match["whole"] or 0) + Fraction(numerator, denominator)
    is_exact = match["decimal"] is None or value.denominator == 1
    scale = Fraction(-1 if match["sign"] == "-" else 1, 100 if match["percent"] else 1)
    return Number(value * scale, is_exact, match["percent"] is not None)


def numbers_equal(left: Number, right: Number, tolerance: Fraction, max_difference: Fraction | None = None) -> bool:
    """Return whether the numbers agree; decimals up to a relative tolerance and an absolute bound.

    Whole numbers and fractions must be equal. 50% is 0.5. It is also 50, for a question that
    asks "how many per cent"; but 0.5% is not 0.5: a bare number up to 1 is the share itself.
    """
    readings = [(left.value, right.value)]
    if left.is_percent != right.is_percent:
        percent, bare = (left, right) if left.is_percent else (right, left)
        if abs(bare.value) > 1:
            readings.append((percent.value * 100, bare.value))
    if left.is_exact and right.is_exact:
        return any(a == b for a, b in readings)
    bound = math.inf if max_difference is None else max_difference
    return any(abs(a - b) <= min(tolerance * max(abs(a), abs(b)), bound) for a, b in readings)


def _grade_exact(extracted: str | None, answer: str) -> Outcome:
    if extracted is None:
        return _NO_ANSWER
    return _CORRECT if _folded(extracted) == _folded(answer) else _DIFFERENT


def _grade_numeric(extracted: str | None, answer: str) -> Outcome:
    gold = parse_number(answer)
    if gold is None:
        return _UNPARSABLE_GOLD
    if extracted is None:
        return _NO_ANSWER
    number = parse_number(extracted)
    if number is None:
        return _UNPARSABLE_ANSWER
    return _CORRECT if numbers_equal(number, gold, _NUMERIC_TOLERANCE) else _DIFFERENT


def _grade_math(extracted: str | None, answer: str) -> Outcome:
    if not _is_readable(answer):
        return _UNPARSABLE_GOLD
    if extracted is None:
        return _NO_ANSWER
    if _plain(extracted) == _plain(answer):
        return _CORRECT
    if len(extracted) > MAX_ANSWER_CHARS:
        return VerdictLabel.WRONG, "answer_too_long"
    number, gold = parse_number(extracted), parse_number(answer)
    if number is not None and gold is not None:
        equal = numbers_equal(number, gold, _MATH_TOLERANCE, max_difference=_MATH_TOLERANCE)
        return _CORRECT if equal else _DIFFERENT
    if _is_words(extracted) and _is_words(answer):
        return _CORRECT if _folded(extracted) == _folded(answer) else _DIFFERENT
    parsed = _parse_math(extracted)
    if not parsed:
        return _UNPARSABLE_ANSWER
    return _CORRECT if _math_equal(_parse_math(answer), parsed) else _DIFFERENT


@lru_cache(maxsize=1024)
def _is_readable(answer: str) -> bool:
    """Return whether a reference can be graded against; one unlike itself would fail everyone."""
    if parse_number(answer) is not None or _is_words(answer):
        return True
    if len(answer) > MAX_ANSWER_CHARS or extract_answer("\\boxed{" + answer + "}") != answer.strip():
        return False  # math-verify would silently cut it where its braces do not match
    parsed = _parse_math(answer)
    return bool(parsed) and _math_equal(parsed, parsed)


def _parse_math(answer: str) -> list[Any]:
    """Return math-verify's reading of an answer, empty when it has none."""
    # Only the LaTeX reader, which has a grammar: the other one evaluates text as Python.
    from math_verify import LatexExtractionConfig, parse

    number = parse_number(answer)
    parsed: list[Any] = parse(
        "\\boxed{" + (answer if number is None else _canonical(number)) + "}",
        [LatexExtractionConfig(boxed_match_priority=0)],
        fallback_mode="no_fallback",
        parsing_timeout=None,
    )
    return parsed


def _math_equal(gold: list[Any], answer: list[Any]) -> bool:
    from math_verify import verify

    return bool(verify(gold, answer, timeout_seconds=None))


def _canonical(number: Number) -> str:
    """Return the number in a form that math-verify reads rightly."""
    if number.is_exact:
        return str(number.value)
    return format(Decimal(number.value.numerator) / number.value.denominator, "f")


def _plain(text: str) -> str:
    """Return the text without what LaTeX and money put around a number."""
    text = unicodedata.normalize("NFC", text).replace("\u2212", "-").replace("{,}", ",").replace("\\!", "")
    text = _LATEX_SPACE.sub(" ", text).replace("\\$", "").replace("$", "")
    text = _LATEX_FRACTION.sub(r" \1/\2", " ".join(text.split()))
    return " ".join(_TRAILING_UNIT.sub("", text.strip()).split())


def _folded(text: str) -> str:
    r"""Return the text for comparison as words: no `\text{..}` around it, case and spacing aside."""
    wrapped = _TEXT.fullmatch(text.strip())
    text = unicodedata.normalize("NFC", wrapped[1] if wrapped else text)
    return " ".join(unicodedata.normalize("NFC", text.casefold()).split())


def _is_words(text: str) -> bool:
    return _WORDS.fullmatch(_folded(text)) is not None
