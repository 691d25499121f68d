"""A writer that is killed at each of its durable steps in turn, and what the next start makes of it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

CHILD = Path(__file__).with_name("crash_child.py")


def case(script: str, least: int, every: int = 1, *marks: pytest.MarkDecorator) -> Any:
    """Return a script, how many durable steps it has at least, and at which of them it is killed."""
    group = pytest.mark.xdist_group(f"crash points of {script}")  # they share nothing, and may run at the same time
    return pytest.param(script, least, every, marks=[group, *marks], id=f"{script}, every {every}")


# per append: half a file, sync, rename, folder's sync, before and after the commit; more for publishing
@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "least", "every"),
    [
        case("write", 40, 5),
        case("compact", 30, 7),
        case("rebuild", 10, 4),
        case("upgrade", 10, 3),
        case("gc", 40, 9),
        case("write", 40, 1, pytest.mark.full),
        case("compact", 30, 1, pytest.mark.full),
        case("rebuild", 10, 1, pytest.mark.full),
        case("upgrade", 10, 1, pytest.mark.full),
        case("gc", 40, 1, pytest.mark.full),
    ],
)
def test_after_a_kill_at_any_durable_step_the_same_rows_come_out(
    tmp_path: Path, script: str, least: int, every: int
) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(CHILD), script, str(tmp_path), str(every)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["failures"] == []
    assert report["num_steps"] >= least
    assert report["num_killed"] == len(range(0, report["num_steps"], every))
