"""Disk, file system, lock, store and latest student. Files, locks and stores are real."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pytest

from heal_core.doctor import workspace as checks
from heal_core.doctor.workspace import (
    check_disk,
    check_file_system,
    check_latest_student,
    check_lock,
    check_store,
)
from heal_core.store.store import Store
from heal_core.store.workspace import Workspace

LAB = Path(__file__).parents[3] / "deployments/lab"
GIB = 2**30


@pytest.mark.parametrize(
    ("free_gib", "expected_gib", "state"),
    [(50, 0, "ok"), (50, 80, "warn"), (9.9, 0, "warn"), (0.9, 0, "fail"), (0.9, 80, "fail")],
)
def test_free_disk_is_judged(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free_gib: float, expected_gib: int, state: str
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=int(free_gib * GIB))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    finding = check_disk(tmp_path / "not" / "yet", expected_bytes=expected_gib * GIB)
    assert finding.state == state
    assert f"{free_gib:.1f} GiB" in finding.found
    assert state == "ok" or f"du -xhd1 {tmp_path}" in finding.remedy


def test_a_full_disk_under_a_workspace_is_told_with_what_makes_room(
    monkeypatch: pytest.MonkeyPatch, workspace: Workspace
) -> None:
    (workspace.parts / "big").write_bytes(b"x" * 2**20)
    usage = shutil.disk_usage(workspace.root)._replace(free=0)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    finding = check_disk(workspace.root)
    assert "the workspace takes 1.0 MiB" in finding.found
    assert f"heal store gc -w {workspace.root}" in finding.remedy


def test_a_file_system_is_tried_and_left_as_it_was(tmp_path: Path) -> None:
    finding = check_file_system(tmp_path / "deep" / "down")
    assert finding.state == "ok"
    assert finding.found.startswith(f"{tmp_path}: ")
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert check_file_system(tmp_path / "file" / "workspace").state == "fail"
    assert check_file_system(Path("/proc/workspace")).state == "fail"


def test_a_network_disk_without_locks_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(file: object, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(checks.fcntl, "flock", refuse)
    finding = check_file_system(tmp_path)
    assert finding.state == "fail"
    assert "No locks available" in finding.found


def test_who_holds_a_workspace_is_told(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    assert check_lock(workspace).state == "ok"
    workspace.create()
    assert check_lock(workspace).state == "ok"
    with workspace.lock():
        held = check_lock(workspace)
        os.truncate(workspace.lock_file, 0)  # on a full disk a run cannot say who it is
        nameless = check_lock(workspace)
    assert held.state == nameless.state == "warn"
    assert held.found == f"held by process {os.getpid()}: {' '.join(psutil.Process().cmdline())}"
    assert f"kill {os.getpid()}" in held.remedy
    assert "kill" not in nameless.remedy
    assert check_lock(workspace).state == "ok"


def store_with(workspace: Workspace, events: Mapping[str, Mapping[str, Any] | None] = {}) -> None:
    """Make a store; its one run, if any, has these events with their details."""
    with workspace.lock(), Store(workspace) as store:
        now = datetime.now(UTC)
        texts = {"config": "{}", "problems_digest": "d", "seed": 0, "heal_version": "0", "started_at": now}
        run = dict.fromkeys(store.part_schema("runs").names) | texts | {"run_id": "abc123"}
        event = dict.fromkeys(store.part_schema("run_events").names) | {"run_id": "abc123", "happened_at": now}
        store.append("runs", [run] if events else [])
        for name, detail in events.items():
            store.append("run_events", [event | {"event_id": name, "event": name, "detail": json.dumps(detail or {})}])


@pytest.mark.parametrize(
    ("events", "state", "told"),
    [
        ({}, "ok", "no run yet"),
        ({"started": None, "completed": None}, "ok", "last run abc123, completed"),
        ({"started": None}, "warn", "last run abc123, unfinished"),
        ({"started": None, "failed": {"error": "no space left"}}, "warn", "no space left"),
        ({"started": None, "stopped": {"reason": "it is 07:00"}}, "ok", "it is 07:00"),
    ],
)
def test_the_store_says_how_the_last_run_stands(
    workspace: Workspace, events: Mapping[str, Mapping[str, Any] | None], state: str, told: str
) -> None:
    store_with(workspace, events)
    finding = check_store(workspace)
    assert finding.state == state
    assert told in finding.found
    assert state == "ok" or f"heal retry abc123 -w {workspace.root}" in finding.remedy
    assert check_store(workspace, is_busy=True).state == "ok"


def test_a_workspace_without_a_store_is_new_or_a_copy_of_parts(workspace: Workspace) -> None:
    assert check_store(workspace).state == "ok"
    store_with(workspace, {"started": None})
    workspace.database.unlink()
    copy = check_store(workspace)
    assert copy.state == "warn"
    assert f"heal store rebuild -w {workspace.root}" in copy.remedy


def test_a_damaged_store_is_told_with_how_to_rebuild_it(workspace: Workspace) -> None:
    store_with(workspace)
    workspace.database.write_bytes(b"no database" * 1000)
    finding = check_store(workspace)
    assert finding.state == "fail"
    assert f"heal store rebuild -w {workspace.root}" in finding.remedy


@pytest.mark.parametrize(("known", "state", "told"), [("0000_earlier", "fail", "git pull"), ("9999_later", "ok", "")])
def test_a_store_of_another_schema_is_told(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, known: str, state: str, told: str
) -> None:
    store_with(workspace, {"started": None})
    schema = check_store(workspace).found.split()[1].rstrip(";")
    monkeypatch.setattr("heal_core.store.database.newest_schema", lambda: known)
    finding = check_store(workspace)
    assert finding.state == state
    assert schema in finding.found and known in finding.found
    assert told in finding.remedy


def test_the_student_that_training_starts_from_must_be_whole(workspace: Workspace) -> None:
    assert "none has been promoted" in check_latest_student(workspace).found
    folder = shutil.copytree(LAB / "student", workspace.checkpoints / "c0")
    (workspace.students / "latest").symlink_to("../checkpoints/c0")
    whole = check_latest_student(workspace)
    assert whole.state == "ok"
    assert str(folder) in whole.found
    os.truncate(folder / "model.safetensors", 1000)
    assert "model.safetensors cannot be read" in check_latest_student(workspace).found
    shutil.rmtree(folder)
    gone = check_latest_student(workspace)
    assert gone.state == "fail"
    assert f"{folder}: it is gone" in gone.found
