"""Child processes that cannot outlive their parent (engines, training, verifiers).

What does not belong here: what the children do, and how one talks to them.
"""

from __future__ import annotations

import ctypes
import functools
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

_PR_SET_PDEATHSIG = 1
_EXIT_ORPHANED = 113

_starter_lock = threading.Lock()

Stream = int | IO[bytes] | None


def child_environment(**settings: str) -> dict[str, str]:
    """Return this environment with `settings`, for a Python child that finds the same heal_core anywhere."""
    root = str(Path(__file__).parents[1])
    paths = [root, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    # threads that spin while they wait slow each other 10 times and more where cores are shared
    defaults = {"OMP_WAIT_POLICY": "PASSIVE"}
    return {**defaults, **os.environ, "PYTHONPATH": os.pathsep.join(paths), **settings}


def start_child(
    command: Sequence[str],
    *,
    pass_fds: Sequence[int] = (),
    env: Mapping[str, str] | None = None,
    stdin: Stream = subprocess.DEVNULL,
    stdout: Stream = None,
    stderr: Stream = None,
    own_session: bool = False,
    death_signal: int = signal.SIGKILL,
) -> subprocess.Popen[bytes]:
    """Return a running `command` (no shell) that the kernel kills when this process ends, however it ends.

    Only Linux offers that; elsewhere the child is an ordinary one. The child's own
    children are not covered: they must watch over themselves, or the child over them.

    Args:
        command: Program and arguments.
        pass_fds: File descriptors that stay open in the child, under the same numbers.
        env: The whole environment; that of this process by default.
        stdin: As for `subprocess.Popen`, and so are `stdout` and `stderr`.
        own_session: Out of reach of the terminal's Ctrl-C, and open to a SIGINT that is sent to it alone, which
            what a shell starts in the background ignores.
        death_signal: What the kernel sends; a child that ends its own children first takes SIGTERM.

    Raises:
        OSError: If the program cannot be started.
    """

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            list(command),
            pass_fds=tuple(pass_fds),
            env=None if env is None else dict(env),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            start_new_session=own_session,
            preexec_fn=_prepare(os.getpid(), own_session, death_signal),
        )

    # The kernel's "parent" is the thread that forked, not the process: a child started
    # from a task's worker thread would be killed when that thread retires.
    with _starter_lock:  # two threads at once would get one each, and the one that is not kept ends
        starter = _starter(os.getpid())
    return starter.submit(start).result()


@functools.cache
def _starter(process_id: int) -> ThreadPoolExecutor:
    """Return the one thread of process `process_id` that forks; it lives as long as the process."""
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"start-child-{process_id}")


def die_with_parent() -> None:
    """Let the kernel kill this process when the one that started it ends: a launcher of others may not see to it.

    Only Linux offers that; elsewhere this does nothing.
    """
    if sys.platform == "linux":
        _die_with(os.getppid(), signal.SIGKILL)()


def _prepare(parent_id: int, hears_interrupts: bool, death_signal: int) -> Callable[[], None]:
    """Return what the child runs between fork and exec."""
    die_with_parent = _die_with(parent_id, death_signal) if sys.platform == "linux" else lambda: None

    def prepare() -> None:
        die_with_parent()
        if hears_interrupts:
            signal.signal(signal.SIGINT, signal.SIG_DFL)

    return prepare


def _die_with(parent_id: int, death_signal: int) -> Callable[[], None]:
    """Return what the child runs between fork and exec; libc is loaded before, where that is safe."""
    libc = ctypes.CDLL(None, use_errno=True)

    def prepare() -> None:
        if libc.prctl(_PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
        if os.getppid() != parent_id:  # it died before prctl, so no signal will come
            os._exit(_EXIT_ORPHANED)

    return prepare
