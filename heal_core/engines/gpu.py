"""Free memory of the GPUs, so that what comes next does not start before what was there is gone.

Asks `nvidia-smi`, since the parent of an engine loads no torch; a machine without it has
no GPU as far as this is concerned.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Sequence

_QUERY = ("nvidia-smi", "--query-gpu=memory.free", "--format=csv,noheader,nounits")
_ANSWER_SECONDS = 20.0
_POLL_SECONDS = 0.5
_TOLERANCE_MIB = 256
"""Drivers keep a little of what a process had."""


def free_mib() -> list[int] | None:
    """Return the free memory of each GPU in MiB; None where there is no GPU or it does not answer."""
    try:
        done = subprocess.run(_QUERY, capture_output=True, text=True, timeout=_ANSWER_SECONDS, check=True)
        return [int(line) for line in done.stdout.split()] or None
    except (OSError, subprocess.SubprocessError, ValueError):
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
