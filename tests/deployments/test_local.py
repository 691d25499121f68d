"""`make deploy-local` as a user starts it, on a free port: a real server, worker and schedule, and kills of each."""

from __future__ import annotations

import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from deployments.api import FlowRun, PrefectApi
from deployments.recovery import GIVEN_UP, find_processes
from heal_core.store.inspect import open_store

ROOT = Path(__file__).parents[2]
SMALL = {
    "problems__limit": 12,
    "rollouts__num_generations": 8,
    "repair__max_paths": 1,
    "repair__num_generations": 2,
    "guided__num_generations": 2,
    "evaluation__num_generations": 1,
    "controls__rejection_sampling": False,
    "controls__equal_tokens": False,
}
EVERY_MINUTE, NEVER = "* * * * *", "0 0 29 2 *"
PATIENCE_SECONDS = 400.0
FINAL = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
COMPARED = {
    "problems": "SELECT * FROM problems ORDER BY problem_id",
    "trajectories": (
        "SELECT * EXCLUDE (seconds, created_at) FROM run_trajectories WHERE run_id = '{run}' "
        "ORDER BY phase, arm, trajectory_id"
    ),
    "tokens": "SELECT * FROM tokens ORDER BY trajectory_id",
    "decisions": "SELECT * FROM decisions WHERE run_id = '{run}' ORDER BY decision_id",
    "examples": "SELECT * FROM stage_examples WHERE run_id = '{run}' ORDER BY stage_example_id",
    "stages": "SELECT * EXCLUDE (seconds, result) FROM checkpoints ORDER BY checkpoint_id",
}
"""What an interrupted run and one that was left alone must agree on."""


@dataclass
class Local:
    """A `make deploy-local` in a folder of its own, and what one asks its server."""

    folder: Path
    port: int
    config: Path
    process: subprocess.Popen[bytes] | None = None
    scheduled: FlowRun = field(default_factory=dict)

    @property
    def undisturbed(self) -> Path:
        """The workspace of the run that nothing happened to."""
        return self.folder / "undisturbed"

    @property
    def log(self) -> str:
        return (self.folder / "local.log").read_text(errors="replace")

    def start(self, cron: str = NEVER) -> None:
        """Start it, and wait until it has said how to stop it."""
        log = self.folder / "local.log"
        log.unlink(missing_ok=True)
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "deployments.local"],
                cwd=ROOT,
                env=self.environment(HEAL_CRON=cron),
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        wait_until(lambda: "  stop  " in self.log or self.process.poll() is not None, lambda: self.log)
        assert self.process.poll() is None, self.log

    def environment(self, **changes: str) -> dict[str, str]:
        """Return the environment of a shell that the settings were exported in."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "HEAL_"))}
        settings = {
            "HEAL_PREFECT_HOME": str(self.folder / "prefect"),
            "HEAL_PORT": str(self.port),
            "HEAL_CONFIG": str(self.config),
            "HEAL_UNTIL": "",
            "PREFECT_WORKER_QUERY_SECONDS": "2",
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
        }
        return {**kept, **settings, **changes}

    def stop(self) -> int:
        """Ask it to stop; return its exit code."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(120)

    def kill_all(self) -> None:
        """Kill it, its server and worker, and all that the flow runs have started, as a reset of the machine does."""
        assert self.process is not None
        for process_id in (
            self.process.pid,
            *self.children(),
            *(pid for pids in find_processes().values() for pid in pids),
        ):
            if self.is_ours(process_id):
                kill(process_id)
        self.process.wait(30)

    def is_ours(self, process_id: int) -> bool:
        """Return whether a process has our folder in its environment."""
        try:
            return psutil.Process(process_id).environ().get("HEAL_PREFECT_HOME") == str(self.folder / "prefect")
        except psutil.Error:
            return False

    def children(self) -> list[int]:
        assert self.process is not None
        return [child.pid for child in psutil.Process(self.process.pid).children()]

    def child(self, name: str) -> int:
        """Return the process of the child whose command has the word `name`: server or worker."""
        assert self.process is not None
        for child in psutil.Process(self.process.pid).children():
            with suppress(psutil.Error):  # it has ended
                if name in child.cmdline():
                    return child.pid
        return 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/api"

    def api(self) -> PrefectApi:
        return PrefectApi(self.url)

    def deployment(self, name: str) -> dict[str, Any]:
        with self.api() as api:
            (found,) = [deployment for deployment in api.read_deployments() if deployment["name"] == name]
        return found

    def run(self, deployment: str, config: Path) -> str:
        """Start a flow run now, as the web page and `prefect deployment run` do; return its id."""
        body = {"parameters": {"config": str(config)}, "state": {"type": "SCHEDULED"}}
        path = f"/deployments/{self.deployment(deployment)['id']}/create_flow_run"
        return str(self.ask("POST", path, json=body).json()["id"])

    def begin(self, deployment: str, heal: Any, name: str) -> tuple[Path, str]:
        """Start a flow run in a workspace of that name; return both once it has sampled something."""
        workspace = self.folder / name
        notify = {"notify__command": ["sh", "-c", f"echo $HEAL_EVENT >> {workspace}.told"]}
        run_id = self.run(deployment, heal.config(workspace, **SMALL, **notify))
        wait_until(lambda: any(workspace.glob("parts/trajectories/*.parquet")), lambda: self.log)
        return workspace, run_id

    def ask(self, method: str, path: str, **content: Any) -> httpx.Response:
        """Return what the server answers, once its database is not busy."""
        while (answer := httpx.request(method, self.url + path, timeout=60, **content)).status_code == 503:
            time.sleep(1)
        return answer.raise_for_status()

    def read(self, run_id: str) -> FlowRun:
        run: FlowRun = self.ask("GET", f"/flow_runs/{run_id}").json()
        return run

    def history(self, run_id: str) -> list[str]:
        with self.api() as api:
            return [state["name"] for state in api.read_history(run_id)]

    def wait_for_end(self, run_id: str) -> FlowRun:
        """Return the flow run once it is in a final state, other than a crash that is made good."""

        def has_ended() -> bool:
            state = self.read(run_id)["state"]
            return state["type"] in FINAL and state["name"] != "Crashed"

        wait_until(has_ended, lambda: f"{self.log}\n{self.history(run_id)}")
        return self.read(run_id)

    def scheduled_runs(self) -> list[FlowRun]:
        """Return the runs of this config that the schedule of the nightly deployment has started, the latest first."""
        nightly = self.deployment("nightly")
        with self.api() as api:
            runs = [run for run in api.read_runs("RUNNING", *FINAL) if run["auto_scheduled"]]
        wanted = str(self.config)
        return [run for run in runs if run["deployment_id"] == nightly["id"] and run["parameters"]["config"] == wanted]

    def num_scheduled(self, kind: str) -> int:
        return sum(run["state"]["type"] == kind for run in self.scheduled_runs())

    def wait_for_schedule(self) -> None:
        """Note the first run of the schedule once it has ended."""
        wait_until(lambda: bool(self.scheduled_runs()), lambda: self.log)
        self.scheduled = self.wait_for_end(self.scheduled_runs()[-1]["id"])
        assert self.scheduled["state"]["type"] == "COMPLETED", self.log

    def pause(self, active: bool = False) -> None:
        """Pause the schedule of the nightly deployment, or take it up again."""
        nightly = self.deployment("nightly")
        path = f"/deployments/{nightly['id']}/schedules/{nightly['schedules'][0]['id']}"
        self.ask("PATCH", path, json={"active": active})

    def is_paused(self) -> bool:
        (schedule,) = self.deployment("nightly")["schedules"]
        return not schedule["active"]

    def process_of(self, run_id: str) -> int:
        """Return the process that Prefect has started for a flow run; 0 if it has ended."""
        process_id = int(self.read(run_id)["infrastructure_pid"] or 0)
        return process_id if process_id in find_processes().get(run_id, []) else 0


def wait_until(holds: Callable[[], bool], tell: Callable[[], str], seconds: float = PATIENCE_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            if holds():
                return
        except httpx.HTTPError:  # the server restarts
            pass
        assert time.monotonic() < deadline, tell()
        time.sleep(0.2)


def kill(process_id: int) -> None:
    assert process_id > 1
    os.kill(process_id, signal.SIGKILL)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def rows(workspace: Path, query: str) -> list[tuple[Any, ...]]:
    with open_store(workspace) as store:
        return list(store.execute(query).fetchall())


def same(left: Any, right: Any) -> bool:
    """Return whether two values are equal, numbers that were computed within 1e-5."""
    if isinstance(left, float) and isinstance(right, float):
        return math.isclose(left, right, rel_tol=1e-5, abs_tol=1e-5)
    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)


def assert_sound(heal: Any, workspace: Path) -> None:
    checked = heal("store", "check", "--workspace", workspace)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def assert_nothing_lost(heal: Any, workspace: Path, undisturbed: Path) -> None:
    """The store is sound, and has what an undisturbed run has."""
    assert_sound(heal, workspace)
    ((run_id,),) = rows(undisturbed, "SELECT DISTINCT run_id FROM run_events")
    for name, query in COMPARED.items():
        expected = rows(undisturbed, query.format(run=run_id))
        assert expected, name
        assert same(rows(workspace, query.format(run=run_id)), expected), name


@pytest.fixture(scope="module")
def started() -> Iterator[list[Local]]:
    """What the tests of this module share: at most one deployment, ended with all that it has started."""
    started: list[Local] = []
    yield started
    for local in started:
        if local.process is not None and local.process.poll() is None:
            local.stop()
        for process_ids in find_processes().values():
            for process_id in filter(local.is_ours, process_ids):
                kill(process_id)


@pytest.fixture
def local(started: list[Local], heal: Any, tmp_path_factory: pytest.TempPathFactory) -> Local:
    """A deployment whose schedule rests, after it has once started a run that came to its end undisturbed."""
    if not started:
        folder = tmp_path_factory.mktemp("local")
        started.append(Local(folder, free_port(), heal.config(folder / "undisturbed", **SMALL)))
        started[0].start(EVERY_MINUTE)
        started[0].wait_for_schedule()
        started[0].pause()
    elif started[0].process is None or started[0].process.poll() is not None:
        started[0].start()
    return started[0]


@pytest.mark.slow
def test_a_schedule_fires_and_its_run_completes(local: Local, heal: Any) -> None:
    run = local.scheduled
    assert (run["state"]["type"], run["auto_scheduled"], run["run_count"]) == ("COMPLETED", True, 1)
    events = [event for (event,) in rows(local.undisturbed, "SELECT event FROM run_events ORDER BY happened_at")]
    assert (events[0], events[-1], events.count("started")) == ("started", "completed", 1)
    assert_sound(heal, local.undisturbed)
    body = {"logs": {"flow_run_id": {"any_": [run["id"]]}}, "limit": 200}
    logged = local.ask("POST", "/logs/filter", json=body).json()
    assert any(line["name"] == "heal" and "rollouts: done" in line["message"] for line in logged)


@pytest.mark.slow
def test_a_run_outlives_its_worker(local: Local, heal: Any) -> None:
    workspace, run_id = local.begin("backfill", heal, "worker")
    worker = local.child("worker")
    kill(worker)
    wait_until(lambda: local.child("worker") not in (0, worker), lambda: local.log)
    run = local.wait_for_end(run_id)
    assert (run["state"]["type"], run["run_count"]) == ("COMPLETED", 1)
    assert "worker ended with exit code -9 and was started again" in local.log
    assert_nothing_lost(heal, workspace, local.undisturbed)


@pytest.mark.full
def test_a_run_goes_on_after_its_worker_and_it_itself_were_killed(local: Local, heal: Any) -> None:
    workspace, run_id = local.begin("nightly", heal, "both")
    kill(local.child("worker"))
    kill(local.process_of(run_id))
    run = local.wait_for_end(run_id)
    assert (run["state"]["type"], run["run_count"]) == ("COMPLETED", 2)
    assert "Crashed" in local.history(run_id) and "AwaitingRetry" in local.history(run_id)
    assert workspace.with_name("both.told").read_text().split() == ["crashed", "completed"]
    assert_nothing_lost(heal, workspace, local.undisturbed)


@pytest.mark.slow
def test_a_second_one_is_refused(local: Local) -> None:
    for changes, said in (
        ({}, f"a server already runs with {local.folder / 'prefect'}: process {local.process.pid}"),
        ({"HEAL_PREFECT_HOME": str(local.folder / "other")}, f"port {local.port} of 127.0.0.1 is taken"),
    ):
        command = [sys.executable, "-m", "deployments.local"]
        done = subprocess.run(
            command, cwd=ROOT, env=local.environment(**changes), capture_output=True, text=True, timeout=60
        )
        assert (done.returncode, said in done.stderr) == (2, True), done.stderr


@pytest.mark.full
def test_a_run_goes_on_when_the_server_was_killed(local: Local, heal: Any) -> None:
    workspace, run_id = local.begin("nightly", heal, "server")
    server = local.child("server")
    kill(server)
    wait_until(lambda: local.child("server") not in (0, server), lambda: local.log)
    run = local.wait_for_end(run_id)
    assert (run["state"]["type"], run["run_count"]) == ("COMPLETED", 1)
    assert_nothing_lost(heal, workspace, local.undisturbed)


@pytest.mark.full
def test_a_night_goes_on_by_itself_after_all_processes_were_killed(local: Local, heal: Any) -> None:
    workspace, run_id = local.begin("nightly", heal, "reset")
    local.kill_all()
    local.start()
    run = local.wait_for_end(run_id)
    assert (run["state"]["type"], run["run_count"]) == ("COMPLETED", 2)
    assert_nothing_lost(heal, workspace, local.undisturbed)


@pytest.mark.full
def test_a_stop_interrupts_a_run_and_the_next_start_goes_on(local: Local, heal: Any) -> None:
    workspace, run_id = local.begin("nightly", heal, "stop")
    children = local.children()
    assert local.stop() == 0
    assert "was interrupted and goes on at the next start" in local.log
    assert run_id not in find_processes() and not any(map(psutil.pid_exists, children))
    assert not workspace.with_name("stop.told").exists(), "a stop is no crash"
    local.start()
    assert local.is_paused(), "the next start took up a paused schedule"
    run = local.wait_for_end(run_id)
    assert (run["state"]["type"], run["run_count"]) == ("COMPLETED", 2)
    assert "Interrupted" in local.history(run_id)
    assert_nothing_lost(heal, workspace, local.undisturbed)


@pytest.mark.full
def test_a_run_that_keeps_crashing_is_given_up(local: Local, heal: Any) -> None:
    """Its processes are not even started: the API is told that it runs, and there is none."""
    local.ask("PATCH", "/work_pools/heal", json={"is_paused": True})
    run_id = local.run("backfill", heal.config(local.folder / "crashing", **SMALL))
    with local.api() as api:
        for num_crashes in range(1, 4):
            api.set_state(run_id, "RUNNING", "Running", "")
            wait_until(lambda num=num_crashes: local.history(run_id).count("Crashed") == num, lambda: local.log)
            wait_until(lambda: local.history(run_id)[-1] in ("AwaitingRetry", GIVEN_UP), lambda: local.log)
    assert local.history(run_id)[-1] == GIVEN_UP
    assert f"prefect flow-run retry {run_id}" in local.log
    local.ask("PATCH", "/work_pools/heal", json={"is_paused": False})
    time.sleep(15)
    assert local.history(run_id)[-1] == GIVEN_UP


@pytest.mark.full
def test_a_cancelled_run_is_retried_from_the_api(local: Local, heal: Any) -> None:
    workspace, run_id = local.begin("nightly", heal, "retry")
    with local.api() as api:
        api.set_state(run_id, "CANCELLING", "Cancelling", "as the web page's button does")
        assert local.wait_for_end(run_id)["state"]["type"] == "CANCELLED"
        wait_until(lambda: local.process_of(run_id) == 0, lambda: local.log)
        api.set_state(run_id, "SCHEDULED", "AwaitingRetry", "as the web page's button does", 0)
    run = local.wait_for_end(run_id)
    assert (run["state"]["type"], run["run_count"]) == ("COMPLETED", 2)
    assert_nothing_lost(heal, workspace, local.undisturbed)


@pytest.mark.full
def test_runs_on_one_workspace_wait_for_each_other(local: Local, heal: Any) -> None:
    workspace = local.folder / "shared"
    config = heal.config(workspace, **SMALL)
    for names in (("nightly", "backfill"), ("nightly", "evaluate-latest")):
        run_ids = [local.run(name, config) for name in names]
        assert [local.wait_for_end(run_id)["state"]["type"] for run_id in run_ids] == ["COMPLETED"] * 2
    assert_nothing_lost(heal, workspace, local.undisturbed)


@pytest.mark.full
def test_a_schedule_that_fires_during_its_own_run_is_cancelled(local: Local, heal: Any) -> None:
    local.stop()
    config, workspace = local.config, local.folder / "overlapping"
    local.config = heal.config(workspace)  # long enough for the next minute to come
    try:
        local.start(EVERY_MINUTE)
        local.pause(active=True)
        wait_until(lambda: local.num_scheduled("CANCELLED") > 0, lambda: local.log)
        assert local.num_scheduled("RUNNING") == 1
        local.pause()
        wait_until(lambda: local.num_scheduled("RUNNING") == 0, lambda: local.log)
    finally:
        local.stop()
        local.config = config
    events = [event for (event,) in rows(workspace, "SELECT event FROM run_events")]
    assert (events.count("started"), events.count("completed")) == (1, 1)
    assert_sound(heal, workspace)


@pytest.mark.full
def test_a_schedule_is_served_without_a_worker(local: Local) -> None:
    served = Local(local.folder / "served", free_port(), local.config)
    served.folder.mkdir()
    command = [sys.executable, "-m", "deployments.serve", str(served.config), "--cron", EVERY_MINUTE]
    with (served.folder / "local.log").open("wb") as output:
        served.process = subprocess.Popen(
            command, cwd=ROOT, env=served.environment(), stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        wait_until(lambda: "serving nightly/nightly" in served.log, lambda: served.log)
        served.wait_for_schedule()
        assert served.stop() == 0
        assert "Traceback" not in served.log
    finally:
        served.process.kill()
