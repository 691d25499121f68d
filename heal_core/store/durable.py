"""Files that survive a kill: written under a temporary name, synced, then renamed.

Every durable step of the store goes through these few functions, which is also where
the crash tests cut in.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path

from heal_core.errors import StoreError

_FULL = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the disk quota is used up"}


def sync_file(path: Path) -> None:
    """Flush a file's bytes to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_file(temporary: Path, final: Path) -> None:
    """Give a finished file its name, atomically, and make the name durable."""
    os.replace(temporary, final)
    sync_file(final.parent)


def write_atomically(final: Path, write: Callable[[Path], object]) -> None:
    """Run `write` on a temporary path beside `final`, sync it and rename it into place.

    A reader sees the old file or the new one, never a part of it. What a killed
    writer leaves ends in `.tmp` and is swept at the next start.

    Raises:
        StoreError: If the disk is full.
    """
    temporary = final.with_name(f"{final.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        write(temporary)
        sync_file(temporary)
        replace_file(temporary, final)
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise disk_full(final, _FULL[error.errno]) from error
    finally:
        temporary.unlink(missing_ok=True)


def disk_full(path: Path, why: str = "the disk is full") -> StoreError:
    """Return the error for a file that could not be written for want of room."""
    return StoreError(
        f"{why}: {path} could not be written. What was stored before is safe; free some space "
        "(`heal store size` shows what takes it) and run the same command again: it goes on from there."
    )


def sweep_temporaries(folder: Path, name: str = "*") -> list[str]:
    """Remove what killed writers of files called `name` left in `folder`; return the names.

    Folders stay: DuckDB spills into `<database>.tmp/`, and a reader may be doing so now.
    """
    swept = [path for path in sorted(folder.glob(f"{name}.*.tmp")) if path.is_file()]
    for path in swept:
        path.unlink()
    return [path.name for path in swept]
