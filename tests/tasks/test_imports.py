"""A run and what was imported for its problems: which run it is, what it uses, and what SQL says of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from heal_core.config import RunConfig, load_config
from heal_core.engines.identity import identify_model
from heal_core.problems import load_problems
from heal_core.store.store import Store
from heal_core.store.workspace import Workspace
from tasks.imports import choose_imports
from tasks.problems import take_in_problems
from tasks.session import Session
from tests.heal_core.imports.world import import_into


@pytest.fixture
def config(heal: Any, tmp_path: Path) -> RunConfig:
    rows = [{"problem": f"What is {n} + {n}?", "answer": str(2 * n)} for n in range(20)]
    (tmp_path / "problems.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    settings = {"problems__path": str(tmp_path / "problems.jsonl"), "problems__limit": None}
    return load_config(heal.config(tmp_path / "workspace", **settings))


def bring(config: RunConfig, tmp_path: Path, num: int) -> None:
    """Import so many rollouts of each problem of the config."""
    problems = list(load_problems(config.problems).problems)
    rows = [
        {"problem": p.question, "expected_answer": p.answer, "generation": f"try {index}"}
        for index in range(num)
        for p in problems
    ]
    path = tmp_path / "output-rs0.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    workspace = Workspace(config.workspace)
    workspace.create()
    with Store(workspace) as store:
        import_into(store, path, problems=problems, teacher=identify_model(config.teacher))


def opened(config: RunConfig) -> tuple[str, int]:
    """Return the run's id, and how many imported rollouts it uses."""
    with Session.open(config) as session:
        run_id = take_in_problems.fn(session)
        train = session.read_problems("train")
        chosen = choose_imports(session, train)
        assert set(chosen.by_problem) <= {problem["problem_id"] for problem in train}
        return run_id, len(chosen.row_ids)


def test_a_run_is_another_one_once_there_is_something_to_use(config: RunConfig, tmp_path: Path) -> None:
    without, num = opened(config)
    assert num == 0
    bring(config, tmp_path, 2)
    with_two, num = opened(config)
    assert with_two != without
    with Store(Workspace(config.workspace)) as store:
        (row,) = store.rows(
            "SELECT count(*) FILTER (split = 'train') AS train, count(*) AS num FROM run_problems WHERE run_id = ?",
            [with_two],
        )
    assert row["train"] < row["num"] == 20
    assert num == 2 * row["train"]  # held-out problems have some too, which are not used

    bring(config, tmp_path, 2)  # again: nothing new
    assert opened(config) == (with_two, num)
    bring(config, tmp_path, 3)
    with_three, more = opened(config)
    assert (with_three != with_two, more) == (True, 3 * row["train"])

    settings = config.rollouts.model_copy(update={"use_imported": False})
    off, num = opened(config.model_copy(update={"rollouts": settings}))
    assert num == 0 and off not in (without, with_two, with_three)


def test_no_more_is_used_than_the_run_wants_rollouts(config: RunConfig, tmp_path: Path) -> None:
    bring(config, tmp_path, config.rollouts.num_generations + 3)
    with Session.open(config) as session:
        take_in_problems.fn(session)
        chosen = choose_imports(session, session.read_problems("train"))
        assert {len(rows) for rows in chosen.by_problem.values()} == {config.rollouts.num_generations}
