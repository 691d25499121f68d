"""Problem types: what a row asks, and what is right, from columns as people have them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from heal_core.problem_types import Asked, read_asked, read_code
from heal_core.sources.row import Number, Refusal

OPTIONS = ["London", "Paris", "Rome"]
SHOWN = "Capital of France?\n\nA. London\nB. Paris\nC. Rome"


def asked(answer: Any, problem: str = "Capital of France?", **fields: Any) -> Asked:
    found = read_asked({"problem": problem, "answer": answer, **fields})
    assert isinstance(found, Asked), found
    return found


def refused(answer: Any, **fields: Any) -> str:
    found = read_asked({"problem": "Capital of France?", "answer": answer, **fields})
    assert isinstance(found, Refusal), found
    return found.reason


def spec_of(answer: Any, **fields: Any) -> dict[str, Any]:
    return dict(json.loads(asked(answer, **fields).spec or "{}"))


def test_a_plain_row_is_mathematics_without_a_spec() -> None:
    assert asked(" 7 ", problem="3 + 4?") == Asked("3 + 4?", "7", "math", "")


def test_the_first_of_several_answers_is_the_reference() -> None:
    assert asked(["1/2", "0.5", "1/2"]) == Asked("Capital of France?", "1/2", "math", '{"accepted":["0.5"]}')
    assert asked([Number("2"), "two"], problem_type="exact").answer == "2"


@pytest.mark.parametrize(
    ("tolerance", "spec"),
    [
        ("0.01", {"absolute_tolerance": "0.01"}),
        (Number("2"), {"absolute_tolerance": "2"}),
        ("1%", {"relative_tolerance": "0.01"}),
        ("0.5 %", {"relative_tolerance": "0.005"}),
    ],
)
def test_a_tolerance_makes_a_number(tolerance: str, spec: dict[str, str]) -> None:
    assert (asked("9.81", tolerance=tolerance).problem_type, spec_of("9.81", tolerance=tolerance)) == ("numeric", spec)


def test_a_unit_is_kept() -> None:
    assert spec_of("5", unit="cm") == {"unit": "cm"}


@pytest.mark.parametrize("answer", ["B", "(b)", "B.", "Paris", Number("1")])
@pytest.mark.parametrize(
    "options",
    [
        OPTIONS,
        json.dumps(OPTIONS),
        dict(zip("ABC", OPTIONS, strict=True)),
        {"label": ["A", "B", "C"], "text": OPTIONS},
    ],
)
def test_options_in_every_form_make_a_choice(answer: str, options: Any) -> None:
    found = asked(answer, options=options)
    assert found == Asked(SHOWN, "B", "choice", '{"options":{"A":"London","B":"Paris","C":"Rome"}}')


def test_options_that_the_problem_shows_are_not_shown_again() -> None:
    problem = "Which? (1) London (2) Paris"
    found = asked("2", problem=problem, options={"label": ["1", "2"], "text": ["London", "Paris"]})
    assert (found.question, found.answer) == (problem, "2")
    found = asked("B", problem="Which of them divides 12 and 21?", options=["2", "1"])
    assert found.question == "Which of them divides 12 and 21?\n\nA. 2\nB. 1"  # both stand in it, but are no options
    found = asked("A", problem="Which? Paris or London?", options=["London", "Paris"])
    assert found.question.endswith("A. London\nB. Paris")  # else nobody could know the letters


@pytest.mark.parametrize(
    ("answer", "fields", "reason"),
    [
        ("Oslo", {"options": OPTIONS}, "bad_choice: 'Oslo' is none of them; expected a label (A, B, C)"),
        (Number("1"), {"options": ["0", "2", "1"]}, "bad_choice: '1' means B and C"),
        ("A", {"options": ["only"]}, "bad_options: 1, expected at least 2"),
        ("A", {"options": ["one", ""]}, "bad_options: each needs a label of its own and a text"),
        ("A", {"options": "London, Paris"}, "bad_options: 'London, Paris', expected a list"),
        ("A", {"options": {"label": ["A"], "text": OPTIONS}}, "bad_options: 1 labels for 3 texts"),
        ("A", {"options": 3}, "bad_options: int"),
        ("A", {"options": list(map(str, range(27)))}, "bad_options: 27, expected up to 26"),
        ("A", {"options": [3, [4]]}, "bad_type: options is list"),
        ("A", {"problem_type": "choice"}, "bad_options: none, expected a list of texts"),
        (["A", "B"], {"options": OPTIONS}, "several_answers: 2"),
        ("5", {"tolerance": "much"}, "bad_tolerance: 'much'"),
        ("5", {"tolerance": "-1"}, "bad_tolerance: '-1'"),
        ("5", {"tolerance": "NaN"}, "bad_tolerance: 'NaN'"),
        ("5", {"tolerance": "1", "problem_type": "exact"}, "misplaced_spec: exact answers have no tolerance"),
        ("5", {"unit": "m", "problem_type": "exact"}, "misplaced_spec: exact answers have no unit"),
        ("5", {"problem_type": "essay"}, "unknown_problem_type: 'essay'"),
        ([], {}, "no_answer"),
        ([{}], {}, "bad_type: answer is dict"),
        ("5", {"unit": "\ud800"}, "bad_unicode: unit"),
    ],
)
def test_what_cannot_be_meant_is_refused(answer: Any, fields: dict[str, Any], reason: str) -> None:
    assert refused(answer, **fields).startswith(reason)


def test_tests_that_are_nested_too_deep_are_refused() -> None:
    deep: Any = 1
    for _ in range(300):
        deep = [deep]
    found = read_code({"input_output": {"inputs": [[deep]], "outputs": [1], "fn_name": "f"}}, "Q?")
    assert isinstance(found, Refusal) and found.reason.startswith("bad_tests: they cannot be stored")
