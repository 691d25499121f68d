"""`heal doctor` as a person meets it; the checks are tested in tests/heal_core, a server's answers in test_schedule."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from flows.cli import doctor
from flows.schedule import Deployment, FlowRun, Schedule, ServerState, Worker, WorkPool
from heal_core.doctor import Finding
from heal_core.store.workspace import Workspace

ROOT = Path(__file__).parents[2]
URL = "http://127.0.0.1:4200/api"
NOW = datetime.now(UTC)
LONG_AGO = NOW - timedelta(days=30)
WORKER = Worker("night-shift", True, 12.0, 30)
NIGHTLY = Deployment(
    deployment_id="d1",
    name="nightly/nightly",
    flow_name="nightly",
    work_pool_name="heal",
    is_paused=False,
    schedules=(Schedule("s1", "0 1 * * *", "Europe/Berlin", True),),
    changed_at=LONG_AGO,
    next_run=FlowRun("r1", "copper-toad", NOW + timedelta(hours=6, minutes=1)),
    late=(),
)
EVALUATE = replace(
    NIGHTLY, deployment_id="d2", name="evaluate-latest/evaluate-latest", flow_name="evaluate-latest", schedules=()
)
HEALTHY = ServerState(
    url=URL,
    version="3.8.8",
    client_version="3.8.8",
    pool=WorkPool("heal", False, (WORKER,)),
    deployments=(NIGHTLY, EVALUATE),
)


def judge(monkeypatch: pytest.MonkeyPatch, state: ServerState) -> dict[str, Finding]:
    """Return the findings, by check, where the server is in this state."""
    monkeypatch.setattr(doctor, "server_state", lambda url: state)
    return {finding.check: finding for finding in doctor.check_server(URL)}


def with_nightly(**changes: Any) -> ServerState:
    return replace(HEALTHY, deployments=(replace(NIGHTLY, **changes), EVALUATE))


def with_pool(workers: Sequence[Worker] = (WORKER,), is_paused: bool = False) -> ServerState:
    return replace(HEALTHY, pool=WorkPool("heal", is_paused, tuple(workers)))


def test_a_healthy_schedule_needs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    findings = judge(monkeypatch, HEALTHY)
    assert {name: finding.state for name, finding in findings.items()} == {
        "server": "ok", "work pool": "ok", "worker": "ok", "nightly": "ok", "evaluate-latest": "ok",
    }  # fmt: skip
    assert "0 1 * * * Europe/Berlin; next " in findings["nightly"].found
    assert "(in 6 h)" in findings["nightly"].found
    assert "no schedule" in findings["evaluate-latest"].found


def test_no_server_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def nothing_listens(url: str) -> ServerState:
        asked.append(url)
        return ServerState(url, "Connection refused")

    monkeypatch.setattr(doctor, "server_state", nothing_listens)
    monkeypatch.setenv("HEAL_PORT", "4300")
    (finding,) = doctor.check_server(None)
    assert finding.state == "warn"
    assert "`make deploy-local`" in finding.remedy
    assert asked == ["http://127.0.0.1:4300/api"]


def test_a_server_here_that_the_shell_does_not_name_is_pointed_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "server_state", lambda url: HEALTHY)
    monkeypatch.delenv("HEAL_PORT", raising=False)
    (finding,) = doctor.check_server(None)
    assert finding.state == "warn"
    assert finding.remedy == f"to see its state: `export PREFECT_API_URL={URL}`"


@pytest.mark.parametrize(
    ("url", "environment", "remedy"),
    [
        ("http://127.0.0.1:4711/api", True, "prefect server start --port 4711`; or `unset PREFECT_API_URL`"),
        ("http://127.0.0.1:4711/api", True, "`HEAL_PORT=4711 make deploy-local`"),
        ("http://localhost:4200/api", True, "`make deploy-local`"),
        ("http://127.0.0.1:4711/api", False, "config unset PREFECT_API_URL"),
        ("http://elsewhere:4711/api", True, "start it where it runs"),
        ("http://127.0.0.1:4711/", True, "export PREFECT_API_URL=http://127.0.0.1:4711/api"),
    ],
)
def test_a_server_that_is_not_there_fails(
    monkeypatch: pytest.MonkeyPatch, url: str, environment: bool, remedy: str
) -> None:
    if environment:
        monkeypatch.setenv("PREFECT_API_URL", url)
    else:
        monkeypatch.delenv("PREFECT_API_URL", raising=False)
    findings = judge(monkeypatch, ServerState(url, "Connection refused"))
    assert list(findings) == ["server"]
    assert findings["server"].state == "fail"
    assert "Connection refused" in findings["server"].found
    assert remedy in findings["server"].remedy


def test_a_server_of_another_version_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    found = judge(monkeypatch, replace(HEALTHY, version="3.9.1"))["server"]
    assert found.state == "warn"
    assert "3.9.1" in found.found and "3.8.8" in found.found
    assert judge(monkeypatch, replace(HEALTHY, version=None))["server"].state == "ok"


@pytest.mark.parametrize(
    ("state", "check", "severity", "remedy"),
    [
        (replace(HEALTHY, pool=None), "work pool", "fail", "work-pool create heal --type process"),
        (with_pool(is_paused=True), "work pool", "fail", "work-pool resume heal"),
        (with_pool([]), "worker", "fail", "worker start --pool heal"),
        (with_pool([replace(WORKER, is_online=False)]), "worker", "fail", "worker start --pool heal"),
        (with_pool([replace(WORKER, heartbeat_age_seconds=61.0)]), "worker", "warn", "worker start --pool heal"),
        (with_pool([replace(WORKER, heartbeat_age_seconds=59.0)]), "worker", "ok", ""),
        (with_pool([replace(WORKER, is_online=False), WORKER]), "worker", "ok", ""),
        (replace(HEALTHY, deployments=(EVALUATE,)), "nightly", "warn", "deploy --all --prefect-file"),
        (with_nightly(is_paused=True), "nightly", "warn", f"curl -X POST {URL}/deployments/d1/resume_deployment"),
        (
            with_nightly(schedules=(replace(NIGHTLY.schedules[0], is_active=False),)),
            "nightly", "warn", "deployment schedule resume nightly/nightly s1",
        ),
        (with_nightly(next_run=None), "nightly", "fail", "sqlalchemy below 2.1"),
        (with_nightly(next_run=None, changed_at=NOW), "nightly", "warn", "look again"),
        (
            with_nightly(late=(FlowRun("r0", "old-owl", NOW - timedelta(hours=3)),)),
            "nightly late", "fail", "flow-run delete r0",
        ),
    ],
)  # fmt: skip
def test_what_keeps_a_night_from_starting_is_told_with_the_command(
    monkeypatch: pytest.MonkeyPatch, state: ServerState, check: str, severity: str, remedy: str
) -> None:
    finding = judge(monkeypatch, state)[check]
    assert finding.state == severity
    assert remedy in finding.remedy


def test_a_pool_without_a_schedule_that_waits_for_it_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    by_hand = with_nightly(schedules=())
    assert judge(monkeypatch, replace(by_hand, pool=None))["work pool"].state == "warn"
    elsewhere = with_nightly(work_pool_name="cluster")
    findings = judge(monkeypatch, replace(elsewhere, pool=WorkPool("heal", False, ())))
    assert findings["worker"].state == "warn"
    assert "in the pool cluster" in findings["nightly"].found


def test_late_runs_are_counted_and_the_first_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    late = tuple(FlowRun(f"r{n}", f"owl-{n}", NOW - timedelta(days=9 - n)) for n in range(5))
    found = judge(monkeypatch, with_nightly(late=late))["nightly late"]
    assert found.found.startswith("owl-0, due ")
    assert "(9 d ago) and 4 more" in found.found


# The command


def test_without_a_config_environment_and_server_are_checked(heal: Any) -> None:
    done = heal("doctor")
    assert done.returncode == 0, done.stdout + done.stderr
    for check in ("python", "packages", "sandbox", "clock", "server", "disk", "memory"):
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
    findings = list(doctor.check_config(ROOT / "deployments/lab/demo.yaml", [], None))
    assert [finding.state for finding in findings if finding.check == "config"] == ["ok", "fail"]
    monkeypatch.setitem(sys.modules, "heal_core.config", None)
    (finding,) = doctor.check_config(ROOT / "deployments/lab/demo.yaml", [], None)
    assert finding.state == "fail"
    assert "requirements.lock" in finding.remedy
