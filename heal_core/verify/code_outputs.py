"""When what a program printed, or a function returned, is what a test expects.

What does not belong here: running anything. Both sides are plain data here.
"""

from __future__ import annotations

import math
import re
from fractions import Fraction
from typing import Any

_TOLERANCE = 1e-6  # relative, and absolute below 1, as usual checkers have it
_DECIMAL = re.compile(r"[-+]?(?:\d+\.\d*|\.\d+)(?:[eE][-+]?\d+)?|[-+]?\d+[eE][-+]\d+")
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")


def outputs_equal(output: str, expected: str) -> bool:
    """Return whether two outputs agree line by line, spaces at ends aside; decimals within a tolerance."""
    lines, wanted = _lines(output), _lines(expected)
    return len(lines) == len(wanted) and all(map(_lines_equal, lines, wanted))


def values_equal(value: Any, expected: Any) -> bool:
    """Return whether a returned value is the expected one, which comes from JSON.

    A tuple is as good as a list, and a key as good as its text, since JSON has no others. A float is
    compared within the tolerance; one in place of an integer within that of numbers below 1, since 5e17 is not
    500000000000000001.
    """
    if isinstance(value, bool) or isinstance(expected, bool):
        return value is expected
    if isinstance(value, (int, float)) and isinstance(expected, (int, float)):
        if isinstance(expected, float):
            return _near(value, expected)
        return value == expected or (math.isfinite(value) and abs(Fraction(value) - expected) <= _TOLERANCE)
    if isinstance(value, (list, tuple)) and isinstance(expected, (list, tuple)):
        return len(value) == len(expected) and all(map(values_equal, value, expected))
    if isinstance(value, dict) and isinstance(expected, dict):
        by_text = {_key(key): item for key, item in value.items()}
        return by_text.keys() == expected.keys() and all(values_equal(by_text[key], expected[key]) for key in expected)
    return type(value) is type(expected) and bool(value == expected)


def _key(key: Any) -> Any:
    return key if isinstance(key, str) or key is None else str(key)


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.strip().splitlines()]


def _lines_equal(line: str, wanted: str) -> bool:
    words, wanted_words = line.split(), wanted.split()
    return len(words) == len(wanted_words) and all(map(_words_equal, words, wanted_words))


def _words_equal(word: str, wanted: str) -> bool:
    if word == wanted:
        return True
    # a whole number is exact, and so is 0e12, which is rather a name
    return bool(_DECIMAL.fullmatch(wanted) and _NUMBER.fullmatch(word)) and _near(float(word), float(wanted))


def _near(value: float, wanted: float) -> bool:
    try:
        return math.isclose(value, wanted, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE)
    except OverflowError:  # an integer beyond floats
        return False
