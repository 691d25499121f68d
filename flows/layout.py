"""The empty database of a Prefect server: Prefect lays it out once per version, then it is copied.

To lay one out takes over a hundred migrations, more than twice the processor time of
starting the server; and each workspace has a server of its own. What does not belong here:
starting the server (`server`).
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

DATABASE = "prefect.db"
"""What Prefect calls its database in `PREFECT_HOME`."""


def kept_path() -> Path:
    """Return where the empty database of the installed Prefect is kept for this user; nothing is created."""
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(caches).expanduser() / "heal" / f"prefect-{importlib.metadata.version('prefect')}.db"


def prepare(home: Path, kept: Path | None = None) -> None:
    """Give a new `PREFECT_HOME` its database: a copy of the kept one, or one from Prefect, which is then kept.

    Where there is one already, or Prefect's settings name another place, nothing is done. Where none can be kept,
    Prefect lays it out each time.
    """
    database, kept = home / DATABASE, kept or kept_path()
    if database.exists() or copy_kept(home, kept):
        return
    from prefect.server.database import provide_database_interface

    interface = provide_database_interface()
    if interface.database_config.connection_url == f"sqlite+aiosqlite:///{database}":
        asyncio.run(interface.create_db())
        with suppress(OSError, sqlite3.Error):
            kept.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _copy(database, kept)


def copy_kept(home: Path, kept: Path | None = None) -> bool:
    """Copy the kept database into `home` and return whether it was there and sound; one in use is left as it is."""
    kept = kept or kept_path()
    if not kept.is_file():
        return False
    try:
        home.mkdir(parents=True, exist_ok=True)
        _copy(kept, home / DATABASE, is_new=True)
    except FileExistsError:
        return True
    except (OSError, sqlite3.Error):
        return False
    return True


def _copy(source: Path, target: Path, is_new: bool = False) -> None:
    """Copy a database as a whole; `is_new` refuses to replace one.

    Raises:
        sqlite3.Error: If the source is damaged, or holds no table.
        OSError: If nothing can be written, or `is_new` and there is one.
    """
    partial = target.with_name(f".{target.name}.{os.getpid()}")  # made by SQLite, as Prefect's are: others may read it
    partial.unlink(missing_ok=True)
    try:
        with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(partial)) as new:
            old.backup(new)
            if new.execute("PRAGMA quick_check").fetchall() != [("ok",)]:
                raise sqlite3.DatabaseError(f"{source} is damaged")
            if not new.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                raise sqlite3.DatabaseError(f"{source} is empty")
        with partial.open("rb") as written:
            os.fsync(written.fileno())
        if is_new:
            os.link(partial, target)
        else:
            os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)
