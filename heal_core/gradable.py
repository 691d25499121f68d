"""Which problems cannot be graded at all: found before any token is spent on them.

Each reference is given as the answer of a text and graded: one that cannot be read, or that is not
right by its own measure, would fail every text. What does not belong here: grading (`verify`), what becomes
of such a problem (`problems`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from heal_core.grading import Grader
from heal_core.plan import GAVE_UP
from heal_core.records import Problem, Verdict, VerdictLabel
from heal_core.reference import make_reference
from heal_core.store.reading import Readable
from heal_core.store.reads import read_known
from heal_core.verify.pool import GradeItem


def find_ungradable(problems: Sequence[Problem], grader: Grader) -> dict[str, str]:
    """Return why problems cannot be graded, by problem id; those not in it can.

    A reference that takes longer than a time limit, also as a program, is let pass: a busy machine
    is to change no run's problems.
    """
    items = list(_items(problems))
    return {
        problem_id: _reason(verdict)
        for problem_id, verdict in grader.grade_all(items)
        if verdict.label is not VerdictLabel.CORRECT and not _may_pass(verdict)
    }


def find_new_ungradable(store: Readable, problems: Sequence[Problem], grader: Grader) -> dict[str, str]:
    """Return why problems cannot be graded; those that are in the store have been found to be gradable."""
    known = read_known(store, "problems", "problem_id", [problem.problem_id for problem in problems])
    return find_ungradable([problem for problem in problems if problem.problem_id not in known], grader)


def _items(problems: Sequence[Problem]) -> Iterator[GradeItem]:
    for problem in problems:
        reference = make_reference(problem.answer, problem.problem_type, problem.spec)
        if reference.statement is not None:
            yield GradeItem(problem.problem_id, reference.statement, reference)


def _may_pass(verdict: Verdict) -> bool:
    """Return whether another try may call it correct."""
    return str(verdict.reason).partition(":")[0] in {*GAVE_UP, "time_limit"}


def _reason(verdict: Verdict) -> str:
    if verdict.label is VerdictLabel.UNVERIFIABLE:
        return str(verdict.reason)
    return f"its own answer is wrong ({verdict.reason})"
