"""Stopping a command that runs, and waiting for a moment of it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest


def is_running(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def stop() -> Iterator[Callable[..., tuple[int, list[str]]]]:
    """Return a function that signals a command and returns its exit code and the children it left running."""
    children: dict[psutil.Process, str] = {}

    def stop(
        process: subprocess.Popen[bytes], number: signal.Signals, to_group: bool = False, seconds: float = 60
    ) -> tuple[int, list[str]]:
        started = psutil.Process(process.pid).children(recursive=True)
        children.update({child: " ".join(child.cmdline()) for child in started})
        if to_group:
            os.killpg(process.pid, number)  # as a terminal does
        else:
            process.send_signal(number)
        exit_code = process.wait(seconds)
        deadline = time.monotonic() + 5
        while (left := [child for child in started if is_running(child)]) and time.monotonic() < deadline:
            time.sleep(0.05)
        return exit_code, [children[child] for child in left]

    yield stop
    for child in filter(is_running, children):
        child.kill()


@pytest.fixture
def wait_for() -> Callable[..., None]:
    """Return a function that waits until a running command has come to a moment."""

    def wait(process: subprocess.Popen[bytes], log: Path, moment: Callable[[str], bool], seconds: float = 240) -> None:
        deadline = time.monotonic() + seconds
        while not moment(log.read_text(errors="replace")):
            assert process.poll() is None, f"ended before the moment: {log.read_text(errors='replace')}"
            assert time.monotonic() < deadline, f"the moment never came: {log.read_text(errors='replace')}"
            time.sleep(0.02)

    return wait
