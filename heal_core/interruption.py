"""That this process was asked to end, by Ctrl-C or SIGTERM: remembered, since the exception alone may be lost.

The exception that a signal handler raises comes out of native libraries as an error of their
own, which looks like a failed piece of work, and out of a finaliser not at all. The file that
Python writes each signal's number to knows better. What does not belong here: handlers, and
what a signal does in a child.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_NUMBERS = frozenset({signal.SIGINT, signal.SIGTERM})


class _Memory:
    """Where signals are written to, once someone listens, and whether one of ours was among them."""

    def __init__(self) -> None:
        self.ends: tuple[int, int] | None = None
        self.has_come = False
        self.lock = threading.Lock()


_memory = _Memory()


def listen() -> None:
    """Remember from now on what comes in; only the main thread can, and another one's call does nothing."""
    if threading.current_thread() is not threading.main_thread():
        return
    if _memory.ends is None:
        _memory.ends = os.pipe()
        for end in _memory.ends:
            os.set_blocking(end, False)
    signal.set_wakeup_fd(_memory.ends[1], warn_on_full_buffer=False)


def has_come() -> bool:
    """Return whether one of the two has come since `listen` was first called."""
    with _memory.lock:
        if _memory.ends is not None and not _memory.has_come:
            with suppress(BlockingIOError):
                _memory.has_come = not _NUMBERS.isdisjoint(os.read(_memory.ends[0], 1024))
        return _memory.has_come


def check() -> None:
    """Raise when the process was asked to end, so that it does not go on when the exception was lost.

    Raises:
        KeyboardInterrupt: If it was.
    """
    if has_come():
        raise KeyboardInterrupt


@contextmanager
def unheard() -> Iterator[None]:
    """Remember nothing meanwhile: signals have another meaning within."""
    before = signal.set_wakeup_fd(-1)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before, warn_on_full_buffer=False)
