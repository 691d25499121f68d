r"""Plain numbers as people write them, and when two of them agree.

What does not belong here: expressions, which a parser has to read (`grade`), and what a unit
means (`units`). Texts come as `notation.unify` writes them.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction

from heal_core.verify.units import split_unit

_MAX_NUMBER_CHARS = 200  # int() refuses thousands of digits

_LATEX_SPACE = re.compile(r"\\[,;: ]|~")
_LATEX_FRACTION = re.compile(r"\\[dtc]?frac ?\{ ?(\d+) ?\} ?\{ ?(\d+) ?\}(?! ?\d)")
_NUMBER = re.compile(
    r"(?P<sign>[+-]?) ?"
    r"(?:(?:(?P<whole>\d+) )?(?P<numerator>\d+) ?/ ?(?P<denominator>\d+)"
    r"|(?P<repeating>\d+\.\d*\\overline ?\{\d+\})"
    r"|(?P<decimal>(?:\d{1,3}(?:(?:,\d{3})+|(?: \d{3})+)|\d+)(?:\.\d*)?|\.\d+)"
    r"(?:[eE](?P<exponent>[+-]?\d{1,2}))?)"
    r" ?(?P<percent>\\?%)?"
)
MAGNITUDES = {"hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12}
_PER_CENT = re.compile(r"(?:percent|per cent)(?: |$)", re.IGNORECASE)
_BASED = re.compile(r"\(?(?P<digits>[0-9A-Za-z]+)\)?_ ?\{?(?:\\text\{)?(?P<base>\d{1,2})\}*")


@dataclass(frozen=True)
class Number:
    """A plain number as written; `is_exact` unless its decimals may be rounded."""

    value: Fraction
    is_exact: bool
    is_percent: bool


def parse_number(text: str) -> Number | None:
    r"""Return the plain number that the text is, else None.

    Reads integers, decimals, also repeating ones, powers of ten (1e-3), fractions (1/2,
    \frac{1}{2}), mixed numbers (1 1/2), thousand separators (1,000, 1 000, 1{,}000), per cent and
    dollars. A unit at the end is ignored, but a word like "million" is a factor.
    """
    if len(text) > _MAX_NUMBER_CHARS:
        return None
    body, unit = split_unit(text)
    match = _NUMBER.fullmatch(plain(body))
    if match is None:
        return None
    number = _read(match)
    if number is None or unit is None:
        return number
    if _PER_CENT.match(unit):
        return None if number.is_percent else replace(number, value=number.value / 100, is_percent=True)
    return replace(number, value=number.value * MAGNITUDES.get(unit.split()[0].casefold() if unit else "", 1))


def _read(match: re.Match[str]) -> Number | None:
    is_exact = True
    if match["decimal"]:
        value = Fraction(Decimal(re.sub("[, ]", "", match["decimal"]) + f"E{match['exponent'] or 0}"))
        is_exact = value.denominator == 1
    elif match["repeating"]:
        value = _repeating(match["repeating"])
    else:
        numerator, denominator = int(match["numerator"]), int(match["denominator"])
        if denominator == 0 or (match["whole"] and numerator >= denominator):
            return None
        value = int(match["whole"] or 0) + Fraction(numerator, denominator)
    scale = Fraction(-1 if match["sign"] == "-" else 1, 100 if match["percent"] else 1)
    return Number(value * scale, is_exact, match["percent"] is not None)


def _repeating(written: str) -> Fraction:
    r"""Return the value of 0.1\overline{6}: what comes before the bar, and the bar's digits over 9..90..0."""
    before, period = written.rstrip("}").split("\\overline")
    period = period.strip(" {")
    num_decimals = len(before.partition(".")[2])
    return Fraction(Decimal(before + "0")) + Fraction(int(period), (10 ** len(period) - 1) * 10**num_decimals)


def parse_based(text: str) -> tuple[int, int] | None:
    """Return value and base of a numeral that names its base (1011_2), else None."""
    match = _BASED.fullmatch(plain(text))
    if match is None or len(text) > _MAX_NUMBER_CHARS or not 2 <= int(match["base"]) <= 36:
        return None
    try:
        return int(match["digits"], int(match["base"])), int(match["base"])
    except ValueError:  # a digit that the base does not have
        return None


def numbers_equal(left: Number, right: Number, tolerance: Fraction, max_difference: Fraction | None = None) -> bool:
    """Return whether the numbers agree; decimals up to a relative tolerance and an absolute bound.

    Whole numbers and fractions must be equal. 50% is 0.5. It is also 50, for a question that
    asks "how many per cent"; but 0.5% is not 0.5: a bare number up to 1 is the share itself.
    """
    pairs = readings(left, right)
    if left.is_exact and right.is_exact:
        return any(a == b for a, b in pairs)
    bound = math.inf if max_difference is None else max_difference
    return any(abs(a - b) <= min(tolerance * max(abs(a), abs(b)), bound) for a, b in pairs)


def readings(left: Number, right: Number) -> list[tuple[Fraction, Fraction]]:
    """Return the values that the two numbers can mean beside each other: where one is a per cent there are two."""
    pairs = [(left.value, right.value)]
    if left.is_percent and not right.is_percent and abs(right.value) > 1:
        pairs.append((left.value * 100, right.value))
    if right.is_percent and not left.is_percent and abs(left.value) > 1:
        pairs.append((left.value, right.value * 100))
    return pairs


def canonical(number: Number) -> str:
    """Return the number in a form that math-verify reads rightly."""
    if number.is_exact:
        return str(number.value)
    return format(Decimal(number.value.numerator) / number.value.denominator, "f")


def plain(text: str) -> str:
    """Return the text without what LaTeX and money put around a number."""
    text = text.replace("{,}", ",").replace("\\!", "")
    text = _LATEX_SPACE.sub(" ", text).replace("\\$", "").replace("$", "")
    return " ".join(_LATEX_FRACTION.sub(r" \1/\2", " ".join(text.split())).split())
