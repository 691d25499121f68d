"""A writer that is killed at each of its durable steps in turn, and what the next start makes of it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

CHILD = Path(__file__).with_name("crash_child.py")


# per append: half a file, sync, rename, folder's sync, before and after the commit; more for publishing
@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "least"), [("write", 40), ("compact", 30), ("rebuild", 10), ("upgrade", 10), ("gc", 40)]
)
def test_after_a_kill_at_any_durable_step_the_same_rows_come_out(tmp_path: Path, script: str, least: int) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(CHILD), script, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["failures"] == []
    assert report["num_steps"] >= least
    assert report["num_killed"] == report["num_steps"]
