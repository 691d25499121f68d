"""What stands behind a number: a unit, known or not, or a sentence."""

from __future__ import annotations

from fractions import Fraction

import pytest

from heal_core.verify.units import read_unit, split_unit


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("5\\text{ cm}", ("5", "cm")),
        ("25\\text{ cm}^2", ("25", "cm^2")),
        ("10\\pi\\text{ cm}", ("10\\pi", "cm")),
        ("90^\\circ", ("90", "^\\circ")),
        ("\\$5", ("5", "dollars")),
        ("-\\$5", ("-5", "dollars")),
        ("\\$5\\text{ million}", ("5", "million")),
        ("60 km/h", ("60", "km/h")),
        ("12\\text{ red marbles}", ("12", "red marbles")),
    ],
)
def test_a_unit_is_split_off(text: str, parts: tuple[str, str]) -> None:
    assert split_unit(text) == parts


@pytest.mark.parametrize(
    "text",
    [
        "5",
        "x",
        "2mg",
        "3 abc",
        "5 x",
        "5 s",
        "\\text{cm}",
        "x\\text{ cm}",
        "5\\text{ or }",
        "5\\text{ is wrong}",
        "5^2",
    ],
)
def test_what_may_be_a_product_or_a_sentence_is_no_unit(text: str) -> None:
    assert split_unit(text) == (text, None)


@pytest.mark.parametrize(
    ("one", "other", "ratio"),
    [
        ("m", "cm", Fraction(100)),
        ("square meters", "m^2", Fraction(1)),
        ("km/h", "m/s", Fraction(10, 36)),  # 1000 m in 3600 s
        ("miles per hour", "mph", Fraction(1)),
        ("L", "cm^3", Fraction(1000)),
        ("hours", "minutes", Fraction(60)),
        ("dollars", "cents", Fraction(100)),
        ("degrees", "^\\circ", Fraction(1)),
    ],
)
def test_units_of_one_kind_convert(one: str, other: str, ratio: Fraction) -> None:
    left, right = read_unit(one), read_unit(other)
    assert left is not None and right is not None
    assert left.dimension == right.dimension and left.size / right.size == ratio


@pytest.mark.parametrize(
    ("one", "other"), [("cm", "cm^2"), ("cm", "s"), ("m/s", "m/s^2"), ("kg", "m"), ("cents", "cm")]
)
def test_units_of_two_kinds_do_not(one: str, other: str) -> None:
    left, right = read_unit(one), read_unit(other)
    assert left is not None and right is not None and left.dimension != right.dimension


@pytest.mark.parametrize("words", ["apples", "", "cm of rain", "m/apple", "parsecs", "cm^9"])
def test_other_words_are_not_known(words: str) -> None:
    assert read_unit(words) is None
