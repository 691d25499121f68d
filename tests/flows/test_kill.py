"""Stopping `heal run` at any moment, by any means, and going on: nothing is lost, doubled or left running."""

from __future__ import annotations

import math
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

WITHOUT_CONTROLS = {"controls__rejection_sampling": False, "controls__equal_tokens": False}
COMPARED = {
    "problems": "SELECT * FROM problems ORDER BY problem_id",
    "trajectories": (
        "SELECT * EXCLUDE (run_id, seconds, created_at) FROM run_trajectories "
        "WHERE phase <> 'equal_tokens' AND arm IN ('', 'base', 'heal') ORDER BY phase, arm, trajectory_id"
    ),
    "tokens": (
        "SELECT * FROM tokens SEMI JOIN run_rows ON row_id = trajectory_id AND phase <> 'equal_tokens' "
        "AND arm IN ('', 'base', 'heal') ORDER BY trajectory_id"
    ),
    "profiles": "SELECT * FROM profiles ORDER BY profile_id",
    "scores": "SELECT * EXCLUDE (seconds) FROM scores ORDER BY score_id",
    "decisions": (
        "SELECT nullif(subject_id, run_id) AS subject_id, * EXCLUDE (decision_id, run_id, subject_id) FROM decisions "
        "ORDER BY ALL"
    ),
    "examples": (
        "SELECT * EXCLUDE (stage_example_id, run_id) FROM stage_examples WHERE arm = 'heal' ORDER BY stage, position"
    ),
    "checkpoints": (
        "SELECT c.* EXCLUDE (seconds, result) FROM checkpoints c JOIN run_rows ON row_id = checkpoint_id "
        "WHERE arm = 'heal' ORDER BY c.stage"
    ),
    "evaluations": (
        "SELECT * EXCLUDE (evaluation_id, run_id) FROM evaluations "
        "WHERE arm IN ('teacher', 'base', 'heal') ORDER BY arm, band"
    ),
    "funnel": "SELECT * EXCLUDE (run_id) FROM funnel ORDER BY ALL",
}
"""What two runs of one config must agree on; the finished run also has B1 and B2, which share the rest with it."""


def same(left: Any, right: Any) -> bool:
    """Return whether two values are equal, numbers that were computed within 1e-5."""
    if isinstance(left, float) and isinstance(right, float):
        return math.isclose(left, right, rel_tol=1e-5, abs_tol=1e-5)
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)


def assert_same_tables(run: Any, undisturbed: Any) -> None:
    for name, query in COMPARED.items():
        ours, theirs = run.rows(query), undisturbed.rows(query)
        assert theirs, name
        assert len(ours) == len(theirs), name
        differing = [pair for pair in zip(ours, theirs, strict=True) if not same(*pair)]
        assert not differing, f"{name}: {len(differing)} rows differ, first {differing[0]}"
    for row in undisturbed.rows(COMPARED["checkpoints"]):
        weights = Path(row["folder"]) / "model.safetensors"
        assert (run.workspace / weights).read_bytes() == (undisturbed.workspace / weights).read_bytes(), row["stage"]


def num_parts(workspace: Path, table: str = "trajectories") -> int:
    return len(list(workspace.glob(f"parts/{table}/*.parquet")))


def after_chunk(workspace: Path, words: str) -> Callable[[str], bool]:
    """Return the moment when, after `words` in the log, a chunk more has been sampled."""
    parts_then: list[int] = []

    def has_come(log: str) -> bool:
        if words in log:
            parts_then.append(num_parts(workspace))
        return bool(parts_then) and num_parts(workspace) > parts_then[0]

    return has_come


def in_training(workspace: Path) -> Callable[[str], bool]:
    """Return the moment when a stage of SFT has taken a step."""
    return lambda log: any(workspace.glob("checkpoints/*.partial/progress.json"))


MOMENTS: dict[str, Callable[[Path], Callable[[str], bool]]] = {
    "rollouts": lambda workspace: after_chunk(workspace, "loading"),
    "repairs": lambda workspace: after_chunk(workspace, "hints:"),
    "training": in_training,
    "evaluation": lambda workspace: after_chunk(workspace, "training:"),
}


def finish(run: Any, config: Path, workspace: Path, open_run: Any) -> Any:
    done = run.heal("run", config, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return open_run(run.heal, config, workspace)


def test_a_run_killed_in_repairs_and_in_training_ends_with_the_same_tables(
    finished_run: Any, open_run: Any, stop: Any, wait_for: Any, tmp_path: Path
) -> None:
    workspace = tmp_path / "killed"
    config = finished_run.heal.config(workspace, **WITHOUT_CONTROLS)
    for name in ("repairs", "training"):
        log = tmp_path / f"{name}.log"
        process = finished_run.heal.start(log, "run", config)
        wait_for(process, log, MOMENTS[name](workspace))
        assert stop(process, signal.SIGKILL) == (-signal.SIGKILL, [])
    assert_same_tables(finish(finished_run, config, workspace, open_run), finished_run)


@pytest.mark.full
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_run_killed_in_any_phase_ends_with_the_same_tables(
    finished_run: Any, open_run: Any, stop: Any, wait_for: Any, tmp_path: Path, moment: str
) -> None:
    workspace, log = tmp_path / "killed", tmp_path / "log"
    config = finished_run.heal.config(workspace, **WITHOUT_CONTROLS)
    process = finished_run.heal.start(log, "run", config)
    wait_for(process, log, MOMENTS[moment](workspace))
    assert stop(process, signal.SIGKILL) == (-signal.SIGKILL, [])
    assert_same_tables(finish(finished_run, config, workspace, open_run), finished_run)


@pytest.mark.full
@pytest.mark.parametrize("seed", range(5))
def test_a_run_killed_ten_times_at_random_ends_with_the_same_tables(
    finished_run: Any, open_run: Any, stop: Any, tmp_path: Path, seed: int
) -> None:
    workspace = tmp_path / "killed"
    config = finished_run.heal.config(workspace, **WITHOUT_CONTROLS)
    moments = random.Random(seed)
    killed = 0
    while killed < 10:
        log = tmp_path / f"{killed}.log"
        process = finished_run.heal.start(log, "run", config)
        time.sleep(moments.uniform(4, 30))
        if process.poll() is not None:  # it came to its end: from here on, an empty workspace is killed
            assert process.returncode == 0, log.read_text()
            assert_same_tables(open_run(finished_run.heal, config, workspace), finished_run)
            workspace.rename(tmp_path / f"finished before kill {killed}")
            continue
        assert stop(process, signal.SIGKILL) == (-signal.SIGKILL, [])
        last_words = " ".join(log.read_text(errors="replace").split()[-8:])
        sys.stdout.write(f"seed {seed}, kill {killed}: {last_words or 'nothing said so far'}\n")  # shown with -rP
        killed += 1
    assert_same_tables(finish(finished_run, config, workspace, open_run), finished_run)


@pytest.mark.parametrize(
    ("number", "to_group"),
    [  # SIGTERM is in the short tier too: test_faults.py, and with the children test_read_while_writing.py
        pytest.param(signal.SIGINT, True, id="Ctrl-C"),
        pytest.param(signal.SIGTERM, False, id="terminated", marks=pytest.mark.full),
        pytest.param(signal.SIGTERM, True, id="terminated with its children", marks=pytest.mark.full),
    ],
)
def test_an_interrupted_run_stops_at_once_and_says_how_to_go_on(
    finished_run: Any, stop: Any, wait_for: Any, tmp_path: Path, number: signal.Signals, to_group: bool
) -> None:
    workspace, log = tmp_path / "interrupted", tmp_path / "log"
    config = finished_run.heal.config(workspace, **WITHOUT_CONTROLS)
    process = finished_run.heal.start(log, "run", config)
    wait_for(process, log, MOMENTS["rollouts"](workspace))
    exit_code, left = stop(process, number, to_group)
    assert (exit_code, left) == (130, [])
    told = log.read_text()
    assert "the same command goes on from there" in told
    for word in ("rollouts: done", "tried alone", "Traceback", "leaked"):
        assert word not in told
