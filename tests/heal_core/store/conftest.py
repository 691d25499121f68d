"""A small store in which everything that is named exists, as a finished run leaves it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from heal_core.plan import Slot
from heal_core.records import Kind
from heal_core.store.store import Store
from heal_core.store.workspace import Workspace

Row = dict[str, Any]


class StoreMaker:
    """Writes runs into a workspace, each append a part of its own, as tasks do."""

    def __init__(
        self, workspace: Workspace, table_row: Callable[..., Row], make_rows: Callable[..., list[Row]]
    ) -> None:
        self.workspace = workspace
        self.table_row = table_row
        self.make_rows = make_rows

    def write_run(self, run_id: str, problem_id: str, seed: int = 0, completed: bool = True) -> dict[str, str]:
        """Store a run with a wrong rollout, its hint and its repair; return their ids by kind."""
        recipe_id = f"recipe {seed}"
        rollout = Slot(Kind.ROLLOUT, problem_id, recipe_id, 0, "What?", 20)
        hint = Slot(Kind.HINT, problem_id, recipe_id, 0, "Hint?", 20, parent_id=rollout.row_id)
        repair = Slot(
            Kind.REPAIR, problem_id, recipe_id, 0, "What now?", 20, parent_id=rollout.row_id, hint_id=hint.row_id
        )
        with Store(self.workspace) as store:
            store.append("problems", [self.table_row("problems", problem_id=problem_id)])
            store.append("recipes", [self.table_row("recipes", recipe_id=recipe_id)])
            store.append("runs", [self.table_row("runs", run_id=run_id)])
            store.append(
                "run_problems",
                [self.table_row("run_problems", run_problem_id=f"{run_id} p", run_id=run_id, problem_id=problem_id)],
            )
            for slot in (rollout, hint, repair):
                self.use(store, run_id, slot)
            if completed:
                event = self.table_row("run_events", event_id=f"{run_id} done", run_id=run_id, event="completed")
                store.append("run_events", [event])
        return {"rollout": rollout.row_id, "hint": hint.row_id, "repair": repair.row_id}

    def use(self, store: Store, run_id: str, slot: Slot) -> None:
        """Store a sample with its verdict, and that the run uses it."""
        store.append("trajectories", self.make_rows([slot]))
        verdict_id = f"v {slot.row_id}"
        store.append("verdicts", [self.table_row("verdicts", verdict_id=verdict_id, trajectory_id=slot.row_id)])
        used = self.table_row(
            "run_rows", run_row_id=f"{run_id} {slot.row_id}", run_id=run_id, row_id=slot.row_id,
            kind=str(slot.kind), verdict_id=verdict_id,
        )  # fmt: skip
        store.append("run_rows", [used])


@pytest.fixture
def store_maker(
    workspace: Workspace, empty_database: Path, table_row: Callable[..., Row], make_rows: Callable[..., list[Row]]
) -> StoreMaker:
    if not workspace.writer_database.exists():
        shutil.copyfile(empty_database, workspace.writer_database)
    return StoreMaker(workspace, table_row, make_rows)


@pytest.fixture
def contents(workspace: Workspace) -> Callable[[], dict[str, list[Row]]]:
    """Return a function that reads all tables of the workspace, with the token arrays."""

    def read() -> dict[str, list[Row]]:
        with Store(workspace) as store:
            tables = {name: store.rows(f"SELECT * FROM {name} ORDER BY ALL") for name in (*store.tables, "tokens")}
            tables["trajectories"] = store.rows("SELECT * EXCLUDE (part_name) FROM trajectories ORDER BY ALL")
        return tables

    return read
