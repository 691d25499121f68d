"""Someone is told of a run whose process was lost, by whoever finds it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from flows.crash import tell_of_crash


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
    tell_of_crash("an id", "nightly my 2026-11-24 22:00", parameters, "its process is gone")
    told = json.loads((tmp_path / "told").read_text())
    assert (told["event"], told["detail"]) == ("crashed", {"flow_run": "an id"})
    assert told["workspace"] == str(tmp_path / "elsewhere")
    assert told["text"].startswith("HEAL nightly my 2026-11-24 22:00 crashed: its process is gone.")


def test_one_who_does_not_want_to_know_is_not_told(tmp_path: Path) -> None:
    tell_of_crash("an id", "a night", {"config": str(write_config(tmp_path, events=["failed"]))}, "it is gone")
    assert not (tmp_path / "told").exists()


def test_a_config_that_is_gone_names_nobody(tmp_path: Path) -> None:
    tell_of_crash("an id", "a night", {"config": str(tmp_path / "none.yaml"), "overrides": None}, "it is gone")
    tell_of_crash("an id", "a night", {}, "it is gone")


def test_it_is_told_without_prefect() -> None:
    code = "import sys, flows.crash; print('prefect' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
