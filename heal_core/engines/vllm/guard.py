"""Run a command, and end with it all that it started: `python guard.py FOLDER COMMAND...`; FOLDER goes with it.

vLLM's own processes (EngineCore, Worker) live on, with the GPU's memory, when its main process is killed (seen with
0.32). This one stands between: the kernel tells it when HEAL has died, orphans below it become its children, and it
ends when none is left. On a system other than Linux it only passes on how the command ended.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36
_GRACE_SECONDS = 10.0
"""For vLLM to remove its shared memory, hundreds of megabytes that stay behind otherwise."""
_TRACKER_SECONDS = 5.0
_TRACKER = b"multiprocessing.resource_tracker"
"""Removes shared memory once those who used it are gone, however they went; so it is killed last."""
_POLL_SECONDS = 0.05
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)


def main(command: list[str]) -> int:
    """Return the exit code of `command`, 128 + n after signal n, once nothing of it is left."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    main_id = os.posix_spawnp(command[0], command, os.environ, setsigmask=[])
    ended: dict[int, int] = {}
    while main_id not in ended and signal.sigwait(_SIGNALS) is signal.SIGCHLD:
        ended |= _reap()
    for process_id in _processes_below() if main_id in ended else [main_id]:
        _send(process_id, signal.SIGTERM)
    ended |= _end_all()
    code = os.waitstatus_to_exitcode(ended.get(main_id, 0))
    return code if code >= 0 else 128 - code


def _end_all() -> dict[int, int]:
    """Wait until all processes below this one have ended, then end the rest; return the exit status of its children."""
    ended: dict[int, int] = {}
    deadline = time.monotonic() + _GRACE_SECONDS
    while below := _processes_below():
        overdue = time.monotonic() - deadline
        for process_id in below if overdue > 0 else ():
            if overdue > _TRACKER_SECONDS or not _is_tracker(process_id):
                _send(process_id, signal.SIGKILL)
        ended |= _reap()
        time.sleep(_POLL_SECONDS)
    return ended | _reap()


def _reap() -> dict[int, int]:
    """Return the exit status of each child that has ended."""
    ended = {}
    with suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            ended[found[0]] = found[1]
    return ended


def _processes_below() -> list[int]:
    """Return the ids of all processes that this one started, or those started; of the dead ones its own alone."""
    found: list[int] = []
    pending = [os.getpid()]
    for process_id in pending:  # which grows meanwhile
        for children in Path(f"/proc/{process_id}").glob("task/*/children"):
            with suppress(OSError):  # it has ended meanwhile
                new = [int(word) for word in children.read_text().split()]
                found += new
                pending += new
    return found


def _is_tracker(process_id: int) -> bool:
    try:
        return _TRACKER in Path(f"/proc/{process_id}/cmdline").read_bytes()
    except OSError:  # it has ended meanwhile
        return False


def _send(process_id: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(process_id, number)


if __name__ == "__main__":
    exit_code = main(sys.argv[2:])
    shutil.rmtree(sys.argv[1], ignore_errors=True)
    sys.exit(exit_code)
