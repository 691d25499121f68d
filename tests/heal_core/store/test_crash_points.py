"""A writer that is killed at each of its durable steps in turn, and what the next start makes of it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

CHILD = Path(__file__).with_name("crash_child.py")


@pytest.mark.slow
def test_after_a_kill_at_any_durable_step_the_same_rows_come_out(tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(CHILD), str(tmp_path)], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["failures"] == []
    # per append: half a file, sync, rename, folder's sync, before and after the commit; more for publishing
    assert report["num_steps"] >= 40
    assert report["num_killed"] == report["num_steps"]
