"""The GPUs and their free memory, so that what comes next does not start before what was there is gone.

Asks `nvidia-smi`, since the parent of an engine loads no torch; a machine without it has
no GPU as far as this is concerned.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from heal_core.errors import HealError

_ANSWER_SECONDS = 20.0
_POLL_SECONDS = 0.5
_TOLERANCE_MIB = 256
"""Drivers keep a little of what a process had."""


@dataclass(frozen=True)
class Gpu:
    """A GPU as nvidia-smi sees it; `holders` are the processes that have some of its memory."""

    index: int
    name: str
    total_mib: int
    free_mib: int
    holders: tuple[int, ...] = ()


def list_gpus() -> list[Gpu]:
    """Return the GPUs, none on a machine without nvidia-smi.

    Raises:
        HealError: If it does not answer, or tells no memory.
    """
    if shutil.which("nvidia-smi") is None:
        return []
    processes = _ask("--query-compute-apps=gpu_uuid,pid")
    gpus = []
    for row in _ask("--query-gpu=uuid,index,memory.total,memory.free,name"):
        try:
            uuid, index, total, free, name = row
            holders = tuple(int(pid) for on, pid in processes if on == uuid)
            gpus.append(Gpu(int(index), name, int(total), int(free), holders))
        except ValueError as error:  # one that fell off the bus, or that shares the memory of the CPU
            raise HealError(f"nvidia-smi tells no memory: {', '.join(row)}") from error
    return gpus


def free_mib() -> list[int] | None:
    """Return the free memory of each GPU in MiB; None where there is no GPU or it does not answer."""
    try:
        return [int(free) for (free,) in _ask("--query-gpu=memory.free")] or None
    except (HealError, ValueError):
        return None


def wait_until_free(
    before: Sequence[int] | None, max_seconds: float = 60.0, ask: Callable[[], list[int] | None] = free_mib
) -> list[int]:
    """Wait until each GPU has the free memory it had `before`; return the indices of those that have not.

    Args:
        before: What `free_mib` said before the memory was taken; with None nothing is waited for.
        max_seconds: How long to wait.
        ask: Where the present figures come from.
    """
    if before is None:
        return []
    deadline = time.monotonic() + max_seconds
    while True:
        now = ask()
        if now is None:
            return []
        lacking = [
            index for index, (was, is_) in enumerate(zip(before, now, strict=False)) if is_ < was - _TOLERANCE_MIB
        ]
        if not lacking or time.monotonic() > deadline:
            return lacking
        time.sleep(_POLL_SECONDS)


def _ask(query: str) -> list[list[str]]:
    """Return the rows of nvidia-smi's answer, each as its columns.

    Raises:
        HealError: If there is none.
    """
    command = ["nvidia-smi", query, "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_ANSWER_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HealError(f"nvidia-smi does not answer: {error}") from error
    if done.returncode != 0:
        raise HealError(f"nvidia-smi does not answer: {' '.join((done.stdout + done.stderr).split())}")
    return [line.split(", ") for line in done.stdout.splitlines()]
