from collections.abc import Callable
from typing import Any

import pytest

from heal_core.errors import InputError
from heal_core.store.check import check_store
from heal_core.store.garbage import find_garbage, remove_garbage
from heal_core.store.store import Store
from heal_core.store.workspace import Workspace

Contents = Callable[[], dict[str, list[dict[str, Any]]]]


def test_what_runs_use_is_no_garbage(workspace: Workspace, store_maker) -> None:
    store_maker.write_run("one", "p0")
    garbage = find_garbage(workspace)
    assert garbage.is_empty
    assert (garbage.num_tokens, garbage.unfinished_runs) == (0, ())


def test_a_sample_that_no_run_uses_is_garbage_with_what_hangs_on_it(
    workspace: Workspace, store_maker, make_slot, make_rows, table_row, contents: Contents
) -> None:
    store_maker.write_run("one", "p0")
    before = contents()
    slot = make_slot("p0", index=9)
    with Store(workspace) as store:
        store.append("trajectories", make_rows([slot], p0=7))
        store.append("verdicts", [table_row("verdicts", verdict_id="v", trajectory_id=slot.row_id)])
    garbage = find_garbage(workspace)
    assert garbage.rows == {"trajectories": [slot.row_id], "verdicts": ["v"]}
    assert garbage.num_tokens == 7
    remove_garbage(workspace, garbage)
    assert contents() == before
    assert check_store(workspace).findings == ()
    assert find_garbage(workspace).is_empty


def test_what_a_used_row_names_is_no_garbage(workspace: Workspace, store_maker, contents: Contents) -> None:
    # the run uses the repair alone; its rollout and its hint are what it was made from
    ids = store_maker.write_run("one", "p0")
    with Store(workspace) as store:
        rows = store.rows("SELECT run_row_id FROM run_rows WHERE kind <> 'repair'")
    from heal_core.store.rewrite import rewrite

    rewrite(workspace, {"run_rows": [row["run_row_id"] for row in rows]})
    assert find_garbage(workspace).is_empty
    assert {row["trajectory_id"] for row in contents()["trajectories"]} == set(ids.values())


def test_a_run_that_is_forgotten_leaves_what_others_share_with_it(
    workspace: Workspace, store_maker, contents: Contents
) -> None:
    store_maker.write_run("one", "p0")
    before = contents()
    store_maker.write_run("two", "p0")  # the same samples
    own = store_maker.write_run("three", "p1", seed=1)
    garbage = find_garbage(workspace, ["two", "three"])
    assert garbage.rows["runs"] == ["three", "two"] or garbage.rows["runs"] == ["two", "three"]
    assert set(garbage.rows["trajectories"]) == set(own.values())
    remove_garbage(workspace, garbage)
    after = contents()
    assert {row["run_id"] for row in after["runs"]} == {"one"}
    for table in ("trajectories", "verdicts", "run_rows", "run_events", "tokens"):
        assert after[table] == before[table], table
    assert check_store(workspace).is_sound


def test_what_an_unfinished_run_may_still_need_is_kept(workspace: Workspace, store_maker, make_slot, make_rows) -> None:
    store_maker.write_run("one", "p0")
    store_maker.write_run("going on", "p1", seed=1, completed=False)
    loose = {name: make_slot(name, index=9) for name in ("p0", "p1")}
    with Store(workspace) as store:
        store.append("trajectories", make_rows(list(loose.values())))
    (workspace.checkpoints / "abc.partial").mkdir()
    garbage = find_garbage(workspace)
    assert garbage.unfinished_runs == ("going on",)
    assert garbage.rows == {"trajectories": [loose["p0"].row_id]}
    assert garbage.folders == ()
    # once it is given up, its own is garbage too
    garbage = find_garbage(workspace, ["going on"])
    assert loose["p1"].row_id in garbage.rows["trajectories"]
    assert [path.name for path in garbage.folders] == ["abc.partial"]


def test_checkpoints_and_their_folders_go_with_the_runs_that_trained_them(
    workspace: Workspace, store_maker, table_row
) -> None:
    store_maker.write_run("one", "p0")
    store_maker.write_run("two", "p1", seed=1)
    with Store(workspace) as store:
        for name, parent, run in (("a", None, None), ("b", "a", "one"), ("c", None, "two")):
            row = {
                "checkpoint_id": name, "parent_checkpoint_id": parent, "stage": "I", "folder": f"checkpoints/{name}",
                "num_examples": 1, "num_dropped_over_long": 0, "num_optimizer_steps": 1, "num_tokens": 1,
                "loss_first": None, "loss_last": None, "seconds": 1.0, "result": "{}",
            }  # fmt: skip
            store.append("checkpoints", [row])
            if run:
                used = table_row("run_rows", run_row_id=name, run_id=run, kind="checkpoint", row_id=name)
                store.append("run_rows", [used])
            (workspace.checkpoints / name).mkdir()
            (workspace.checkpoints / name / "model.safetensors").write_bytes(b"x" * 100)
            (workspace.checkpoints / f"{name}.examples.parquet").write_bytes(b"x" * 10)
    link = workspace.students / "heal" / "stage-I"
    link.parent.mkdir()
    link.symlink_to("../../checkpoints/c")
    assert find_garbage(workspace).is_empty
    garbage = find_garbage(workspace, ["two"])
    assert garbage.rows["checkpoints"] == ["c"]
    assert garbage.folder_bytes == 110
    remove_garbage(workspace, garbage)
    assert sorted(path.name for path in workspace.checkpoints.iterdir()) == [
        "a", "a.examples.parquet", "b", "b.examples.parquet",
    ]  # fmt: skip
    assert not link.is_symlink()


def test_a_run_that_is_not_there_cannot_be_forgotten(workspace: Workspace, store_maker) -> None:
    store_maker.write_run("one", "p0")
    with pytest.raises(InputError, match=r"there is no run zero; `heal status` lists them: one"):
        find_garbage(workspace, ["zero"])
