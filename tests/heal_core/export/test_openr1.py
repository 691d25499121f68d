from __future__ import annotations

from typing import Any

import pytest

from heal_core.export.openr1 import COLUMNS, problem_row
from heal_core.imports.formats import Generation, detect_format, generations_of
from heal_core.prompts import PROGRAM, student_prompt
from heal_core.records import FinishReason


def make_samples(*endings: tuple[str, bool, str | None], **changes: Any) -> list[dict[str, Any]]:
    """Return samples of one problem, by finish reason, whether the run counts them as cut, and label."""
    problem = {
        "problem_id": "p0", "question": "1 + 1?", "answer": "2", "problem_type": "math", "spec": None,
        "source": "/home/ann/problems.jsonl", "uuid": "u", "split": "train", "band": "easy",
    }  # fmt: skip
    return [
        problem
        | {"trajectory_id": f"t{index}", "kind": "rollout", "response": f"text {index}"}
        | {"finish_reason": reason, "cut": cut, "label": label}
        | changes
        for index, (reason, cut, label) in enumerate(endings)
    ]


def test_lists_have_one_order_and_say_what_counts_in_the_run() -> None:
    samples = make_samples(
        ("stop", False, "wrong"),
        ("stop", True, "wrong"),  # longer than this run allows
        ("length", True, None),
        ("hopeless", True, "wrong"),
        ("stop", False, "correct"),
        ("stop", False, "unverifiable"),
    )
    row = problem_row(samples)
    assert list(row) == list(COLUMNS)
    assert row["generations"] == [f"text {index}" for index in range(6)]
    assert row["finish_reasons"] == ["stop", "length", "length", "length", "stop", "stop"]
    assert row["correctness"] == [False, False, None, False, True, None]
    assert (row["correctness_count"], row["trajectory_ids"][4], row["kinds"]) == (1, "t4", ["rollout"] * 6)
    assert [turn["content"] for turn in row["messages"]] == [student_prompt("1 + 1?"), "text 4"]
    assert (row["solution"], row["source"], row["problem"], row["answer"]) == (None, "problems.jsonl", "1 + 1?", "2")


def test_a_problem_that_nobody_solved_has_no_messages() -> None:
    assert problem_row(make_samples(("stop", False, "wrong")))["messages"] is None


def test_a_program_is_the_solution_too() -> None:
    row = problem_row(make_samples(("stop", False, "correct"), problem_type="code", answer="print(2)", spec="{}"))
    assert row["solution"] == row["answer"] == "print(2)"
    assert row["messages"][0]["content"] == student_prompt("1 + 1?", PROGRAM)
    tests_only = make_samples(
        ("stop", False, "correct"), problem_type="code", answer="2", spec='{"reference": "outputs"}'
    )
    assert problem_row(tests_only)["solution"] is None


@pytest.mark.parametrize("cut", [False, True])
def test_what_is_exported_can_be_imported(cut: bool) -> None:
    row = problem_row(make_samples(("stop", cut, "wrong"), ("hopeless", True, "wrong")))
    assert detect_format(row, "here") == "openr1"
    first = FinishReason.LENGTH if cut else FinishReason.STOP
    assert generations_of(row, "openr1") == [
        Generation("text 0", first, None),
        Generation("text 1", FinishReason.LENGTH, None),
    ]
