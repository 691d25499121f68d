"""What `heal doctor` makes of a Prefect server's answers, which are tested in test_schedule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from importlib import metadata
from typing import Any

import pytest

from flows.cli import nights
from flows.schedule import Deployment, FlowRun, Schedule, ServerState, Worker, WorkPool
from heal_core.doctor.finding import Finding

URL = "http://127.0.0.1:4200/api"
NOW = datetime.now(UTC)
LONG_AGO = NOW - timedelta(days=30)
WORKER = Worker("night-shift", True, 12.0)
NIGHTLY = Deployment(
    deployment_id="d1",
    name="nightly/nightly",
    flow_name="nightly",
    work_pool_name="heal",
    is_paused=False,
    schedules=(Schedule("s1", "0 1 * * *", "Europe/Berlin", True),),
    changed_at=LONG_AGO,
    next_run=FlowRun("r1", "copper-toad", NOW + timedelta(hours=6, seconds=10)),
    late=(),
)
EVALUATE = replace(
    NIGHTLY, deployment_id="d2", name="evaluate-latest/evaluate-latest", flow_name="evaluate-latest", schedules=()
)
HEALTHY = ServerState(
    url=URL,
    version=metadata.version("prefect"),
    pool=WorkPool("heal", False, (WORKER,)),
    deployments=(NIGHTLY, EVALUATE),
)


class AtNow(datetime):
    """A clock that stands still."""

    @classmethod
    def now(cls, tz: Any = None) -> Any:
        return NOW.astimezone(tz)


def judge(monkeypatch: pytest.MonkeyPatch, state: ServerState) -> dict[str, Finding]:
    """Return the findings, by check, where the server is in this state."""
    monkeypatch.setattr(nights, "server_state", lambda url: state)
    monkeypatch.setattr(nights, "datetime", AtNow)  # the tests may begin minutes after they were collected
    return {finding.check: finding for finding in nights.check_server(URL)}


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

    monkeypatch.setattr(nights, "server_state", nothing_listens)
    monkeypatch.setenv("HEAL_PORT", "4300")
    (finding,) = nights.check_server(None)
    assert finding.state == "warn"
    assert "`make deploy-local`" in finding.remedy
    assert asked == ["http://127.0.0.1:4300/api"]


def test_a_server_here_that_the_shell_does_not_name_is_pointed_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nights, "server_state", lambda url: HEALTHY)
    monkeypatch.delenv("HEAL_PORT", raising=False)
    (finding,) = nights.check_server(None)
    assert finding.state == "warn"
    assert finding.remedy == f"to see its state: `export PREFECT_API_URL={URL}`"


@pytest.mark.parametrize(
    ("url", "remedy"),
    [
        ("http://127.0.0.1:4711/api", "prefect server start --port 4711`; or do without: `unset PREFECT_API_URL`"),
        ("http://127.0.0.1:4711/api", "`HEAL_PORT=4711 make deploy-local`"),
        ("http://localhost:4200/api", "`make deploy-local`"),
        ("http://elsewhere:4711/api", "start it where it runs"),
        ("http://127.0.0.1:4711/", "export PREFECT_API_URL=http://127.0.0.1:4711/api"),
    ],
)
def test_a_server_that_is_not_there_fails(monkeypatch: pytest.MonkeyPatch, url: str, remedy: str) -> None:
    findings = judge(monkeypatch, ServerState(url, "Connection refused"))
    assert list(findings) == ["server"]
    assert findings["server"].state == "fail"
    assert "Connection refused" in findings["server"].found
    assert remedy in findings["server"].remedy


def test_a_server_of_another_version_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    found = judge(monkeypatch, replace(HEALTHY, version="3.9.1"))["server"]
    assert found.state == "warn"
    assert "3.9.1" in found.found and metadata.version("prefect") in found.found
    assert judge(monkeypatch, replace(HEALTHY, version=None))["server"].state == "ok"


@pytest.mark.parametrize(
    ("state", "check", "severity", "remedy"),
    [
        (replace(HEALTHY, pool=None), "work pool", "fail", "work-pool create heal --type process"),
        (with_pool(is_paused=True), "work pool", "fail", "work-pool resume heal"),
        (with_pool([]), "worker", "fail", "worker start --pool heal"),
        (with_pool([replace(WORKER, is_online=False)]), "worker", "fail", "worker start --pool heal"),
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
