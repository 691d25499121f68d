"""Someone is told of a run whose process was lost, by whoever finds it."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from flows.crash import tell_of_crash
from heal_core import interruption


def write_config(folder: Path, **notify: Any) -> Path:
    path = folder / "my.yaml"
    settings = {
        "workspace": str(folder / "workspace"),
        "problems": {"path": "problems.jsonl"},
        "teacher": {"model_name_or_path": "teacher"},
        "student": {"model_name_or_path": "student"},
        "notify": {"command": ["sh", "-c", f"cat > {folder}/told"], **notify},
    }
    path.write_text(yaml.safe_dump(settings))
    return path


def test_whom_the_config_names_is_told(tmp_path: Path) -> None:
    overrides = [f"workspace={tmp_path / 'elsewhere'}"]
    parameters = {"config": str(write_config(tmp_path)), "overrides": overrides, "until": "07:00"}
    tell_of_crash("an id", "nightly my 2026-11-24 22:00", parameters, "its process is gone.")
    told = json.loads((tmp_path / "told").read_text())
    assert (told["event"], told["detail"]) == ("crashed", {"flow_run": "an id"})
    assert told["workspace"] == str(tmp_path / "elsewhere")
    assert told["text"].startswith("HEAL nightly my 2026-11-24 22:00 crashed: its process is gone. What is finished")


def test_one_who_does_not_want_to_know_is_not_told(tmp_path: Path) -> None:
    tell_of_crash("an id", "a night", {"config": str(write_config(tmp_path, events=["failed"]))}, "it is gone")
    assert not (tmp_path / "told").exists()


def test_a_config_that_is_gone_names_nobody(tmp_path: Path) -> None:
    tell_of_crash("an id", "a night", {"config": str(tmp_path / "none.yaml"), "overrides": None}, "it is gone")
    tell_of_crash("an id", "a night", {}, "it is gone")


def test_it_is_told_without_prefect() -> None:
    code = "import sys, flows.crash; print('prefect' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


def test_a_run_that_was_asked_to_end_has_not_crashed(monkeypatch: pytest.MonkeyPatch) -> None:
    from flows import nightly

    told: list[str] = []
    monkeypatch.setattr(nightly, "tell_of_crash", lambda _, name, *__: told.append(name))
    scheduled = datetime(2026, 11, 24, 22, tzinfo=UTC)
    run = SimpleNamespace(
        id="an id", name="aromatic-rook", parameters={"config": "a/my.yaml"}, expected_start_time=scheduled
    )
    flow, state = SimpleNamespace(name="nightly"), SimpleNamespace(message="exit code -9")
    nightly._tell_of_crash(flow, run, state)
    assert told == [f"nightly my {scheduled.astimezone():%Y-%m-%d %H:%M}"]
    monkeypatch.setattr(interruption, "has_come", lambda: True)
    nightly._tell_of_crash(flow, run, state)
    assert len(told) == 1
