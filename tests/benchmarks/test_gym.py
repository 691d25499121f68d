"""Answers of reasoning-gym's own generators: theirs are called correct, changed ones are not, by two verifiers."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from benchmarks.verifier import gym
from benchmarks.verifier.gym import CASES, GYM, MATH, disagreements, grade_trials, make_trials, markdown, measure
from heal_core.gym.generate import make_lines
from heal_core.gym.rules import REFUSED
from heal_core.reference import Reference
from heal_core.verify.grade import grade

pytestmark = [pytest.mark.usefixtures("reasoning_gym"), pytest.mark.slow]

# intermediate_integration: integrals that sympy left as they were; codeio: braces that do not match
PARTLY_REFUSED = {"intermediate_integration", "codeio"}


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logger = logging.getLogger("math_verify")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(level)


def check_trials(num_items: int, seed: int) -> None:
    trials = list(make_trials(sorted(CASES), num_items, seed))
    labels = grade_trials(trials)
    assert disagreements(trials, labels) == []
    figures = measure(trials, labels)
    assert sum(MATH in found for found in figures.values()) >= 20
    assert all(found[GYM]["own"] == num_items for found in figures.values())
    # each had an answer changed, but for those of few options, of which all may be the same
    unchanged = {name for name, found in figures.items() if not found[GYM]["changed"]}
    assert all(CASES[name].changes == (gym.take_another,) for name in unchanged)


def test_own_answers_are_correct_and_changed_ones_are_not() -> None:
    check_trials(2, seed=3)


@pytest.mark.full
def test_many_own_answers_are_correct_and_changed_ones_are_not() -> None:
    check_trials(60, seed=4)


def test_a_false_verdict_would_be_seen() -> None:
    trials = list(make_trials(["gcd"], 1, 0))
    labels = ["correct" if trial.is_right else "wrong" for trial in trials]
    assert disagreements(trials, labels) == []
    flipped = ["wrong", *labels[1:-1], "correct"]
    assert {error["change"] for error in disagreements(trials, flipped)} == {"", trials[-1].change}
    table = markdown(measure(trials, flipped), disagreements(trials, flipped))
    assert "called wrong" in table and "called correct" in table


@pytest.mark.parametrize(
    ("change", "answer", "changed"),
    [
        (gym.add_one, "x = -1.5", "x = -2.5"),
        (gym.add_one, "none", None),
        (gym.flip_sign, "-3", "3"),
        (gym.flip_sign, "0", None),
        (gym.flip_sign, "1 2", None),
        (gym.swap_digits, "1123", "1213"),
        (gym.swap_digits, "77", None),
        (gym.swap_parts, "a, A, b", "a, b, A"),
        (gym.swap_parts, "['1', '2']", "['2', '1']"),
        (gym.drop_part, "1 2\n3", "1 2"),
        (gym.drop_part, "1", None),
        (gym.take_another, "Yes", "No"),
    ],
)
def test_answers_are_changed(change: gym.Change, answer: str, changed: str | None) -> None:
    assert change(answer, ["yes", "No"]) == changed


@pytest.mark.full
def test_every_generator_of_the_package_accepts_its_own_answers() -> None:
    from reasoning_gym.factory import DATASETS

    for name in sorted(set(DATASETS) - set(REFUSED)):
        request = {"dataset": name, "config": {}, "curriculum": None, "size": 5, "seed": 2}
        lines = list(make_lines(request))
        refused = [line["refused"] for line in lines if "refused" in line]
        assert (lines[-1], refused) == ({"done": True}, []), name
        references = [Reference(row["answer"], GYM, row["spec"]) for line in lines if (row := line.get("row"))]
        marks = [grade(str(reference.statement), reference).label for reference in references]
        assert marks.count("correct") == len(marks) or name in PARTLY_REFUSED, name
        assert marks.count("correct") >= 3, name
