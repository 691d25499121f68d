from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from heal_core.errors import StoreError
from heal_core.store import rewrite as rewrite_module
from heal_core.store.check import check_store
from heal_core.store.parts import list_parts
from heal_core.store.rewrite import rebuild, rewrite
from heal_core.store.store import Store
from heal_core.store.workspace import Workspace

Contents = Callable[[], dict[str, list[dict[str, Any]]]]


@pytest.fixture
def two_runs(store_maker) -> None:
    store_maker.write_run("one", "p0")
    store_maker.write_run("two", "p1", seed=1)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_rebuilt_database_has_the_same_rows(workspace: Workspace, two_runs: None, contents: Contents) -> None:
    before = contents()
    with Store(workspace) as store:
        epoch = store.epoch
    assert rebuild(workspace) == []
    assert contents() == before
    with Store(workspace) as store:
        assert store.epoch != epoch


def test_a_rebuild_that_meets_damage_leaves_the_old_database(
    workspace: Workspace, two_runs: None, contents: Contents
) -> None:
    before = contents()
    (part, *_) = [part for part in list_parts(workspace.parts) if part.table_name == "verdicts"]
    flip(part.path)
    with pytest.raises(StoreError, match=f"{part.path} is damaged"):
        rebuild(workspace)
    assert contents() == before


def test_damaged_parts_are_set_aside_and_only_their_rows_are_gone(
    workspace: Workspace, two_runs: None, contents: Contents
) -> None:
    before = contents()
    damaged = [part for part in list_parts(workspace.parts) if part.table_name == "verdicts"][:2]
    for part in damaged:
        flip(part.path)
    assert rebuild(workspace, set_damaged_aside=True) == damaged
    after = contents()
    assert len(after["verdicts"]) == len(before["verdicts"]) - 2
    assert {name: rows for name, rows in after.items() if name != "verdicts"} == {
        name: rows for name, rows in before.items() if name != "verdicts"
    }
    assert sorted(path.name for path in (workspace.root / "damaged").rglob("*.parquet")) == sorted(
        part.path.name for part in damaged
    )


def test_compacting_joins_parts_and_changes_no_row(workspace: Workspace, two_runs: None, contents: Contents) -> None:
    before = contents()
    told = rewrite(workspace)
    parts = list_parts(workspace.parts)
    assert told.parts_before > told.parts_after == len(parts) == len({part.table_name for part in parts})
    assert told.rows_dropped == 0
    assert contents() == before
    assert check_store(workspace).findings == ()
    # and a database made from the joined parts alone is the same
    rebuild(workspace)
    assert contents() == before


def test_compacting_twice_does_nothing_the_second_time(workspace: Workspace, two_runs: None) -> None:
    rewrite(workspace)
    parts = list_parts(workspace.parts)
    told = rewrite(workspace)
    assert (told.parts_before, told.parts_after) == (len(parts), len(parts))
    assert list_parts(workspace.parts) == parts


def test_the_order_of_rows_outlives_compacting(workspace: Workspace, table_row, store_maker) -> None:
    store_maker.write_run("run", "p0")
    names = ["zero", "one", "two", "three"]
    with Store(workspace) as store:
        for name in names:
            store.append("verdicts", [table_row("verdicts", verdict_id=name, trajectory_id="t", verifier_version=name)])
    rewrite(workspace)
    with Store(workspace) as store:
        store.append("verdicts", [table_row("verdicts", verdict_id="last", trajectory_id="t")])
        ordered = store.rows("SELECT verdict_id FROM verdicts WHERE trajectory_id = 't' ORDER BY rowid")
    assert [row["verdict_id"] for row in ordered] == [*names, "last"]
    rewrite(workspace)
    with Store(workspace) as store:
        (latest,) = store.rows("SELECT verdict_id FROM latest_verdicts WHERE trajectory_id = 't'")
    assert latest == {"verdict_id": "last"}


def test_large_parts_are_left_alone_and_parts_stay_near_the_aim(
    workspace: Workspace, store_maker, monkeypatch: pytest.MonkeyPatch, contents: Contents
) -> None:
    store_maker.write_run("one", "p0")
    sizes = [part.path.stat().st_size for part in list_parts(workspace.parts) if part.table_name == "verdicts"]
    before = contents()
    monkeypatch.setattr(rewrite_module, "JOINED_BYTES", 2 * max(sizes) + 1)  # room for two of the three
    rewrite(workspace)
    verdicts = [part for part in list_parts(workspace.parts) if part.table_name == "verdicts"]
    assert sorted(pq.read_metadata(part.path).num_rows for part in verdicts) == [1, 2]
    monkeypatch.setattr(rewrite_module, "JOINED_BYTES", 2 * min(sizes) - 2)  # now each is a large one
    kept = list_parts(workspace.parts)
    rewrite(workspace)
    assert [part for part in list_parts(workspace.parts) if part.table_name == "verdicts"] == [
        part for part in kept if part.table_name == "verdicts"
    ]
    assert contents() == before


def test_rows_that_are_left_out_leave_all_others(workspace: Workspace, two_runs: None, contents: Contents) -> None:
    before = contents()
    gone = before["verdicts"][0]["verdict_id"]
    told = rewrite(workspace, {"verdicts": [gone]})
    assert told.rows_dropped == 1
    after = contents()
    assert after["verdicts"] == before["verdicts"][1:]
    assert {**after, "verdicts": []} == {**before, "verdicts": []}


def test_a_damaged_part_stops_compacting_before_anything_is_replaced(
    workspace: Workspace, two_runs: None, contents: Contents
) -> None:
    before = contents()
    (part, *_) = [part for part in list_parts(workspace.parts) if part.table_name == "verdicts"]
    whole = part.path.read_bytes()
    flip(part.path)
    with pytest.raises(StoreError, match=f"{part.path} is damaged"):
        rewrite(workspace)
    part.path.write_bytes(whole)
    assert contents() == before
    assert check_store(workspace).is_sound
