"""What a tree of processes uses now, read from /proc.

What does not belong here: limits and their consequences (`run`).
"""

from __future__ import annotations

import os
import resource
from pathlib import Path

_INODE_BYTES = 1024  # of kernel memory per file of a tmpfs


def tree_memory_bytes(process_id: int, folder: str | None = None) -> int:
    """Return the resident memory of a process and all below it; 0 when it is gone.

    What they share is counted for each of them, so that this is an upper bound.

    Args:
        process_id: The root of the tree.
        folder: A tmpfs as the processes see it, whose files cost memory by their number too.
    """
    total, num_files = 0, 0
    pending = [process_id]
    for current in pending:  # which grows meanwhile
        place = Path(f"/proc/{current}")
        try:
            total += int((place / "statm").read_text().split()[1]) * resource.getpagesize()
            for children in place.glob("task/*/children"):
                pending += map(int, children.read_text().split())
        except OSError:
            continue  # it has ended meanwhile
        if folder is not None:
            num_files = max(num_files, _num_files(f"{place}/root", folder))
    return total + num_files * _INODE_BYTES


def _num_files(root: str, folder: str) -> int:
    """Return the files in a process's own tmpfs; 0 where it sees this machine's folder, whose files are not its."""
    try:
        if os.stat(root + folder).st_dev == os.stat(folder).st_dev:
            return 0
        status = os.statvfs(root + folder)
    except OSError:  # ended, or not to be looked into; others of the tree are
        return 0
    return status.f_files - status.f_ffree
