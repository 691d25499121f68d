"""Which imported rollouts a run uses."""

from __future__ import annotations

from pathlib import Path

import pytest

from heal_core.config import RolloutsConfig
from heal_core.imports.use import choose_imported
from heal_core.prompts import student_prompt
from heal_core.store.store import Store
from tests.heal_core.imports.world import PROBLEMS, TEACHER, import_into, line, write_file

ONE, TWO, THREE = (problem.problem_id for problem in PROBLEMS)


@pytest.fixture
def filled(store: Store, tmp_path: Path) -> Store:
    """A store with four rollouts of the first problem, the second cut, and one of the second."""
    texts = [("short", "stop"), ("cut", "length"), ("rather a long one", "stop"), ("last", "stop")]
    rows = [line("1 + 1?", "2", text, finish_reason=reason) for text, reason in texts]
    import_into(store, write_file(tmp_path / "a.jsonl", [*rows, line("2 + 2?", "4", "four")]))
    return store


def templates(*problem_ids: str) -> dict[str, str]:
    return dict.fromkeys(problem_ids, student_prompt("{}"))


def chosen(store: Store, problem_ids: list[str], num_generations: int = 8, max_tokens: int = 100) -> dict[str, list]:
    found = choose_imported(store, TEACHER, templates(*problem_ids), num_generations, max_tokens)
    texts = {row["trajectory_id"]: row["text"] for row in store.rows("SELECT trajectory_id, text FROM trajectories")}
    return {problem_id: [(texts[row.row_id], row.cut) for row in rows] for problem_id, rows in found.by_problem.items()}


def test_a_run_uses_the_first_of_each_of_its_problems(filled: Store) -> None:
    assert chosen(filled, [ONE, THREE], num_generations=3) == {
        ONE: [("short", False), ("cut", True), ("rather a long one", False)]
    }
    assert chosen(filled, [TWO]) == {TWO: [("four", False)]}


def test_what_is_imported_later_of_another_writer_takes_no_ones_place(filled: Store, tmp_path: Path) -> None:
    rows = [line("1 + 1?", "2", text) for text in ("later", "later still")]
    import_into(filled, write_file(tmp_path / "b.jsonl", rows), model="R1")
    texts = [text for text, _ in chosen(filled, [ONE])[ONE]]
    assert texts == ["short", "cut", "rather a long one", "last", "later", "later still"]


def test_a_text_that_does_not_fit_the_limit_counts_as_cut(filled: Store) -> None:
    # 17 characters are 17 tokens, and the end of the turn takes one more
    assert chosen(filled, [ONE], max_tokens=17)[ONE][2] == ("rather a long one", True)
    assert chosen(filled, [ONE], max_tokens=18)[ONE][2] == ("rather a long one", False)


def test_what_another_teacher_read_is_not_used_but_told(filled: Store) -> None:
    other = choose_imported(filled, {**TEACHER, "engine": "newer"}, templates(ONE, THREE), 8, 100)
    assert (other.by_problem, other.num_read_otherwise) == ({}, 4)
    assert choose_imported(filled, TEACHER, templates(ONE), 8, 100).num_read_otherwise == 0


def test_a_run_without_imports_keeps_the_id_it_had() -> None:
    settings = RolloutsConfig().model_dump(mode="json")
    assert "use_imported" not in settings
    assert RolloutsConfig.model_validate(settings).use_imported
    switched_off = RolloutsConfig(use_imported=False).model_dump(mode="json")
    assert switched_off["use_imported"] is False
    assert not RolloutsConfig.model_validate(switched_off).use_imported
