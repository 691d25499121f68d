import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from heal_core.errors import InputError, StoreError
from heal_core.store.check import check_store
from heal_core.store.garbage import find_garbage, remove_garbage
from heal_core.store.rewrite import rebuild, rewrite
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


def test_what_a_run_has_adopted_since_it_was_found_stays(
    workspace: Workspace, store_maker, make_slot, make_rows, contents: Contents
) -> None:
    store_maker.write_run("one", "p0")
    slot = make_slot("p0", index=9)
    with Store(workspace) as store:
        (row,) = make_rows([slot])
        store.append("trajectories", [row | {"recipe_id": "recipe 0"}])
    garbage = find_garbage(workspace)
    with Store(workspace) as store:
        store_maker.use(store, "one", slot)
    before = contents()
    with pytest.raises(StoreError, match=r"has changed since .* nothing was removed\. Run `heal store gc` again"):
        remove_garbage(workspace, garbage)
    assert contents() == before
    assert check_store(workspace).findings == ()


def test_the_folder_of_a_stage_that_was_begun_since_it_was_found_stays(workspace: Workspace, store_maker) -> None:
    store_maker.write_run("one", "p0")
    (workspace.checkpoints / "abc.partial").mkdir()
    garbage = find_garbage(workspace)
    assert [path.name for path in garbage.folders] == ["abc.partial"]
    store_maker.write_run("training it", "p0", completed=False)
    with pytest.raises(StoreError, match="has changed since"):
        remove_garbage(workspace, garbage)
    assert (workspace.checkpoints / "abc.partial").is_dir()


def test_a_folder_that_is_half_removed_does_not_keep_its_name(
    workspace: Workspace, store_maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_maker.write_run("one", "p0")
    (workspace.checkpoints / "abc").mkdir()
    (workspace.checkpoints / "abc" / "result.json").write_text("{}")

    def interrupted(folder: Path, ignore_errors: bool = False) -> None:
        if folder.exists():
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(shutil, "rmtree", interrupted)
        remove_garbage(workspace, find_garbage(workspace))
    (left,) = workspace.checkpoints.iterdir()
    assert left.name == ".removed"
    assert check_store(workspace).is_sound
    garbage = find_garbage(workspace)
    assert garbage.folders == (left,)
    remove_garbage(workspace, garbage)
    assert not any(workspace.checkpoints.iterdir())


def test_a_copy_of_parts_alone_has_to_be_rebuilt_first(workspace: Workspace, store_maker, tmp_path: Path) -> None:
    store_maker.write_run("one", "p0")
    backup = Workspace(tmp_path / "backup")
    shutil.copytree(workspace.parts, backup.parts)
    for act in (find_garbage, rewrite):
        with pytest.raises(StoreError, match="run `heal store rebuild` there"):
            act(backup)
    rebuild(backup)
    assert find_garbage(backup).is_empty


def test_a_problem_that_nothing_names_keeps_its_chunk(workspace: Workspace, store_maker, contents: Contents) -> None:
    store_maker.write_run("one", "p0")
    before = contents()
    remove_garbage(workspace, find_garbage(workspace, ["one"]))
    after = contents()
    assert not after["trajectories"]
    assert (after["problems"], after["recipes"]) == (before["problems"], before["recipes"])


def test_what_a_used_row_names_is_no_garbage(workspace: Workspace, store_maker, contents: Contents) -> None:
    # the run uses the repair alone; its rollout and its hint are what it was made from
    ids = store_maker.write_run("one", "p0")
    with Store(workspace) as store:
        rows = store.rows("SELECT run_row_id FROM run_rows WHERE kind <> 'repair'")
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
    assert garbage.rows["runs"] == ["three", "two"]
    assert set(garbage.rows["trajectories"]) == set(own.values())
    remove_garbage(workspace, garbage)
    after = contents()
    assert {row["run_id"] for row in after["runs"]} == {"one"}
    for table in ("trajectories", "verdicts", "run_rows", "run_events", "tokens"):
        assert after[table] == before[table], table
    assert check_store(workspace).is_sound


def test_an_ablation_goes_with_any_of_its_runs(
    workspace: Workspace, store_maker, table_row, contents: Contents
) -> None:
    for run in ("one", "two", "three"):
        store_maker.write_run(run, "p0")
    with Store(workspace) as store:
        for ablation, runs in (("both", ("one", "two")), ("other", ("three",))):
            store.append("ablations", [table_row("ablations", ablation_id=ablation)])
            members = [
                table_row("ablation_runs", ablation_run_id=f"{ablation} {run}", ablation_id=ablation, run_id=run)
                for run in runs
            ]
            store.append("ablation_runs", members)
            for table in ("ablation_scores", "ablation_contrasts"):
                key = f"{table.removesuffix('s')}_id"
                store.append(table, [table_row(table, **{key: f"{ablation} row", "ablation_id": ablation})])
    remove_garbage(workspace, find_garbage(workspace, ["two"]))
    after = contents()
    for table in ("ablations", "ablation_runs", "ablation_scores", "ablation_contrasts"):
        assert {row["ablation_id"] for row in after[table]} == {"other"}, table
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
