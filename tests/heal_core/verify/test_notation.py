"""One way to write an answer, whatever signs it came with."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heal_core.verify.notation import unify


@pytest.mark.parametrize(
    ("written", "unified"),
    [
        ("\u22123", "-3"),
        ("\u20133", "-3"),  # an en dash before a number
        ("3\u20135", "3\u20135"),  # between two it may be a range
        ("\u00bd", "\\frac{1}{2}"),
        ("x\u00b2", "x^{2}"),
        ("x\u207b\u00b9\u2070", "x^{-10}"),
        ("\u00b2", "\u00b2"),  # an exponent of nothing
        ("\u221a2", "\\sqrt{2}"),
        ("90\u00b0", "90^\\circ"),
        ("\uff08\uff11, 2\uff09", "(1, 2)"),
        ("5\u200b", "5"),
        ("= 5", "5"),
        ("5.", "5"),
        ("5\\\\", "5"),
        ("1, 2, ...", "1, 2, ..."),
        ("\\text{3 apples}", "3\\text{ apples}"),
        ("\\text{apples}", "\\text{apples}"),
        ("12pi", "12\\pi"),
        ("3*x**12 + 2**-1", "3*x^{12} + 2^{-1}"),
        ("0**0", "0^{0}"),
        ("(x + 1)**n", "(x + 1)^{n}"),
        ("x**(1/2)", "x^{1/2}"),
        ("**5**", "**5**"),  # bold type
        ("y=1, x=2", "x=2, y=1"),
        ("x=1, x=2", "x=1, x=2"),
        ("\\{x \\mid x > 2\\}", "x > 2"),
        ("\\text{No solution}", "\\emptyset"),
        ("\\sin 30^\\circ", "\\sin(\\frac{30 \\pi}{180})"),
    ],
)
def test_one_way_to_write_it(written: str, unified: str) -> None:
    assert unify(written).strip() == unified


@given(st.text(max_size=200))
def test_any_text_can_be_unified(text: str) -> None:
    assert isinstance(unify(text), str)


# two stars are a program's power, which is rewritten
@given(st.text(alphabet="0123456789+-*/^()xyz_<>|", min_size=1, max_size=30).filter(lambda text: "**" not in text))
def test_plain_signs_stay(text: str) -> None:
    assert unify(text) == text
