"""Real faults of a night: an engine that hangs or dies, a problem that no engine takes, a time that is over."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest

from heal_core.store.workspace import Workspace
from tests.flows.test_kill import WITHOUT_CONTROLS, after_chunk, assert_same_tables

pytestmark = pytest.mark.slow

LAB = Path(__file__).parents[2] / "deployments" / "lab"
POISON = "{% if 'Start with 82.' in messages[0]['content'] %}{{ raise_exception('not this one') }}{% endif %}"
"""Put before a chat template: it then refuses the lab's second problem, and no other of the first 16."""
SMALL = {"problems__limit": 16, "evaluation__num_generations": 1, "repair__max_paths": 1, **WITHOUT_CONTROLS}


class Receiver:
    """A webhook on this machine that keeps what it is told."""

    def __init__(self) -> None:
        told = self.told = []  # type: list[dict[str, Any]]

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/hook/a-secret-token"


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    receiver = Receiver()
    threading.Thread(target=receiver.server.serve_forever, daemon=True).start()
    yield receiver
    receiver.server.shutdown()


def engine_of(process: Any) -> psutil.Process:
    (engine,) = [
        child
        for child in psutil.Process(process.pid).children(recursive=True)
        if "heal_core.engines.worker" in " ".join(child.cmdline())
    ]
    return engine


@pytest.mark.full
def test_an_engine_that_hangs_and_one_that_dies_cost_nothing(
    finished_run: Any, open_run: Any, wait_for: Callable[..., None], tmp_path: Path
) -> None:
    workspace, log = tmp_path / "workspace", tmp_path / "log"
    config = finished_run.heal.config(
        workspace, **WITHOUT_CONTROLS, teacher__stall_seconds=5, failures__retry_delay_seconds=0.5
    )
    process = finished_run.heal.start(log, "run", config)
    wait_for(process, log, after_chunk(workspace, "loading"))
    engine_of(process).send_signal(signal.SIGSTOP)
    wait_for(process, log, lambda text: "profiles: done" in text)
    wait_for(process, log, after_chunk(workspace, "profiles: done"))
    engine_of(process).kill()
    assert process.wait(300) == 0, log.read_text()
    assert_same_tables(open_run(finished_run.heal, config, workspace), finished_run)


@pytest.mark.full
def test_a_problem_that_no_engine_takes_is_out_the_run_goes_on_and_someone_is_told(
    heal: Any, open_run: Any, receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = tmp_path / "workspace"
    teacher = Path(shutil.copytree(LAB / "teacher", tmp_path / "teacher"))
    template = teacher / "chat_template.jinja"
    template.write_text(POISON + template.read_text())
    config = heal.config(
        workspace, **SMALL, teacher__model_name_or_path=str(teacher), notify__webhook_env="A_HOOK",
        notify__events=["completed", "failed", "nothing_new"],
    )  # fmt: skip
    monkeypatch.setitem(heal_environment(), "A_HOOK", receiver.url)
    done = heal("run", config)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "in quarantine, since their work failed: 1 of 16 problems" in done.stdout
    run = open_run(heal, config, workspace)
    ((source, line, reason, work),) = [
        tuple(row.values())
        for row in run.rows("SELECT source, line, reason, work FROM quarantine WHERE problem_id IS NOT NULL")
    ]
    assert (source, line, work) == ("lab", None, "rollouts")
    assert "RequestError" in reason and "not this one" in reason
    assert "completed, 1 quarantined" in heal("status", "-w", workspace).stdout
    assert heal("store", "check", "-w", workspace).returncode == 0

    again = heal("retry", run.summary["run_id"][:6], "-w", workspace, "--json")
    assert again.returncode == 0, again.stderr
    outcome = json.loads(again.stdout)
    assert outcome["run_id"] != run.summary["run_id"]
    assert outcome["quarantined"]["problems"] == 1, "it is as poisonous as before"
    assert not any(outcome["generated"].values())
    assert [told["event"] for told in receiver.told] == ["completed", "completed"]
    assert "1 quarantined" in receiver.told[0]["text"]
    files = [path for path in workspace.rglob("*") if path.is_file()]
    assert not [path for path in files if b"a-secret-token" in path.read_bytes()]


def heal_environment() -> dict[str, str]:
    """Return the environment in which the fixture `heal` starts commands."""
    from tests.conftest import ENVIRONMENT

    return ENVIRONMENT


@pytest.mark.full
def test_a_run_ends_at_its_time_and_the_next_start_goes_on_to_the_same_tables(
    finished_run: Any, open_run: Any, tmp_path: Path
) -> None:
    workspace = tmp_path / "workspace"
    config = finished_run.heal.config(workspace, **WITHOUT_CONTROLS)
    states = []
    for seconds in (22, 55):  # in sampling, in training: where exactly depends on the machine, and must not matter
        until = (datetime.now().astimezone() + timedelta(seconds=seconds)).isoformat()
        done = finished_run.heal("run", config, "--until", until, "--json")
        assert done.returncode == 0, done.stderr
        states.append(json.loads(done.stdout)["state"])
    assert states[0] == "stopped"
    assert "stopped" in finished_run.heal("status", "-w", workspace).stdout or states[1] == "completed"
    done = finished_run.heal("run", config)
    assert done.returncode == 0, done.stderr
    assert_same_tables(open_run(finished_run.heal, config, workspace), finished_run)


@pytest.mark.parametrize("to_the_end", [False, pytest.param(True, marks=pytest.mark.full)])
def test_a_run_ends_at_its_token_budget_and_goes_on_from_there(heal: Any, tmp_path: Path, to_the_end: bool) -> None:
    workspace = tmp_path / "workspace"
    config = heal.config(workspace, **{**SMALL, "problems__limit": 8})
    done = heal("run", config, "--phase", "rollouts", "--max-tokens-budget", "2000", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    outcome = json.loads(done.stdout)
    assert outcome["state"] == "stopped"
    assert "of 2,000; the next start goes on from there" in outcome["title"]
    count = "SELECT count(*) AS texts, sum(num_tokens)::INT AS tokens FROM trajectories"
    (kept,) = json.loads(heal("sql", count, "-f", "json", "-w", workspace).stdout)
    # a text has at most 224 tokens
    assert 2000 <= kept["tokens"] < 2224
    if to_the_end:  # in the short tier the runs of tests/flows/recompute/test_nights.py go on
        done = heal("run", config, "--phase", "rollouts")
        assert done.returncode == 0, done.stdout + done.stderr
        (whole,) = json.loads(heal("sql", count, "-f", "json", "-w", workspace).stdout)
        assert (kept["texts"] < whole["texts"], whole["texts"]) == (True, 8 * 8)


def test_a_second_run_waits_where_the_config_says_so(
    heal: Any, wait_for: Callable[..., None], stop: Any, tmp_path: Path
) -> None:
    workspace, log = tmp_path / "workspace", tmp_path / "log"
    config = heal.config(workspace, **SMALL, on_busy="wait")
    held = Workspace(workspace)
    held.create()
    with held.lock():
        process = heal.start(log, "run", config)
        wait_for(process, log, lambda text: "waiting: workspace" in text)
        assert str(os.getpid()) in " ".join(log.read_text().split())
    wait_for(process, log, lambda text: "problems (" in text)
    assert stop(process, signal.SIGTERM) == (130, [])
    told = log.read_text()
    assert "the same command goes on from there" in told and "Traceback" not in told and "leaked" not in told
