"""`heal store` as a person meets it; what the verbs do to the rows is tested in tests/heal_core/store."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from heal_core.store.workspace import Workspace


@pytest.fixture
def workspace(finished_run: Any, tmp_path: Path) -> Path:
    """Return a copy of a finished run's workspace."""
    copy = tmp_path / "workspace"
    shutil.copytree(finished_run.workspace, copy, symlinks=True, ignore=shutil.ignore_patterns(".prefect", "cache"))
    return copy


def answers(heal: Any, workspace: Path) -> str:
    """Return what readers see, in the words of several views."""
    sql = (
        "SELECT run_id, phase, outcome, reason, num FROM funnel UNION ALL "
        "SELECT arm, band, '', '', (1000 * avg_at_k)::INT FROM evaluations UNION ALL "
        "SELECT trajectory_id, '', '', '', len(token_ids) FROM tokens ORDER BY ALL"
    )
    done = heal("sql", sql, "--workspace", workspace, "--format", "csv")
    assert done.returncode == 0, done.stderr
    return str(done.stdout)


@pytest.mark.slow
def test_a_finished_run_is_checked_rebuilt_compacted_and_measured(heal: Any, workspace: Path) -> None:
    before = answers(heal, workspace)
    checked = heal("store", "check", "-w", workspace)
    assert checked.returncode == 0, checked.stdout
    assert "checkpoints: sound" in checked.stdout
    assert "damage" not in checked.stdout
    assert "rebuilt from" in heal("store", "rebuild", "-w", workspace).stdout
    assert answers(heal, workspace) == before
    assert "0 rows left out" in heal("store", "compact", "-w", workspace).stdout
    assert answers(heal, workspace) == before
    assert heal("store", "check", "-w", workspace).returncode == 0
    sizes = {row["what"]: row for row in json.loads(heal("store", "size", "-w", workspace, "--json").stdout)}
    files = [path for path in (workspace / "parts" / "trajectories").rglob("*.parquet")]
    assert sizes["parts/trajectories"]["num_bytes"] == sum(path.stat().st_size for path in files)
    assert heal("store", "gc", "-w", workspace).stdout.startswith("nothing to remove: every sample and checkpoint is")


@pytest.mark.slow
def test_a_run_finds_nothing_to_do_after_its_store_was_compacted(heal: Any, workspace: Path) -> None:
    assert heal("store", "compact", "-w", workspace).returncode == 0
    again = heal("run", heal.config(workspace), "--json")
    assert again.returncode == 0, again.stderr
    assert not any(json.loads(again.stdout)["generated"].values())


@pytest.mark.slow
def test_garbage_is_removed_only_when_asked_for(heal: Any, workspace: Path) -> None:
    run_id = json.loads(heal("status", "-w", workspace, "--json").stdout)["runs"][0]["run_id"]
    dry = heal("store", "gc", "-w", workspace, "--forget", run_id, "--dry-run")
    assert "nothing was removed (--dry-run)" in dry.stdout
    unasked = heal("store", "gc", "-w", workspace, "--forget", run_id)
    assert "add --yes to remove it without a question" in unasked.stdout
    assert any(Workspace(workspace).checkpoints.iterdir())
    gone = heal("store", "gc", "-w", workspace, "--forget", run_id, "--yes")
    assert gone.returncode == 0, gone.stderr
    assert json.loads(heal("status", "-w", workspace, "--json").stdout)["runs"] == []
    assert "problems and recipes are always kept" in gone.stdout
    problems = heal("sql", "SELECT count(*) AS n FROM problems", "-w", workspace, "--format", "csv").stdout
    assert int(problems.split()[-1]) > 0
    assert not any(Workspace(workspace).checkpoints.iterdir())
    assert heal("store", "check", "-w", workspace).returncode == 0


@pytest.mark.slow
def test_a_cut_checkpoint_and_a_copy_that_is_gone_are_told(heal: Any, workspace: Path) -> None:
    weights = next(workspace.glob("checkpoints/*/model.safetensors"))
    with weights.open("r+b") as file:
        file.truncate(weights.stat().st_size // 2)
    (workspace / "heal.duckdb").unlink()
    checked = heal("store", "check", "-w", workspace)
    assert checked.returncode == 1
    assert f"checkpoint {weights.parent.name} is damaged: 1 (model.safetensors has" in checked.stdout
    assert "heal.duckdb cannot be read" in checked.stdout


@pytest.mark.slow
def test_a_backup_of_parts_and_checkpoints_is_checked_and_becomes_a_workspace(
    heal: Any, workspace: Path, tmp_path: Path
) -> None:
    backup = tmp_path / "backup"
    for name in ("parts", "checkpoints"):
        shutil.copytree(workspace / name, backup / name)
    checked = heal("store", "check", "-w", backup)
    assert checked.returncode == 0, checked.stdout
    assert "only files were checked" in checked.stdout
    for verb in (["gc", "--dry-run"], ["compact"]):
        refused = heal("store", *verb, "-w", backup)
        assert refused.returncode == 2
        assert "heal store rebuild" in refused.stderr and "Traceback" not in refused.stderr
    assert heal("store", "rebuild", "-w", backup).returncode == 0
    assert answers(heal, backup) == answers(heal, workspace)
    assert heal("store", "check", "-w", backup).stdout.endswith("checkpoints: sound\n")


@pytest.mark.slow
def test_damage_is_told_with_the_remedy_and_the_remedy_helps(heal: Any, workspace: Path) -> None:
    part = next(workspace.glob("parts/profiles/*.parquet"))
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1
    part.write_bytes(data)
    checked = heal("store", "check", "-w", workspace)
    assert checked.returncode == 1
    assert f"{part} is damaged: its bytes do not match its name" in checked.stdout
    refused = heal("store", "rebuild", "-w", workspace)
    assert refused.returncode == 2
    assert "StoreError" in refused.stderr and "Traceback" not in refused.stderr
    helped = heal("store", "rebuild", "-w", workspace, "--set-damaged-aside")
    assert f"set aside: profiles/{part.name}" in helped.stdout
    assert heal("store", "check", "-w", workspace).returncode == 0


def test_a_folder_that_is_no_workspace_is_not_made_one(heal: Any, tmp_path: Path) -> None:
    for verb in ("check", "rebuild", "compact", "size", "gc"):
        done = heal("store", verb, "-w", tmp_path / "mistyped")
        assert done.returncode == 2
        assert "Give its --workspace" in done.stderr
    assert not (tmp_path / "mistyped").exists()
