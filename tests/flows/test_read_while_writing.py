"""Readers of a workspace while `heal run` writes to it: none stops it, and each sees a whole, recent state."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.slow

NOTEBOOK = """
import sys, duckdb
store = duckdb.connect(sys.argv[1], read_only=True)
for _ in sys.stdin:
    (row,) = store.execute("SELECT count(*) FROM trajectories JOIN tokens USING (trajectory_id)").fetchall()
    print(row[0], flush=True)
"""
BROKEN = """
SELECT (SELECT count(*) FROM verdicts ANTI JOIN trajectories USING (trajectory_id))
     + (SELECT count(*) FROM trajectories ANTI JOIN problems USING (problem_id))
     + (SELECT count(*) FROM trajectories ANTI JOIN tokens USING (trajectory_id))
     + (SELECT count(*) FROM run_rows WHERE kind = 'rollout' AND row_id NOT IN (SELECT trajectory_id FROM trajectories))
     + (SELECT count(*) FROM run_rows WHERE verdict_id NOT IN (SELECT verdict_id FROM verdicts)) AS broken,
       (SELECT count(*) FROM trajectories) AS num, (SELECT list(part_name) FROM parts) AS merged
"""
INTERVAL_SECONDS = 10
ALLOWANCE_SECONDS = 10  # a busy machine is slow to publish, and this test to look


def test_readers_stop_no_run_and_see_a_whole_and_recent_state(
    heal: Any, stop: Any, wait_for: Any, tmp_path: Path
) -> None:
    workspace, log = tmp_path / "read", tmp_path / "log"
    process = heal.start(log, "run", heal.config(workspace))
    wait_for(process, log, lambda _: (workspace / "heal.duckdb").exists() and any(workspace.glob("parts/traj*/*")))
    view_log = tmp_path / "view"
    view = heal.start(view_log, "view", "-w", workspace, "--port", "0", "--no-browser")
    wait_for(view, view_log, lambda told: "until Ctrl-C" in told)
    address = view_log.read_text().split()[0]
    with (
        subprocess.Popen(
            [sys.executable, "-c", NOTEBOOK, str(workspace / "heal.duckdb")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        ) as notebook,
        httpx.Client(base_url=address.split("?")[0], follow_redirects=True, timeout=60) as browser,
    ):  # fmt: skip
        assert notebook.stdin is not None and notebook.stdout is not None

        def ask_notebook() -> int:
            notebook.stdin.write("\n")
            notebook.stdin.flush()
            return int(notebook.stdout.readline())

        first = ask_notebook()
        seen: list[int] = []
        shown = [(browser.get(address).status_code, 200)]
        while "hints:" not in log.read_text() or len(set(seen)) < 3:
            assert process.poll() is None, log.read_text()
            asked = time.time()
            parts = {path.stem: path.stat().st_mtime for path in workspace.glob("parts/*/*.parquet")}
            answer = heal("sql", BROKEN, "--workspace", workspace, "--format", "json")
            assert answer.returncode == 0, answer.stderr
            (state,) = json.loads(answer.stdout)
            assert state["broken"] == 0
            old = [name for name, written in parts.items() if written < asked - INTERVAL_SECONDS - ALLOWANCE_SECONDS]
            assert set(old) <= set(state["merged"])
            seen.append(state["num"])
            found = browser.get("/api/sql", params={"query": "SELECT count(*) FROM trajectories"})
            shown.append((browser.get("/").status_code, found.status_code))
            assert found.json()["rows"][0][0] >= state["num"]
            time.sleep(1)
        assert seen == sorted(seen)
        # before the run itself is published, the page says that there is none
        assert sorted(shown, reverse=True) == shown and shown[-1] == (200, 200)
        assert ask_notebook() == first < seen[-1]  # it keeps the copy that it opened
        notebook.stdin.close()
        assert notebook.wait(20) == 0
    assert stop(view, signal.SIGINT) == (0, [])
    assert stop(process, signal.SIGTERM, True) == (130, [])
    told = log.read_text()
    assert "the same command goes on from there" in told and "Traceback" not in told and "leaked" not in told
