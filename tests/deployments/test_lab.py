"""The lab as it is shipped: files are what the log says, texts are disjoint, answers are right."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path

import pytest

from deployments.lab import world

LAB = Path(__file__).parents[2] / "deployments" / "lab"
FILES = ("problems", "development", "fresh", "unseen")


def questions(name: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (LAB / f"{name}.jsonl").read_text().splitlines()]


def test_weights_and_problems_are_those_of_the_training_log() -> None:
    lines = (LAB / "digests.txt").read_text().splitlines()
    digests = dict(reversed(line.split("  ")) for line in lines)
    assert {"teacher/model.safetensors", "student/model.safetensors"} <= digests.keys()
    for name, digest in digests.items():
        assert hashlib.sha256((LAB / name).read_bytes()).hexdigest() == digest, name


def test_problem_files_share_no_problem() -> None:
    seen = [row["problem"] for name in FILES for row in questions(name)]
    assert len(seen) == len(set(seen)) == 400 + 300 + 500 + 500


@pytest.mark.full
def test_the_models_saw_no_problem_of_the_files() -> None:
    from deployments.lab import train

    known = {row["problem"] for name, count, _ in train.PROBLEM_FILES for row in questions(name)[:count]}
    every = {row["problem"] for name in FILES for row in questions(name)}
    assert not train.trained_questions(known) & every


@pytest.mark.parametrize(("course", "message"), [("1", "no model to go on from"), ("5", "has the courses 0 to 4")])
def test_training_that_cannot_go_on_leaves_what_is_there(
    course: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from deployments.lab import train

    (tmp_path / "unseen.jsonl").write_text("{}")
    monkeypatch.setattr("sys.argv", ["train", "--out", str(tmp_path), "--model", "student", "--first-course", course])
    with pytest.raises(SystemExit):
        train.main()
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["unseen.jsonl"]


@pytest.mark.parametrize("name", FILES)
def test_the_reference_answer_is_the_true_solutions(name: str) -> None:
    for row in questions(name):
        chain = world.parse_question(row["problem"])
        assert chain.question == row["problem"]
        assert world.solve(chain, [world.TRUE_MEANING.get(word) for word, _ in chain.operations])[1] == int(
            row["answer"]
        )


@pytest.mark.parametrize("mix", ["FIRST_MIX", "SECOND_MIX"])
def test_training_skips_the_problems_of_the_files(mix: str) -> None:
    from deployments.lab import train

    for seed in range(40):
        prompt, _ = train.draw_example(world.TEACHER_CORPUS, getattr(train, mix), random.Random(seed), set())
        question = prompt[: prompt.index("What is the result?") + len("What is the result?")]
        again, _ = train.draw_example(world.TEACHER_CORPUS, getattr(train, mix), random.Random(seed), {question})
        assert not again.startswith(question)


def test_a_hint_follows_the_words_of_the_solution() -> None:
    assert world.short_hint("Mirror", "swap") == "Check the step Mirror: swap the digits of a number."
    assert world.short_hint("Invert", "complement") == "Check the step Invert: take from 99 the number."
