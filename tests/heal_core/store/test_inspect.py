import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from heal_core.errors import InputError, StoreError
from heal_core.plan import Slot
from heal_core.records import Kind
from heal_core.store.database import newest_schema
from heal_core.store.inspect import find_trajectory, open_store, run_overview, schema_name
from heal_core.store.store import Store
from heal_core.store.workspace import Workspace

Row = dict[str, Any]
TableRow = Callable[..., Row]
MakeSlot = Callable[..., Slot]
MakeRows = Callable[..., list[Row]]


@pytest.fixture
def repaired(workspace: Workspace, table_row: TableRow, make_slot: MakeSlot, make_rows: MakeRows) -> dict[str, str]:
    """Store a wrong rollout with a hint, a right and a wrong repair; return their ids."""
    rollout = make_slot()
    hint = make_slot(kind=Kind.HINT, parent_id=rollout.row_id)
    repairs = [
        make_slot(index=i, kind=Kind.REPAIR, parent_id=rollout.row_id, hint_id=hint.row_id, prefix="So ")
        for i in range(2)
    ]
    with Store(workspace) as store:
        store.append("problems", [table_row("problems")])
        store.append("trajectories", make_rows([rollout, hint, *repairs]))
        labels = ((rollout, "wrong"), (repairs[0], "wrong"), (repairs[1], "correct"))
        for number, (slot, label) in enumerate(labels):
            verdict = table_row("verdicts", verdict_id=f"v{number}", trajectory_id=slot.row_id, label=label)
            store.append("verdicts", [verdict])
        store.append("decisions", [table_row("decisions", subject_id=repairs[1].row_id)])
    return {"rollout": rollout.row_id, "hint": hint.row_id, "wrong": repairs[0].row_id, "right": repairs[1].row_id}


def test_a_workspace_without_a_store_is_told_with_the_remedy(workspace: Workspace) -> None:
    with pytest.raises(StoreError, match=r"heal.duckdb. Run `heal run"), open_store(workspace.root):
        pass


def test_a_store_tells_its_schema(workspace: Workspace) -> None:
    Store(workspace).close()
    with open_store(workspace.root) as store:
        assert schema_name(store) == newest_schema()


def test_a_rollout_comes_with_the_repairs_that_go_on_from_it(workspace: Workspace, repaired: dict[str, str]) -> None:
    with open_store(workspace.root) as store:
        found = find_trajectory(store, repaired["rollout"])
        hint = store.execute("SELECT text FROM trajectories WHERE kind = 'hint'").fetchall()[0][0]
    assert (found["question"], found["answer"], found["label"]) == ("1 + 1?", "2", "wrong")
    assert found["hint"] is None and found["profile"] is None and found["score"] is None
    # verified ones first
    assert [(row["trajectory_id"], row["label"], row["hint"]) for row in found["repairs"]] == [
        (repaired["right"], "correct", hint),
        (repaired["wrong"], "wrong", hint),
    ]


def test_a_repair_comes_with_its_hint_and_decisions(workspace: Workspace, repaired: dict[str, str]) -> None:
    with open_store(workspace.root) as store:
        found = find_trajectory(store, repaired["right"])
        hint = find_trajectory(store, repaired["hint"])
    assert found["hint"] == {"text": hint["text"]}
    assert (found["parent_id"], found["prefix"], found["repairs"]) == (repaired["rollout"], "So ", [])
    assert [(row["phase"], row["decision"]) for row in found["decisions"]] == [("gate", "kept")]
    assert hint["label"] is None  # hints are not graded


def test_the_beginning_of_an_id_is_enough_while_it_is_the_only_one(
    workspace: Workspace, repaired: dict[str, str]
) -> None:
    ids = sorted(repaired.values())
    with open_store(workspace.root) as store:
        assert find_trajectory(store, ids[0][:12])["trajectory_id"] == ids[0]
        with pytest.raises(InputError, match=f"begins more than one id .*{ids[0]}.*give more of it"):
            find_trajectory(store, "")
        with pytest.raises(
            InputError, match=r"no trajectory has an id that begins with 'xyz'. List some with: heal sql"
        ):
            find_trajectory(store, "xyz")


def test_an_id_is_no_pattern(workspace: Workspace, repaired: dict[str, str]) -> None:
    with open_store(workspace.root) as store, pytest.raises(InputError, match="no trajectory"):
        find_trajectory(store, "%")


def flip_blocks(path: Path) -> None:
    """Flip a byte in every block but the first: the headers stay sound, so that the file opens."""
    data = bytearray(path.read_bytes())
    for position in range(2**18, len(data), 2**10):
        data[position] ^= 0xFF
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(b"no database" * 1000), flip_blocks])
def test_a_damaged_copy_is_told_with_the_remedy(
    workspace: Workspace, repaired: dict[str, str], damage: Callable[[Path], object]
) -> None:
    damage(workspace.database)
    with (
        pytest.raises(StoreError, match=r"heal\.duckdb cannot be read .*`heal store rebuild`"),
        open_store(workspace.root) as store,
    ):
        find_trajectory(store, repaired["rollout"])


def test_runs_are_told_with_their_state_the_newest_first(workspace: Workspace, table_row: TableRow) -> None:
    began = datetime(2026, 1, 1, tzinfo=UTC)
    events = {
        "old": [("started", None), ("phase", "rollouts"), ("completed", None)],
        "new": [("started", None), ("phase", "rollouts"), ("started", None)],
        "opened": [],
    }
    with Store(workspace) as store:
        for number, (run_id, happened) in enumerate(events.items()):
            started = began - timedelta(days=number)  # the clock jumps back: the order of writing counts
            store.append("runs", [table_row("runs", run_id=run_id, started_at=started)])
            for second, (event, phase) in enumerate(happened):
                store.append(
                    "run_events",
                    [
                        table_row(
                            "run_events", event_id=f"{run_id} {second}", run_id=run_id, event=event, phase=phase,
                            happened_at=started - timedelta(seconds=second),
                        )
                    ],
                )  # fmt: skip
        store.append("run_problems", [table_row("run_problems", run_id="new")])
        store.append("quarantine", [table_row("quarantine", run_id="new")])
        rows = [("rollouts", "a"), ("rollouts", "b"), ("repairs", "c"), ("hints", "d")]
        store.append(
            "run_rows",
            [table_row("run_rows", run_row_id=name, run_id="new", phase=phase) for phase, name in rows],
        )
    with open_store(workspace.root) as connection:
        overview = run_overview(connection)
    assert [(row["run_id"], row["state"]) for row in overview] == [
        ("opened", "unfinished"),
        ("new", "unfinished"),
        ("old", "completed"),
    ]
    new = overview[1]
    assert (new["problems"], new["rollouts"], new["repairs"], new["quarantined"]) == (1, 2, 1, 1)
    # shown in local time
    assert new["last_event"] == (began - timedelta(days=1, seconds=2)).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    # the phase that was closed last, whatever happened since
    assert [row["last_phase"] for row in overview] == [None, "rollouts", "rollouts"]


def test_a_run_is_told_with_why_it_ended(workspace: Workspace, table_row: TableRow) -> None:
    events = {
        "went through": [("failed", {"error": "X: y"}), ("started", {}), ("completed", {"quarantined": 2})],
        "old": [("completed", {"seconds": 1.5})],  # from before quarantined was noted
        "failed": [("started", {}), ("failed", {"error": "ValueError: two\nlines"})],
        "stopped": [("started", {}), ("stopped", {"reason": "the time is over"})],
        "goes on": [("failed", {"error": "X: y"}), ("started", {})],
    }
    with Store(workspace) as store:
        for run_id, happened in events.items():
            store.append("runs", [table_row("runs", run_id=run_id)])
            for number, (event, detail) in enumerate(happened):
                # failed and stopped say in which phase; it was not closed
                row = table_row(
                    "run_events", event_id=f"{run_id} {number}", run_id=run_id, event=event,
                    phase="repairs" if event in ("failed", "stopped") else None, detail=json.dumps(detail),
                )  # fmt: skip
                store.append("run_events", [row])
    with open_store(workspace.root) as connection:
        overview = {row["run_id"]: row for row in run_overview(connection)}
    assert {run_id: (row["state"], row["reason"]) for run_id, row in overview.items()} == {
        "went through": ("completed", None),
        "old": ("completed", None),
        "failed": ("failed", "ValueError: two\nlines"),
        "stopped": ("stopped", "the time is over"),
        "goes on": ("unfinished", None),
    }
    assert {run_id: row["quarantined_problems"] for run_id, row in overview.items() if row["state"] == "completed"} == {
        "went through": 2,
        "old": None,
    }
    assert {row["last_phase"] for row in overview.values()} == {None}
