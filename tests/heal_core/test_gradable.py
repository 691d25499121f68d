"""Problems that cannot be graded are found by their own references, with the real verifier."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from heal_core.gradable import find_ungradable
from heal_core.records import Problem
from heal_core.sandbox.config import SandboxConfig
from heal_core.specs import AnswerSpec, ChoiceSpec, write_spec
from heal_core.verify.code_tests import CodeTests, StdinTest
from heal_core.verify.config import VerifyConfig
from heal_core.verify.pool import VerifierPool

OPTIONS = write_spec(ChoiceSpec(options={"A": "one", "B": "two"}))


@pytest.fixture(scope="module")
def pool() -> Iterator[VerifierPool]:
    with VerifierPool(VerifyConfig(timeout_seconds=60, num_workers=1)) as pool:
        yield pool


def problem(answer: str, problem_type: str = "math", spec: str = "") -> Problem:
    return Problem(answer, "Q?", answer, "s", "", problem_type, answer, "train", spec)


def test_references_that_can_be_graded_pass(pool: VerifierPool) -> None:
    problems = [
        problem("7"),
        problem("\\frac{1}{2}"),
        problem("\\{1, 2\\}"),
        problem("(x+1)^2"),
        problem("Paris"),
        problem("9.81", "numeric", write_spec(AnswerSpec(unit="m", relative_tolerance="0.01"))),
        problem("B", "choice", OPTIONS),
        problem("any text, {with} braces", "exact"),
    ]
    assert find_ungradable(problems, pool) == {}


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (problem("{1, 2"), "unparsable_gold"),
        (problem("x" * 1001), "unparsable_gold"),
        (problem("many", "numeric"), "unparsable_gold"),
        (problem("12", "math", write_spec(AnswerSpec(accepted=("{3",)))), "unparsable_gold"),
        (problem("{an open brace", "exact"), "its own answer is wrong (no_answer)"),
        (problem("C", "choice", OPTIONS), "its own answer is wrong (unparsable_answer)"),
    ],
)
def test_those_that_cannot_are_told_with_the_reason(bad: Problem, reason: str, pool: VerifierPool) -> None:
    assert find_ungradable([problem("7"), bad], pool) == {bad.problem_id: reason}


@pytest.mark.skipif(sys.platform != "linux", reason="bubblewrap is of Linux")
def test_a_solution_that_is_late_is_let_pass_and_a_wrong_one_is_not() -> None:
    tests = write_spec(CodeTests(stdin=(StdinTest(input="", output="1"),)))
    late, wrong = problem("while True: pass", "code", tests), problem("print(2)", "code", tests)
    with VerifierPool(VerifyConfig(num_workers=1, sandbox=SandboxConfig(wall_seconds=1))) as pool:
        found = find_ungradable([late, wrong], pool)
    assert found == {wrong.problem_id: "its own answer is wrong (failed_test: 1)"}
