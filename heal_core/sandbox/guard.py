"""Kills what a process that was killed left of its sandboxes: the kernel does not see to all of it.

bubblewrap's first process waits for bubblewrap's leave to begin before it ties its life to it. Where HEAL, and
so bubblewrap, is killed in that moment, it waits for ever. So every process that starts sandboxes has
a guard beside it, which goes by a mark on their command lines.

What does not belong here: limits while HEAL lives (`running`).
"""

from __future__ import annotations

import functools
import os
import select
import signal
import subprocess
import sys
import threading
import time
import uuid
from contextlib import suppress
from pathlib import Path

_PAUSE_SECONDS = 0.01
_PATIENCE_SECONDS = 60.0
_KEPT = ("LD_LIBRARY_PATH",)  # some interpreters do not find their own library without it
_lock = threading.Lock()
_guards: dict[str, subprocess.Popen[bytes]] = {}


def guarded_mark() -> str:
    """Return a word: once this process has ended, however it ended, what has it on its command line is killed.

    Raises:
        OSError: If the guard cannot be started.
    """
    with _lock:
        mark = _mark(os.getpid())
        guard = _guards.get(mark)
        if guard is None or guard.poll() is not None:  # whoever is out of memory may have killed it
            _guards[mark] = _start_guard(mark)
    return mark


@functools.cache
def _mark(process_id: int) -> str:
    """Return the mark of process `process_id`; a fork of it gets one of its own."""
    return f"heal-sandbox-of-{process_id}-{uuid.uuid4().hex}"


def _start_guard(mark: str) -> subprocess.Popen[bytes]:
    """Return a guard of this process."""
    return subprocess.Popen(
        [sys.executable, "-I", "-S", __file__, mark, str(os.getpid())],
        env={name: os.environ[name] for name in _KEPT if name in os.environ},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # out of reach of what is sent to HEAL's group
    )


def kill_marked(mark: str) -> None:
    """Kill every process that has `mark` on its command line; return when only this one is left, or in a minute."""
    deadline = time.monotonic() + _PATIENCE_SECONDS  # the kernel may hold one that is in an uninterruptible wait
    while any([_kill_if_marked(process_id, mark) for process_id in _other_processes()]) and time.monotonic() < deadline:
        time.sleep(_PAUSE_SECONDS)


def _other_processes() -> list[int]:
    ids = (int(place.name) for place in Path("/proc").iterdir() if place.name.isdecimal())
    return [process_id for process_id in ids if process_id != os.getpid()]


def _kill_if_marked(process_id: int, mark: str) -> bool:
    """Return whether a process has the mark; a dead one has no command line."""
    try:
        fd = os.pidfd_open(process_id)
    except OSError:  # it has ended meanwhile
        return False
    try:
        if mark.encode() not in Path(f"/proc/{process_id}/cmdline").read_bytes():
            return False
        signal.pidfd_send_signal(fd, signal.SIGKILL)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def main() -> None:
    """Wait for the end of whoever started this; then kill what has the mark."""
    mark, starter = sys.argv[1], int(sys.argv[2])
    with suppress(ProcessLookupError):
        fd = os.pidfd_open(starter)
        if os.getppid() == starter:  # else it has ended already, and its number may be another's
            select.select([fd], [], [])
    kill_marked(mark)


if __name__ == "__main__":
    main()
