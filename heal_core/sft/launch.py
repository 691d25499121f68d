"""The parent's side of SFT: start the training child, follow it, and say why it failed.

Imports neither torch nor TRL, whose import takes seconds and whose memory the parent
does not need.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from heal_core.children import child_environment, start_child
from heal_core.errors import TimeIsUpError, TrainingError, TrainingKilledError, TrainingStalledError
from heal_core.sft import folders
from heal_core.sft.config import find_launcher
from heal_core.sft.preflight import PreflightReport
from heal_core.sft.spec import StageResult, StageSpec, finished_result

LOG_FILE = "train.log"
_POLL_SECONDS = 0.3
_LOG_TAIL_LINES = 20


@dataclass(frozen=True)
class StageProgress:
    """How far a stage is; the loss is that of the last optimizer step, in nats per token."""

    optimizer_step: int
    num_optimizer_steps: int
    loss: float


def run_stage(
    spec: StageSpec,
    on_progress: Callable[[StageProgress], None] | None = None,
    on_preflight: Callable[[PreflightReport], None] | None = None,
) -> StageResult:
    """Return the result of `spec`: found finished, or trained by a child that dies with this process.

    A stage that was killed resumes from its last whole checkpoint. `on_preflight` is called once
    the child knows what it trains on, `on_progress` a few times per second at most, in this thread.

    Raises:
        TrainingError: With the end of the child's log.
        TrainingKilledError: If something killed the child; the stage goes on from its last checkpoint.
        TrainingStalledError: If no step was taken for `stall_seconds`; the child was killed.
        TimeIsUpError: If `stop_at` came; the stage goes on from its checkpoint.
    """
    finished = finished_result(spec)
    if finished is not None:
        folders.remove_partial(spec.output_dir)
        return finished
    folder = folders.partial_dir(spec.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    spec_path, log_path = folder / "spec.json", folder / LOG_FILE
    folders.write_text(spec_path, spec.model_dump_json(indent=2))
    stopped = folders.stopped_path(spec.output_dir)
    stopped.unlink(missing_ok=True)
    with log_path.open("wb") as log:
        child = start_child(child_command(spec, spec_path), env=child_environment(), stdout=log, stderr=log)
        try:
            _follow(child, spec, on_progress, on_preflight)
        finally:
            child.kill()  # a no-op unless waiting was interrupted
            child.wait()
    if child.returncode < 0:
        raise TrainingKilledError(_failure(spec, child.returncode, log_path))
    if child.returncode != 0:
        raise TrainingError(_failure(spec, child.returncode, log_path))
    result = finished_result(spec)
    if result is None and stopped.is_file():
        raise TimeIsUpError(stopped.read_text(encoding="utf-8"))
    if result is None:
        raise TrainingError(f"{spec.label}: the training child ended well but left no {spec.output_dir}")
    return result


def child_command(spec: StageSpec, spec_path: Path) -> list[str]:
    """Return the command line of the training child."""
    return [*(find_launcher(spec.config.launcher) or (sys.executable,)), "-m", "heal_core.sft", str(spec_path)]


def _follow(
    child: subprocess.Popen[bytes],
    spec: StageSpec,
    on_progress: Callable[[StageProgress], None] | None,
    on_preflight: Callable[[PreflightReport], None] | None,
) -> None:
    path, preflight = folders.progress_path(spec.output_dir), folders.preflight_path(spec.output_dir)
    path.unlink(missing_ok=True)
    preflight.unlink(missing_ok=True)
    last = None
    moved_at = time.monotonic()
    while True:
        try:
            child.wait(_POLL_SECONDS)
            return
        except subprocess.TimeoutExpired:
            progress = read_progress(path)
        if on_preflight is not None and preflight.is_file():
            on_preflight(PreflightReport.model_validate_json(preflight.read_bytes()))
            on_preflight = None
            moved_at = time.monotonic()
        if progress is not None and progress != last:
            last, moved_at = progress, time.monotonic()
            if on_progress is not None:
                on_progress(progress)
        if time.monotonic() - moved_at > spec.config.stall_seconds:
            raise TrainingStalledError(
                f"{spec.label}: the training child took no step for {spec.config.stall_seconds:g} s and is killed; it "
                f"goes on from its last checkpoint (sft.save_every_steps). Its log is {path.with_name(LOG_FILE)}"
            )


def read_progress(path: Path) -> StageProgress | None:
    """Return what the child last said of itself; None before its first step."""
    try:
        return StageProgress(**json.loads(path.read_bytes()))
    except FileNotFoundError:
        return None


def _failure(spec: StageSpec, returncode: int, log_path: Path) -> str:
    cause = f"exit code {returncode}"
    if returncode < 0:
        cause = f"signal {-returncode}" + (" (out of memory?)" if returncode == -9 else "")
    lines = log_path.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_TAIL_LINES:]
    goes_on = "; the same command goes on from its last checkpoint" if returncode < 0 else ""
    told = f"{spec.label}: the training child ended with {cause}{goes_on}; its log {log_path} ends:"
    return "\n".join([told, *lines]) if lines else told.replace("ends:", "is empty")
