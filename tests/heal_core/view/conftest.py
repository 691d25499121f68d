"""A small published store: a wrong rollout that was continued, and three repairs of it, of which one was kept."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from heal_core.plan import Slot
from heal_core.records import Kind
from heal_core.store.store import Store
from heal_core.store.workspace import Workspace

Row = dict[str, Any]


@dataclass(frozen=True)
class SmallStore:
    """A workspace, the ids of what is in it, and a way to add a problem, which publishes it anew."""

    workspace: Workspace
    rollout: str
    repairs: list[str]
    add_problem: Callable[[str], None]


@pytest.fixture(scope="session")
def kept_copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the small store is kept once it was made: copying it takes a tenth of the time."""
    return tmp_path_factory.mktemp("small") / "kept"


@pytest.fixture
def small_store(
    workspace: Workspace,
    empty_database: Path,
    kept_copy: Path,
    table_row: Callable[..., Row],
    make_rows: Callable[..., list[Row]],
) -> SmallStore:
    rollout = Slot(Kind.ROLLOUT, "p0", "recipe", 0, "What?", 20)
    repairs = [
        Slot(Kind.REPAIR, "p0", "recipe", index, "What now?", 20, parent_id=rollout.row_id) for index in range(3)
    ]

    def add_problem(problem_id: str) -> None:
        with Store(workspace) as store:
            store.append("problems", [table_row("problems", problem_id=problem_id)])

    if not kept_copy.exists():
        shutil.copyfile(empty_database, workspace.writer_database)
        with Store(workspace) as store:
            for table, rows in _tables(rollout, repairs, table_row, make_rows):
                store.append(table, rows)
        shutil.copytree(workspace.root, kept_copy)
    else:
        shutil.copytree(kept_copy, workspace.root, dirs_exist_ok=True)
    return SmallStore(workspace, rollout.row_id, [slot.row_id for slot in repairs], add_problem)


def _tables(
    rollout: Slot, repairs: list[Slot], table_row: Callable[..., Row], make_rows: Callable[..., list[Row]]
) -> Iterator[tuple[str, list[Row]]]:
    """Yield rows of tables, in the order in which they are appended."""
    slots = [rollout, *repairs]
    yield "problems", [table_row("problems", question="How MANY eggs?")]
    yield "recipes", [table_row("recipes")]
    yield "runs", [table_row("runs", run_id=name) for name in ("run1", "run2")]
    yield "run_events", [table_row("run_events", event_id=name, run_id=name) for name in ("run1", "run2")]
    yield "run_problems", [table_row("run_problems", run_id="run2")]
    yield "trajectories", [row for slot in slots for row in make_rows([slot])]
    yield "verdicts", [
        table_row("verdicts", verdict_id=f"v{slot.row_id}", trajectory_id=slot.row_id,
                  label="wrong" if slot is rollout else "correct")
        for slot in slots
    ]  # fmt: skip
    yield "run_rows", [
        table_row("run_rows", run_row_id=slot.row_id, run_id="run2", row_id=slot.row_id, kind=str(slot.kind),
                  phase="rollouts" if slot is rollout else "repairs", verdict_id=f"v{slot.row_id}")
        for slot in slots
    ]  # fmt: skip
    decided = [("path", rollout, "kept"), ("cap", repairs[0], "kept"), ("cap", repairs[1], "dropped")]
    yield "decisions", [
        table_row("decisions", decision_id=f"d{number}", run_id="run2", phase=phase, subject_id=slot.row_id,
                  decision=decision, reason="over_cap" if decision == "dropped" else None)
        for number, (phase, slot, decision) in enumerate(decided)
    ]  # fmt: skip
