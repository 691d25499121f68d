"""When what a program printed, or a function returned, is what a test expects.

What does not belong here: running anything. Both sides are plain data here.
"""

from __future__ import annotations

import math
from typing import Any

_TOLERANCE = 1e-6  # relative, and absolute below 1, as usual checkers have it


def outputs_equal(output: str, expected: str) -> bool:
    """Return whether two outputs agree line by line, spaces at ends aside; decimals within a tolerance."""
    lines, wanted = _lines(output), _lines(expected)
    return len(lines) == len(wanted) and all(map(_lines_equal, lines, wanted))


def values_equal(value: Any, expected: Any) -> bool:
    """Return whether a returned value is the expected one, which comes from JSON.

    A tuple is as good as a list, and a key as good as its text, since JSON has no others; a float is
    compared within the tolerance.
    """
    if isinstance(value, bool) or isinstance(expected, bool):
        return value is expected
    if isinstance(value, (int, float)) and isinstance(expected, (int, float)):
        if isinstance(value, int) and isinstance(expected, int):
            return value == expected
        return _near(value, expected)
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
    if not any(sign in wanted for sign in ".eE"):  # a whole number is exact
        return False
    try:
        return _near(float(word), float(wanted))
    except ValueError:
        return False


def _near(value: float, wanted: float) -> bool:
    try:
        return math.isclose(value, wanted, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE)
    except OverflowError:  # an integer beyond floats
        return False
