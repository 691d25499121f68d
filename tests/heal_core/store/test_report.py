"""What the report counts where a run is on its way, or some of its texts cannot be graded."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from heal_core.plan import Slot
from heal_core.records import Kind
from heal_core.store.report import read_report
from heal_core.store.store import Store


def test_pass_rates_after_repair_are_of_what_was_graded(
    store_maker: Any, table_row: Callable[..., dict[str, Any]]
) -> None:
    # one wrong rollout; of four repairs one is correct, one wrong, one cannot be graded, and one is not graded yet
    labels = {"rollout": "wrong", "a": "correct", "b": "wrong", "c": "unverifiable", "d": None}
    rollout = Slot(Kind.ROLLOUT, "p", "recipe", 0, "What?", 20)
    with Store(store_maker.workspace) as store:
        store.append("runs", [table_row("runs", run_id="r")])
        store.append("problems", [table_row("problems", problem_id="p")])
        store.append("run_problems", [table_row("run_problems", run_id="r", problem_id="p")])
        band = table_row("decisions", run_id="r", phase="band", subject_id="p", problem_id="p",
                         decision="extremely_hard")  # fmt: skip
        store.append("decisions", [band])
        for index, (name, label) in enumerate(labels.items()):
            slot = rollout
            if name != "rollout":
                slot = Slot(Kind.REPAIR, "p", "recipe", index, "What now?", 20, parent_id=rollout.row_id)
            store.append("trajectories", store_maker.make_rows([slot]))
            if label:
                verdict = table_row("verdicts", verdict_id=name, trajectory_id=slot.row_id, label=label)
                store.append("verdicts", [verdict])
            used = table_row(
                "run_rows", run_row_id=name, run_id="r", row_id=slot.row_id, kind=str(slot.kind),
                phase="rollouts" if slot is rollout else "repairs", verdict_id=name if label else None,
            )  # fmt: skip
            store.append("run_rows", [used])
        (rates,) = read_report(store, "r").pass_rates
    assert rates["rate_before"] == 0
    assert rates["rate_after"] == 1 / 3


def test_the_ceiling_is_of_the_rollouts_that_were_asked_for_whatever_could_be_graded(
    store_maker: Any, table_row: Callable[..., dict[str, Any]]
) -> None:
    config = json.dumps({"rollouts": {"num_generations": 90}})
    slot = Slot(Kind.ROLLOUT, "p", "recipe", 0, "What?", 20)
    with Store(store_maker.workspace) as store:
        store.append(
            "runs", [table_row("runs", run_id="r", config=config), table_row("runs", run_id="old", config="{}")]
        )
        store.append("problems", [table_row("problems", problem_id="p")])
        store.append("trajectories", store_maker.make_rows([slot]))
        store.append("verdicts", [table_row("verdicts", verdict_id="v", trajectory_id=slot.row_id, label="wrong")])
        for run_id in ("r", "old"):
            problem = table_row("run_problems", run_problem_id=run_id, run_id=run_id, problem_id="p")
            band = table_row("decisions", decision_id=run_id, run_id=run_id, phase="band", subject_id="p",
                             problem_id="p", decision="extremely_hard")  # fmt: skip
            used = table_row("run_rows", run_row_id=run_id, run_id=run_id, row_id=slot.row_id, kind="rollout",
                             phase="rollouts", verdict_id="v")  # fmt: skip
            store.append("run_problems", [problem])
            store.append("decisions", [band])
            store.append("run_rows", [used])
        asked, old = (read_report(store, run_id).ceiling for run_id in ("r", "old"))
    assert (asked["num_extremely_hard"], asked["num_generations"]) == (1, 90)
    assert old["num_generations"] == 1  # a config that does not say it: what was graded
