from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from heal_core.errors import InputError
from heal_core.plan import Slot
from heal_core.records import Kind
from heal_core.store.examples import (
    check_stage,
    count_problems,
    read_problem_samples,
    read_stage_rows,
    read_trained_stage,
)
from heal_core.store.inspect import open_store
from heal_core.store.store import Store
from heal_core.store.workspace import Workspace

Row = dict[str, Any]


@pytest.fixture
def ids(
    store: Store, workspace: Workspace, table_row: Callable[..., Row], make_rows: Callable[..., list[Row]]
) -> dict[str, str]:
    """A published run on two training problems and a held-out one; its trajectories by name."""
    slots = {
        "p0 1": Slot(Kind.ROLLOUT, "p0", "recipe", 1, "", 20),
        "p0 0": Slot(Kind.ROLLOUT, "p0", "recipe", 0, "", 20),
        "p1 0": Slot(Kind.ROLLOUT, "p1", "recipe", 0, "", 20),
        "held": Slot(Kind.ROLLOUT, "p2", "recipe", 0, "", 20),
        "kept": Slot(Kind.REPAIR, "p0", "recipe", 0, "", 20, prefix="So ", parent_id="x", hint_id="h"),
        "dropped": Slot(Kind.REPAIR, "p0", "recipe", 1, "", 20, prefix="So ", parent_id="x", hint_id="h"),
        "evaluated": Slot(Kind.ROLLOUT, "p1", "student", 0, "", 20),
    }
    phases = {"kept": "repairs", "dropped": "repairs", "evaluated": "evaluation"}
    for problem, split in (("p1", "train"), ("p0", "train"), ("p2", "held_out")):
        store.append("problems", [table_row("problems", problem_id=problem)])
        store.append(
            "run_problems", [table_row("run_problems", run_problem_id=problem, problem_id=problem, split=split)]
        )
    store.append("decisions", [table_row("decisions", phase="band", subject_id="p0", decision="easy")])
    for name, slot in slots.items():
        store.append("trajectories", make_rows([slot]))
        verdict = table_row("verdicts", verdict_id=name, trajectory_id=slot.row_id)
        store.append("verdicts", [verdict])
        used = {"phase": phases.get(name, "rollouts"), "row_id": slot.row_id, "verdict_id": name}
        store.append("run_rows", [table_row("run_rows", run_row_id=name, **used)])
    for name in ("kept", "dropped"):
        decided = {"phase": "cap", "subject_id": slots[name].row_id, "decision": name}
        store.append("decisions", [table_row("decisions", decision_id=name, **decided)])
    for position, name in ((1, "p0 0"), (0, "kept"), (2, "p1 0")):
        store.append(
            "stage_examples",
            [
                {
                    "stage_example_id": name, "run_id": "run", "arm": "heal", "stage": "III", "position": position,
                    "trajectory_id": slots[name].row_id, "problem_id": slots[name].problem_id,
                }
            ],
        )  # fmt: skip
    store.publish(force=True)
    return {name: slot.row_id for name, slot in slots.items()}


def test_the_examples_of_a_stage_come_in_training_order(workspace: Workspace, ids: dict[str, str]) -> None:
    with open_store(workspace.root) as store:
        check_stage(store, "run", "heal", "III")
        rows = read_stage_rows(store, "run", "heal", "III")
        first = next(rows)
        assert read_trained_stage(store, "run", "heal", "III") is None  # another question in between
        found = [first, *rows]
    assert [row["trajectory_id"] for row in found] == [ids["kept"], ids["p0 0"], ids["p1 0"]]
    assert [(row["kind"], row["band"]) for row in found] == [("repair", "easy"), ("rollout", "easy"), ("rollout", None)]
    assert found[0]["response"].startswith("So ") and found[0]["question"] == "1 + 1?"


def test_a_stage_that_is_not_there_is_refused(workspace: Workspace, ids: dict[str, str]) -> None:
    with open_store(workspace.root) as store:
        with pytest.raises(InputError, match=r"no examples of arm 'heal', stage 'I'. It has: heal III"):
            check_stage(store, "run", "heal", "I")
        with pytest.raises(InputError, match="no training examples so far"):
            check_stage(store, "another", "heal", "III")


def test_samples_come_by_problem_with_what_was_kept_behind_them(workspace: Workspace, ids: dict[str, str]) -> None:
    with open_store(workspace.root) as store:
        plain = list(read_problem_samples(store, "run"))
        added = list(read_problem_samples(store, "run", ["repairs"], held_out=True))
        counts = count_problems(store, "run")
    assert [row["trajectory_id"] for row in plain] == [ids["p0 0"], ids["p0 1"], ids["p1 0"]]
    wanted = [ids["p0 0"], ids["p0 1"], ids["kept"], ids["p1 0"], ids["held"]]
    assert [row["trajectory_id"] for row in added] == wanted
    assert {row["problem_id"]: row["split"] for row in added} == {"p0": "train", "p1": "train", "p2": "held_out"}
    assert counts == {"train": 2, "held_out": 1}
