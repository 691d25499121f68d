"""Files that survive a kill: written under a temporary name, synced, then renamed.

Every durable step of the store goes through these few functions, which is also where
the crash tests cut in.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path


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
    """
    temporary = final.with_name(f"{final.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        write(temporary)
        sync_file(temporary)
        replace_file(temporary, final)
    finally:
        temporary.unlink(missing_ok=True)


def sweep_temporaries(folder: Path) -> list[str]:
    """Remove the files that killed writers left in `folder`; return the names.

    Folders stay: DuckDB spills into `<database>.tmp/`, and a reader may be doing so now.
    """
    swept = [path for path in sorted(folder.glob("*.tmp")) if path.is_file()]
    for path in swept:
        path.unlink()
    return [path.name for path in swept]
