"""Answers: what counts as stating the reference answer, and what merely contains its digits."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heal_core import answers
from heal_core.answers import surface_forms


def find_assertions(text: str, answer: str) -> tuple[int, ...]:
    return answers.find_assertions(text, surface_forms(answer))


@pytest.mark.parametrize(
    ("answer", "forms"),
    [
        (" 42 ", ("42",)),
        ("1,000", ("1,000", "1000")),
        ("1000.0", ("1000.0", "1000")),
        ("1{,}234", ("1{,}234", "1234")),
        ("0.5", ("0.5", "1/2")),
        ("$\\frac{1}{2}$", ("$\\frac{1}{2}$", "1/2", "0.5")),
        ("\\frac12", ("\\frac12", "1/2", "0.5")),
        ("1/3", ("1/3",)),  # no decimal writes it exactly
        ("0.3333333", ("0.3333333",)),  # nobody writes 3333333/10000000
        ("\u22123", ("\u22123", "-3")),
        ("x = 5", ("x = 5", "5")),
        ("\\text{Paris}", ("\\text{Paris}", "Paris")),
        ("(B)", ("(B)", "B")),
        ("1/0", ("1/0",)),
        ("  ", ()),
    ],
)
def test_surface_forms(answer, forms):
    assert surface_forms(answer) == forms


@pytest.mark.parametrize(
    ("text", "answer", "form"),
    [
        ("3 * 5 = 15.", "15", "15."),
        ("So the answer is **15**.", "15", "15**"),
        ("Answer: $15$", "15", "15$"),
        ("It is equal to 15", "15", "15"),
        ("Hence \\boxed{15}", "15", "15}"),
        ("\\boxed{15\\text{ cm}}", "15", "15\\text"),
        ("so \\boxed{\\text{B}}", "(B)", "B}"),
        ("The answer is (B).", "B", "(B)"),
        ("then 1,000 apples", "1000", "1,000"),  # four digits need no cue
        ("then 1000.00 apples", "1,000", "1000.00"),
        ("x is \\dfrac{1}{2}.", "0.5", "\\dfrac"),
        ("x = 0.50", "\\frac{1}{2}", "0.50"),
        ("x = -\\frac{1}{2}", "-0.5", "-\\frac"),
        ("x = \u221242", "-42", "\u221242"),
        ("it is -42", "-42", "-42"),
        ("\u7b54\u6848\u662f42\u3002", "42", "42"),
        ("y = x^{2} + 1", "x^2+1", "x^{2}"),
        ("= 12\\text{ cm}", "12 cm", "12\\text"),
        ("angle = 90\u00b0", "90^\\circ", "90"),
        ("It lies in paris now", "Paris", "paris"),
        ("answer:\n\n42", "42", "42"),
        ("x = 7\n- 3 apples", "7", "7\n"),  # the dash begins a list, not a difference
    ],
)
def test_asserted(text, answer, form):
    assert find_assertions(text, answer) == (text.index(form),)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("take 15 apples", "15"),  # a short one without a cue
        ("= 3 * 5", "3"),  # the beginning of an expression
        ("x = 15 - 3", "15"),
        ("= 7^2", "7"),
        ("= 2\\pi r", "2"),
        ("= 6/3", "2"),  # not worked out
        ("= 1.75", "1.7"),
        ("= 1.75", "75"),
        ("= 1,000", "1"),
        ("= 1,000", "000"),
        ("= -42", "42"),
        ("x = \u2212\\frac{1}{2}", "1/2"),
        ("= 42kg", "42"),
        ("is v1.7", "7"),
        ("x_7 = 3", "7"),
        ("x >= 7", "7"),
        ("this 7", "7"),  # "is" must be a word
        ("\\boxed{7, 8}", "7"),
        ("\\boxed{7 or 8}", "7"),
        ("the plan is:\n\n1. Compute", "1"),
        ("it is a B side", "A"),  # letters keep their case
        ("is it true that", "true"),
        ("value 12345", "1234"),
        ("any text is", ""),
    ],
)
def test_not_asserted(text, answer):
    assert find_assertions(text, answer) == ()


def test_every_assertion_is_found_in_order():
    text = "7 + 8 = 15. So it is 15, not 15 or = 16. \\boxed{15}"
    assert find_assertions(text, "15") == (8, 21, 48)


@settings(deadline=None)  # machines are busy
@given(number=st.integers(-(10**9), 10**9), text=st.text(max_size=30))
def test_a_boxed_number_is_found_in_each_of_its_forms(number, text):
    for form in (f"{number}", f"{number:,}", f"{number}.0", *surface_forms(f"{number:,}")):
        whole = f"{text}\n\\boxed{{{form}}}"
        assert whole.rindex(form) in find_assertions(whole, str(number))


@settings(deadline=None)  # machines are busy
@given(text=st.text(alphabet="0123456789,.=-/ is\\{}boxed", max_size=60), number=st.integers(0, 20))
def test_an_assertion_begins_with_the_form(text, number):
    for offset in find_assertions(text, str(number)):
        digits = text[offset:].replace(",", "").lstrip("0") if number else text[offset:].lstrip("0") + "0"
        assert digits.startswith(str(number))


@settings(deadline=None)  # machines are busy
@given(text=st.text(), answer=st.text(max_size=20))
def test_any_text_and_answer_are_read(text, answer):
    offsets = find_assertions(text, answer)
    assert list(offsets) == sorted(set(offsets))
    assert all(0 <= offset < len(text) for offset in offsets)
    forms = surface_forms(answer)
    assert len(forms) == len(set(forms)) <= 3
    assert forms[:1] == ((answer.strip(),) if answer.strip() else ())


@pytest.mark.parametrize(
    "unit",
    ["1,000,", "000,", "=", "= 7 ", "is ", "\\boxed{", "1", "-", "\\frac{1}{", "x^{", "}", " ", "1/", "= \n"],
)
@pytest.mark.parametrize("answer", ["7", "\\frac{\\sqrt{a^{b^{c}}}}{2}", "x^2 + 1", "1000", "9" * 5000])
def test_long_texts_take_linear_time(unit, answer):
    text = unit * (100_000 // len(unit)) + "0001"
    began = time.process_time()
    find_assertions(text, answer)
    assert time.process_time() - began < 5  # quadratic time would be minutes
