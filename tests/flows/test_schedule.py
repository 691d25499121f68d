"""What a Prefect server says, read from a real HTTP server that answers what Prefect 3.8.8 answered.

The answers were recorded with `prefect server start`, `prefect work-pool create heal --type
process`, two deployments with cron schedules, and a worker; fields that nothing reads were cut.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from flows.schedule import Failure, FlowRun, Schedule, server_address, server_state

ROOT = Path(__file__).parents[2]
NIGHTLY, EVALUATE = "7fed25b4-6d32-4264-911f-009c53411985", "a635a15c-662d-4790-8766-1304ada9e166"
POOL = {
    "id": "553f8c34-ef79-46e7-a369-e5c32854f9d7", "created": "2026-11-24T17:55:39.909219Z",
    "updated": "2026-11-24T17:55:39.916000Z", "name": "heal", "description": None, "type": "process",
    "is_paused": False, "concurrency_limit": None, "status": "READY",
    "default_queue_id": "3422f7b2-c1a0-421c-8fc6-e8c386119bfa", "active_slots": None,
}  # fmt: skip
WORKER = {
    "id": "0b93d82d-1975-499f-be77-8a1748937326", "created": "2026-11-24T17:56:59.859905Z",
    "updated": "2026-11-24T17:56:59.859912Z", "name": "night-shift",
    "work_pool_id": "553f8c34-ef79-46e7-a369-e5c32854f9d7", "last_heartbeat_time": "2026-11-24T17:57:29.884869Z",
    "heartbeat_interval_seconds": 30, "status": "ONLINE",
}  # fmt: skip
FLOWS = [
    {"id": "2aca2898-018e-4182-a3b5-adb6343c6f11", "created": "2026-11-24T17:55:41.662759Z",
     "updated": "2026-11-24T17:55:41.662768Z", "name": "evaluate-latest", "tags": [], "labels": {}},
    {"id": "24847c5b-f8f6-4a60-95e0-b15c4b22f63e", "created": "2026-11-24T17:55:41.375811Z",
     "updated": "2026-11-24T17:55:41.375818Z", "name": "nightly", "tags": [], "labels": {}},
]  # fmt: skip
DEPLOYMENTS = [
    {
        "id": EVALUATE, "created": "2026-11-24T17:55:41.682972Z", "updated": "2026-11-24T18:00:01.063000Z",
        "name": "evaluate-latest", "flow_id": "2aca2898-018e-4182-a3b5-adb6343c6f11", "paused": True,
        "schedules": [{
            "id": "02c049e0-88b3-4c0d-97b0-ab23abe4fe77", "created": "2026-11-24T17:55:41.696853Z",
            "updated": "2026-11-24T17:55:41.696861Z", "deployment_id": EVALUATE,
            "schedule": {"cron": "30 6 * * *", "timezone": None, "day_or": True}, "active": True,
            "max_scheduled_runs": None, "parameters": {}, "slug": None,
        }],
        "work_queue_name": "default", "last_polled": None, "entrypoint": "f.py:evaluate_latest",
        "work_pool_name": "heal", "status": "NOT_READY",
    },
    {
        "id": NIGHTLY, "created": "2026-11-24T17:55:41.405415Z", "updated": "2026-11-24T17:55:41.403070Z",
        "name": "nightly", "flow_id": "24847c5b-f8f6-4a60-95e0-b15c4b22f63e", "paused": False,
        "schedules": [{
            "id": "30b9de70-76dc-4bed-bb0c-a9df8c044625", "created": "2026-11-24T17:55:41.428203Z",
            "updated": "2026-11-24T17:55:41.428215Z", "deployment_id": NIGHTLY,
            "schedule": {"cron": "0 1 * * *", "timezone": "Europe/Berlin", "day_or": True}, "active": True,
            "max_scheduled_runs": None, "parameters": {}, "slug": None,
        }],
        "work_queue_name": "default", "last_polled": None, "entrypoint": "f.py:nightly",
        "work_pool_name": "heal", "status": "NOT_READY",
    },
]  # fmt: skip
RUNS = [
    {
        "id": "90f18a82-ebb2-4268-a082-d3eb0f1b0960", "created": "2026-11-24T17:56:22.152598Z",
        "name": "efficient-guillemot", "deployment_id": NIGHTLY, "state_type": "SCHEDULED", "state_name": "Late",
        "expected_start_time": "2026-11-24T17:00:00Z", "next_scheduled_start_time": "2026-11-24T17:00:00Z",
        "start_time": None, "auto_scheduled": False, "work_pool_name": "heal",
    },
    {
        "id": "01a20eb3-1092-7b3d-a5f8-89d7e8588bac", "created": "2026-11-24T17:55:45.960709Z",
        "name": "copper-toad", "deployment_id": NIGHTLY, "state_type": "SCHEDULED", "state_name": "Scheduled",
        "expected_start_time": "2126-11-25T00:00:00Z", "next_scheduled_start_time": "2126-11-25T00:00:00Z",
        "start_time": None, "auto_scheduled": True, "work_pool_name": "heal",
    },
    {
        "id": "01a20eb3-1093-7222-8c62-0a5b4ad5f8f2", "created": "2026-11-24T17:55:45.960709Z",
        "name": "silver-newt", "deployment_id": NIGHTLY, "state_type": "SCHEDULED", "state_name": "Scheduled",
        "expected_start_time": "2126-11-26T00:00:00Z", "next_scheduled_start_time": "2126-11-26T00:00:00Z",
        "start_time": None, "auto_scheduled": True, "work_pool_name": "heal",
    },
]  # fmt: skip


@dataclass
class Server:
    """A server that answers as Prefect does: `answers` by path, runs by the query; `seen` is what it was asked."""

    url: str = ""
    answers: dict[str, Any] = field(default_factory=dict)
    runs: list[dict[str, Any]] = field(default_factory=lambda: list(RUNS))
    status: int = 200
    seen: list[tuple[str, Mapping[str, Any], str | None]] = field(default_factory=list)

    def answer(self, path: str, query: Mapping[str, Any]) -> tuple[int, bytes]:
        if self.status != 200:
            return self.status, b'{"detail":"Unauthorized"}'
        if path == "/api/flow_runs/filter":
            return 200, json.dumps(self._runs(query)).encode()
        if path not in self.answers:
            return 404, b'{"detail":"Not Found"}'
        answer = self.answers[path]
        return 200, answer if isinstance(answer, bytes) else json.dumps(answer).encode()

    def _runs(self, query: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return the runs that a query describes, as far as Prefect's filters are used."""
        assert query["sort"] == ("END_TIME_DESC" if query["limit"] == 1 else "EXPECTED_START_TIME_ASC")
        which = query["flow_runs"]
        found = [run for run in self.runs if run["deployment_id"] in query["deployments"]["id"]["any_"]]
        for name in ("name", "type"):
            if name in which["state"]:
                found = [run for run in found if run[f"state_{name}"] in which["state"][name]["any_"]]
        after = which.get("expected_start_time", {}).get("after_", "0")
        return [run for run in found if run["expected_start_time"] >= after][: query["limit"]]


@pytest.fixture
def server() -> Iterator[Server]:
    asked = Server(
        answers={
            "/api/admin/version": "3.8.8",
            "/api/work_pools/filter": [POOL],
            "/api/work_pools/heal/workers/filter": [WORKER],
            "/api/flows/filter": FLOWS,
            "/api/deployments/filter": DEPLOYMENTS,
        }
    )

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._reply({})

        def do_POST(self) -> None:
            self._reply(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def _reply(self, query: Mapping[str, Any]) -> None:
            asked.seen.append((self.path, query, self.headers["Authorization"]))
            status, body = asked.answer(self.path, query)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
        asked.url = f"http://127.0.0.1:{listener.server_address[1]}/api"
        thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield asked
        listener.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the only place where a profile may be; the environment names no server."""
    for name in ("URL", "KEY", "AUTH_STRING"):
        monkeypatch.delenv(f"PREFECT_API_{name}", raising=False)
    monkeypatch.delenv("PREFECT_PROFILE", raising=False)
    monkeypatch.delenv("PREFECT_PROFILES_PATH", raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    return tmp_path


def profiles(folder: Path) -> None:
    (folder / "profiles.toml").write_text(
        'active = "office"\n[profiles.office]\nPREFECT_API_URL = "http://office:4200/api"\n'
        'PREFECT_API_KEY = "pnu_office"\n[profiles.home]\nPREFECT_API_URL = "http://home:4200/api"\n[profiles.bare]\n'
    )


def test_the_address_is_that_of_the_environment_else_of_the_active_profile(
    nowhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert server_address() is None
    profiles(nowhere)
    assert server_address() == "http://office:4200/api"
    monkeypatch.setenv("PREFECT_PROFILE", "home")
    assert server_address() == "http://home:4200/api"
    monkeypatch.setenv("PREFECT_PROFILE", "bare")
    assert server_address() is None
    monkeypatch.setenv("PREFECT_API_URL", "http://here:4200/api")
    assert server_address() == "http://here:4200/api"


def test_a_profile_file_that_cannot_be_read_names_no_server(nowhere: Path) -> None:
    (nowhere / "profiles.toml").write_text("active = ")
    assert server_address() is None


def test_a_server_is_read_whole(server: Server) -> None:
    server.answers["/api/work_pools/heal/workers/filter"] = [
        {**WORKER, "last_heartbeat_time": (datetime.now(UTC) - timedelta(seconds=7)).isoformat()}
    ]
    state = server_state(server.url)
    assert state.error is None
    assert (state.url, state.version) == (server.url, "3.8.8")
    assert state.pool is not None
    (worker,) = state.pool.workers
    assert (worker.name, worker.is_online) == ("night-shift", True)
    assert worker.heartbeat_age_seconds == pytest.approx(7, abs=5)
    nightly, evaluate = state.deployments
    assert nightly.name == "nightly/nightly"
    assert nightly.schedules == (Schedule("30b9de70-76dc-4bed-bb0c-a9df8c044625", "0 1 * * *", "Europe/Berlin", True),)
    assert nightly.active_schedules == nightly.schedules
    midnight = datetime(2126, 11, 25, tzinfo=UTC)
    assert nightly.next_run == FlowRun("01a20eb3-1092-7b3d-a5f8-89d7e8588bac", "copper-toad", midnight)
    assert [run.name for run in nightly.late] == ["efficient-guillemot"]
    assert nightly.changed_at == datetime(2026, 11, 24, 17, 55, 41, 428215, tzinfo=UTC)  # the schedule's is the later
    assert (evaluate.flow_name, evaluate.is_paused, evaluate.active_schedules) == ("evaluate-latest", True, ())
    assert (evaluate.schedules[0].timezone, evaluate.next_run, evaluate.late) == (None, None, ())


@pytest.mark.parametrize(("kind", "is_told"), [("FAILED", True), ("CRASHED", True), ("COMPLETED", False)])
def test_the_run_that_ended_last_is_told_if_it_failed(server: Server, kind: str, is_told: bool) -> None:
    state = {"type": kind, "name": kind.title(), "message": "ConfigError: x", "timestamp": "2026-11-24T23:10:00Z"}
    ended = {**RUNS[0], "name": "nightly my 2026-11-24 23:00", "state_type": kind, "state": state}
    server.runs = [ended]
    failed = server_state(server.url).deployments[0].failed
    expected = Failure(ended["name"], kind.title(), "ConfigError: x", datetime(2026, 11, 24, 23, 10, tzinfo=UTC))
    assert failed == (expected if is_told else None)


def test_only_heals_own_flows_are_asked_for(server: Server) -> None:
    server_state(server.url)
    queries = [query for path, query, _ in server.seen if path == "/api/deployments/filter"]
    assert queries == [{"flows": {"name": {"any_": ["nightly", "evaluate-latest"]}}}]


def test_a_server_without_pool_and_deployments_says_so(server: Server) -> None:
    server.answers |= {"/api/work_pools/filter": [], "/api/flows/filter": [], "/api/deployments/filter": []}
    state = server_state(server.url)
    assert (state.error, state.pool, state.deployments) == (None, None, ())


def test_other_kinds_of_schedule_are_put_into_words(server: Server) -> None:
    rules = [{"interval": 3600.0, "timezone": "UTC"}, {"rrule": "FREQ=DAILY", "timezone": "UTC"}]
    schedules = [{**DEPLOYMENTS[1]["schedules"][0], "schedule": rule} for rule in rules]  # type: ignore[index]
    server.answers["/api/deployments/filter"] = [{**DEPLOYMENTS[1], "schedules": schedules}]
    (nightly,) = server_state(server.url).deployments
    assert [schedule.when for schedule in nightly.schedules] == ["every 3600 s", "FREQ=DAILY"]


def test_prefect_cloud_tells_no_version(server: Server) -> None:
    del server.answers["/api/admin/version"]
    state = server_state(server.url)
    assert (state.error, state.version) == (None, None)


def test_a_password_goes_to_the_server_and_nowhere_else(
    server: Server, nowhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profiles(nowhere)
    server_state(server.url)
    assert {header for _, _, header in server.seen} == {"Bearer pnu_office"}
    monkeypatch.setenv("PREFECT_PROFILE", "home")
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "admin:secret")
    server.seen.clear()
    server_state(server.url)
    assert {header for _, _, header in server.seen} == {f"Basic {base64.b64encode(b'admin:secret').decode()}"}
    named = server_state("http://admin:secret@127.0.0.1:1/api")
    assert named.error is not None
    assert "secret" not in repr(named)


@pytest.mark.parametrize("status", [401, 403])
def test_a_server_that_refuses_says_what_it_expects(server: Server, status: int) -> None:
    server.status = status
    error = server_state(server.url).error
    assert error is not None
    assert "PREFECT_API_AUTH_STRING" in error


def test_a_server_that_fails_is_a_value(server: Server) -> None:
    server.status = 503
    assert server_state(server.url).error == "it answers /api/work_pools/filter with 503 Service Unavailable"


@pytest.mark.parametrize(
    ("path", "answer", "error"),
    [
        ("/api/admin/version", b"<html>another program</html>", "no Prefect API"),
        ("/api/flows/filter", {"an": "object"}, "no Prefect API"),
        ("/api/work_pools/heal/workers/filter", [{"name": "w"}], "no Prefect API"),
    ],
)
def test_what_is_no_prefect_server_is_a_value(server: Server, path: str, answer: Any, error: str) -> None:
    server.answers[path] = answer
    found = server_state(server.url).error
    assert found is not None
    assert error in found


@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("http://127.0.0.1:1/api", "Connection refused"),
        ("nonsense", "protocol"),
        ("http://[::1/api", ""),
        ("ftp://127.0.0.1/api", "protocol"),
    ],
)
def test_an_address_without_a_server_is_a_value(url: str, error: str) -> None:
    found = server_state(url).error
    assert found is not None
    assert error in found


def test_a_server_that_is_silent_is_not_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    monkeypatch.setattr("flows.schedule._ANSWER_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        state = server_state(f"http://127.0.0.1:{listener.getsockname()[1]}/api")
    assert state.error == "it does not answer in time"


def test_prefect_is_not_imported(server: Server) -> None:
    code = (
        "import sys; from flows.schedule import server_address, server_state; "
        f"server_address(); assert 'httpx' not in sys.modules; assert server_state({server.url!r}).error is None; "
        "assert 'prefect' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
