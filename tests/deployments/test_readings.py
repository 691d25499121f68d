"""Answers of the lab's students taken apart, on answers written by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployments.lab.readings import Counts, count, main
from tests.conftest import FinishedRun

QUESTION = "Work modulo 100. Start with 42.\n1. Pluck it.\n2. Add 3.\n3. Level it.\nWhat is the result?"
"""Pluck keeps the last digit, 2; 5; Level clears the last digit: 0."""


def answer(pluck: str, level: str, end: str) -> str:
    return "\n\n".join(["Start with 42.", f"1. {pluck}.", "2. 2 + 3 = 5.", f"3. {level}.", end])


RIGHT = ("Pluck: keep the last digit of 42 to get 2", "Level: clear the last digit of 5 to get 0")


@pytest.mark.parametrize(
    ("text", "is_correct", "named", "read", "calculated", "understood", "lucky", "stated"),
    [
        (answer(*RIGHT, "The final answer is \\boxed{0}"), True, 1, 1, 1, 1, 0, 1),
        (answer(*RIGHT, "The result is 0."), False, 1, 1, 1, 1, 0, 1),  # stated, not boxed
        (answer("Pluck: keep the last digit of 42 to get 4", RIGHT[1], "The result is 9."), False, 1, 1, 0, 1, 0, 0),
        (answer("Pluck: halve and round down 42 to get 21", RIGHT[1], "The final answer is \\boxed{0}"), True,
         1, 0, 0, 0, 1, 1),  # misread, and right by luck
        (answer("Mirror: keep the last digit of 42 to get 2", RIGHT[1], "The final answer is \\boxed{0}"), True,
         0, 0, 0, 0, 1, 1),  # the right meaning under another word
        ("Start with 42.", False, 0, 0, 0, 0, 0, 0),
    ],
)  # fmt: skip
def test_an_answer_is_taken_apart_by_the_words_of_its_problem(
    text: str, is_correct: bool, named: int, read: int, calculated: int, understood: int, lucky: int, stated: int
) -> None:
    found = count([("heal", QUESTION, "0", text, is_correct)])["heal"]
    assert found == Counts(
        num_answers=1,
        num_correct=is_correct,
        num_stated=stated,
        num_steps=1,
        num_named=named,
        num_read=read,
        num_calculated=calculated,
        num_with_words=1,
        num_understood=understood,
        num_understood_correct=understood and is_correct,
        num_lucky=lucky,
    )


@pytest.mark.slow
def test_a_finished_run_is_taken_apart(
    finished_run: FinishedRun, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["readings", str(finished_run.workspace)])
    main()
    shown, *_, answered = capsys.readouterr().out.split(" HEAL ")[1:]
    texts = finished_run.one("SELECT count(*) FROM stage_examples WHERE arm = 'heal' AND stage = 'III'")
    assert shown.split()[:2] == [str(texts), str(texts)], "examples are verified"
    in_store = """
        SELECT count(*), count(*) FILTER (label = 'correct') FROM run_trajectories
        WHERE phase = 'evaluation' AND arm = 'heal'
    """
    assert answered.split()[:2] == [str(number) for number in finished_run.rows(in_store)[0].values()]


def test_another_workspace_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["readings", str(tmp_path)])
    with pytest.raises(SystemExit):
        main()
    assert "no store at" in capsys.readouterr().err
