"""Which texts are plain numbers, and when two of them agree."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heal_core.verify import numbers
from heal_core.verify.notation import unify
from heal_core.verify.numbers import Number, numbers_equal, parse_based


def parse_number(written: str) -> Number | None:
    return numbers.parse_number(unify(written))


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("1,000", 1000), ("1 000", 1000), ("1{,}000", 1000), ("1\\,000", 1000), ("1,\\!000", 1000), ("007", 7),
        ("-3", -3), ("\u22123", -3), ("+3", 3), ("- 3", -3), ("7.", 7), (".5", Fraction(1, 2)), ("1e3", 1000),
        ("1.5E-2", Fraction(3, 200)), ("1/2", Fraction(1, 2)), ("\\frac{1}{2}", Fraction(1, 2)),
        ("-\\dfrac{3}{4}", Fraction(-3, 4)), ("1 1/2", Fraction(3, 2)), ("1\\frac{1}{2}", Fraction(3, 2)),
        ("-1 1/2", Fraction(-3, 2)), ("50\\%", Fraction(1, 2)), ("50 %", Fraction(1, 2)), ("\\$5.00", 5), ("$5$", 5),
        ("5 \\text{ cm}", 5), ("25\\text{ cm}^2", 25), ("\\frac{1}{2}\\mathrm{m}", Fraction(1, 2)),
    ],
)  # fmt: skip
def test_plain_numbers_are_read(written: str, value: Fraction) -> None:
    number = parse_number(written)
    assert number is not None and number.value == value


@pytest.mark.parametrize(
    "written",
    [
        "", "x", "1,2", "1,00", "10,0000", "1/0", "1/2/3", "2^3", "1 2", "5 6", "1 200/3", "5\u00b2", "12:30",
        "\\frac12", "1" * 201, "1e999", "3 apples", "(1,000)", "5\\text{ or }600", "--1", "1.2.3", "\x005",
    ],
)  # fmt: skip
def test_what_is_no_plain_number_is_left_to_others(written: str) -> None:
    assert parse_number(written) is None


@given(st.integers(-(10**30), 10**30))
def test_an_integer_survives_thousand_separators(value: int) -> None:
    for written in (str(value), f"{value:,}", f"{value:,}".replace(",", "{,}"), f"{value:,}".replace(",", "\\,")):
        number = parse_number(written)
        assert number is not None and (number.value, number.is_exact) == (value, True)


@given(st.fractions(), st.fractions())
def test_exact_numbers_are_equal_only_when_they_are(left: Fraction, right: Fraction) -> None:
    numbers = [parse_number(f"{value.numerator}/{value.denominator}") for value in (left, right)]
    assert numbers[0] is not None and numbers[1] is not None
    assert numbers_equal(numbers[0], numbers[1], Fraction(1, 10)) == (left == right)


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("0.\\overline{3}", Fraction(1, 3)),
        ("0.1\\overline{6}", Fraction(1, 6)),
        ("2.\\overline{36}", Fraction(26, 11)),  # 2 + 36/99
        ("-0.\\overline{9}", Fraction(-1)),
    ],
)
def test_repeating_decimals_are_exact(written: str, value: Fraction) -> None:
    assert parse_number(written) == Number(value, is_exact=True, is_percent=False)


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("5 million", 5_000_000),
        ("\\$1.5 \\text{ million}", 1_500_000),
        ("3\\text{ dozen}", 36),
        ("7\\text{ marbles}", 7),
    ],
)
def test_a_word_for_a_number_is_a_factor_and_no_unit(written: str, value: int) -> None:
    number = parse_number(written)
    assert number is not None and number.value == value


@pytest.mark.parametrize("written", ["5\\text{ percent}", "5 percent", "5\\text{ per cent}", "5\\%"])
def test_per_cent_may_be_spelled_out(written: str) -> None:
    assert parse_number(written) == Number(Fraction(1, 20), is_exact=True, is_percent=True)


def test_a_numeral_may_name_its_base() -> None:
    assert parse_based("1011_2") == parse_based("1011_{2}") == (11, 2)
    assert parse_based("FF_{16}") == (255, 16)
    assert parse_based("1012_2") is parse_based("1011") is parse_based("x_1") is parse_based("11_{99}") is None
