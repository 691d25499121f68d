"""Runs whose teacher is behind a server that wants a key and misbehaves: calm, whole, and without the key anywhere."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from heal_core.store.inspect import open_store

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("served")]

KEY = "sk-planted-5f1d9c"
LAB_TEACHER = Path(__file__).parents[2] / "deployments/lab/teacher"


def served(heal: Any, workspace: Path, url: str, **settings: Any) -> Path:
    teacher = {
        "model_name_or_path": str(LAB_TEACHER),
        "engine": "openai",
        "server": {"base_url": url, "max_concurrency": 4, "silence_seconds": 5},
        "price": {"prompt": 1.0, "completion": 2.0},
    }
    config: Path = heal.config(
        workspace,
        problems__limit=10,
        chunk_problems=4,
        rollouts__sampling={"max_tokens": 24},
        teacher=teacher,
        **settings,
    )
    return config


def test_a_server_that_fails_for_a_while_costs_time_and_no_rows(
    heal: Any, serve_model: Callable[..., Any], tmp_path: Path, wait_for: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace, log = tmp_path / "workspace", tmp_path / "run.log"
    keyed = type(heal)({"HEAL_API_KEY": KEY})
    with serve_model(LAB_TEACHER, "--key", KEY) as server:
        config = served(keyed, workspace, server.url)
        run = keyed.start(log, "run", config, "--phase", "rollouts")
        wait_for(run, log, lambda text: "loading" in text)
        server.fail(always="500")
        wait_for(run, log, lambda text: "tried again" in text)
        status = json.loads(heal("status", "--workspace", workspace, "--json").stdout)
        assert "HTTP 500: Internal error" in status["running"]["note"]
        assert "HTTP 500" in heal("status", "--workspace", workspace).stdout
        server.fail()
        assert run.wait(120) == 0, log.read_text()
    assert log.read_text().count("HTTP 500") == 1, "what is no news is not told again"
    with open_store(workspace) as store:
        rows = store.execute(
            "SELECT count(*), count(DISTINCT slot_id), min(entropy_source), max(entropy_source) FROM trajectories"
        ).fetchone()
        (num_problems,) = store.execute("SELECT count(*) FROM run_problems").fetchone()
        (num_made_up,) = store.execute(
            "SELECT count(*) FROM tokens WHERE len(entropy_radii) <> len(token_ids) OR list_min(entropy_radii) < 0"
        ).fetchone()
    assert rows == (8 * num_problems, 8 * num_problems, "top_20", "top_20")
    assert num_made_up == 0
    found = [path for path in tmp_path.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]
    assert found == []


def test_a_wrong_key_ends_the_run_with_what_to_do_and_is_nowhere(
    heal: Any, serve_model: Callable[..., Any], tmp_path: Path
) -> None:
    workspace = tmp_path / "workspace"
    keyed = type(heal)({"HEAL_API_KEY": f"{KEY}-wrong"})
    with serve_model(LAB_TEACHER, "--key", KEY) as server:
        done = keyed("run", served(keyed, workspace, server.url), "--phase", "rollouts")
    assert done.returncode == 2
    told = " ".join((done.stdout + done.stderr).split())
    assert (
        "HTTP 401: Incorrect API key provided: Bearer [redacted] (the key is read from the variable HEAL_API_KEY)"
        in told
    )
    assert KEY not in told
    found = [path for path in tmp_path.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]
    assert found == []


def test_a_plan_that_the_engine_cannot_follow_is_refused_before_anything_is_asked(heal: Any, tmp_path: Path) -> None:
    config = served(heal, tmp_path / "workspace", "http://127.0.0.1:9/v1")
    done = heal("run", config, "teacher.server.api=chat")
    assert done.returncode == 2
    assert "cannot continue a text from its tokens" in " ".join(done.stderr.split())


def test_a_run_that_is_asked_to_end_does_not_wait_for_its_server(
    heal: Any, serve_model: Callable[..., Any], tmp_path: Path, wait_for: Any, stop: Any
) -> None:
    workspace, log = tmp_path / "workspace", tmp_path / "run.log"
    with serve_model(LAB_TEACHER) as server:
        server.fail(always="hang")
        run = heal.start(log, "run", served(heal, workspace, server.url), "--phase", "rollouts")
        wait_for(run, log, lambda text: bool(server.seen["requests"]))
        exit_code, left = stop(run, signal.SIGINT, seconds=20)
    assert exit_code == 130, log.read_text()
    assert left == []
