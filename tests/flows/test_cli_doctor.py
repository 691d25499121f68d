"""`heal doctor` as a person meets it; its checks have tests in tests/heal_core/doctor and test_cli_nights."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from flows.cli import doctor
from heal_core.store.workspace import Workspace

ROOT = Path(__file__).parents[2]


def test_without_a_config_environment_and_server_are_checked(heal: Any) -> None:
    done = heal("doctor")
    assert done.returncode == 0, done.stdout + done.stderr
    for check in ("python", "packages", "gpu", "clock", "server", "disk", "memory"):
        assert re.search(rf"^(ok|warn) +{check}\b", done.stdout, re.MULTILINE), check
    assert "teacher" not in done.stdout
    assert done.stdout.splitlines()[-1].endswith(" 0 failed")


@pytest.mark.slow
def test_with_a_config_a_run_is_checked_and_the_workspace_left_alone(heal: Any, tmp_path: Path) -> None:
    config = heal.config(tmp_path / "workspace")
    done = heal("doctor", config, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    findings = {row["check"]: row for row in json.loads(done.stdout)}
    assert {"config", "file system", "lock", "store", "teacher", "student", "problems", "verifier"} <= set(findings)
    assert "36 in all" in findings["problems"]["found"]
    assert all(bool(row["remedy"]) == (row["state"] != "ok") for row in findings.values())
    assert not (tmp_path / "workspace").exists()


@pytest.mark.slow
def test_an_override_is_part_of_what_is_checked(heal: Any, tmp_path: Path) -> None:
    config = heal.config(tmp_path / "workspace")
    done = heal("doctor", config, "teacher.model_name_or_path=deployments/lab/techer")
    assert done.returncode == 1
    assert re.search(r"^FAIL  teacher +model deployments/lab/techer: no such folder", done.stdout, re.MULTILINE)
    assert re.search(r"^ok    student ", done.stdout, re.MULTILINE)
    assert done.stdout.splitlines()[-1].endswith(" 1 failed")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "cannot be read"),
        ("workspace: [", "is not valid YAML"),
        ("workspace: w\nproblms: {}\n", "did you mean 'problems'?"),
    ],
)
def test_a_mistake_in_the_config_is_one_finding(heal: Any, tmp_path: Path, text: str | None, told: str) -> None:
    path = tmp_path / "my.yaml"
    if text is not None:
        path.write_text(text)
    done = heal("doctor", path)
    assert done.returncode == 1
    assert done.stderr == ""
    assert told in re.sub(r"\s+", " ", done.stdout)
    assert re.search(r"^ok    python", done.stdout, re.MULTILINE)
    assert len(re.findall(r"^FAIL", done.stdout, re.MULTILINE)) == 1


@pytest.mark.slow
def test_a_workspace_in_use_is_a_warning_that_names_the_process(heal: Any, tmp_path: Path) -> None:
    config, workspace = heal.config(tmp_path / "workspace"), Workspace(tmp_path / "workspace")
    workspace.create()
    with workspace.lock():
        done = heal("doctor", config, "--engine")
    assert done.returncode == 0, done.stdout
    assert re.search(r"^warn  lock +held by process \d+: ", done.stdout, re.MULTILINE)
    assert re.search(r"^warn  engine +not tried", done.stdout, re.MULTILINE)


def test_an_engine_without_a_config_is_a_mistake_in_what_was_asked(heal: Any) -> None:
    done = heal("doctor", "--engine")
    assert done.returncode == 2
    assert "--engine needs CONFIG.yaml" in done.stderr


def test_lines_fit_80_columns_and_commands_can_be_copied(heal: Any, tmp_path: Path) -> None:
    folder = tmp_path / ("a-long-name-of-a-folder-" * 3)
    folder.mkdir()
    (folder / "c.yaml").write_text("{}")
    lines = heal("doctor", folder / "c.yaml").stdout.splitlines()
    wide = [line for line in lines if len(line) > 80]
    assert all("/" in line or "`" in line for line in wide), wide  # a path or a command is not broken
    assert not any(line.endswith(" ") for line in lines)


def test_a_command_is_never_broken() -> None:
    command = "`prefect deployment schedule resume nightly/nightly 30b9de70-76dc-4bed-bb0c-a9df8c044625`"
    lines = doctor._wrapped(f"-> if it should run after all of this, then do: {command} and look again", 80)
    assert command in lines
    assert max(len(line) for line in lines if line != command) <= 80 - doctor._INDENT


@pytest.mark.slow
def test_neither_torch_nor_prefect_is_imported(heal: Any, tmp_path: Path) -> None:
    config = heal.config(tmp_path / "workspace")
    code = (
        "import sys; from flows.cli.main import app\n"
        f"app(['doctor', {str(config)!r}, '--json'], standalone_mode=False)\n"
        "print([n for n in ('torch', 'transformers', 'prefect', 'math_verify') if n in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert '"verifier"' in done.stdout


def test_a_package_that_cannot_be_imported_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "heal_core.store.database", None)
    findings = list(doctor.check_config(ROOT / "deployments/lab/demo.yaml", []))
    assert [finding.state for finding in findings if finding.check == "config"] == ["ok", "fail"]
    monkeypatch.setitem(sys.modules, "heal_core.config", None)
    (finding,) = doctor.check_config(ROOT / "deployments/lab/demo.yaml", [])
    assert finding.state == "fail"
    assert "requirements.lock" in finding.remedy
