"""The writer's DuckDB file: opening it, setting a damaged one aside, and bringing its schema up to date.

The file is an index over the parts, so that a damaged one costs a rebuild and no rows.
What does not belong here: merging parts (`merge`), and what is queried (`reads`, `inspect`).
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import shutil
import uuid
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path

import duckdb
import pyarrow as pa

from heal_core.errors import StoreError
from heal_core.store import durable

logger = logging.getLogger("heal")

STORAGE_VERSION = "v1.4.0"
"""The oldest DuckDB that can open the files."""

_DAMAGE = (
    "not a valid DuckDB database", "checksum", "orrupt", "nable to read", "ould not read", "Failed to load",
    "database has been invalidated",
)  # fmt: skip
_OWN_TABLES = {"migrations", "meta", "parts", "retired_parts"}

Connection = duckdb.DuckDBPyConnection


def open_database(path: Path) -> Connection:
    """Return a connection to the writer's database with the newest schema; a new file has no rows.

    A file that is damaged is set aside as `<name>.damaged`. One with an older schema is
    copied to `<folder>/backup-of-<last migration>.duckdb` before it is migrated.

    Raises:
        StoreError: If another process has the file open, or a newer HEAL has written it.
    """
    # DuckDB keeps a log beside the file; alone, it belongs to a file that is no more
    if not path.exists():
        discard(path)
    try:
        return _open_migrated(path)
    except duckdb.Error as error:
        if is_disk_full(error):
            raise durable.disk_full(path) from error
        if not is_damage(error):
            raise StoreError(_cannot_open(path, error)) from error
        logger.warning("%s was damaged (%s): it is set aside and rebuilt from the parts", path, _first_line(error))
    set_aside(path)
    return _open_migrated(path)


def _open_migrated(path: Path) -> Connection:
    connection = connect(path)
    try:
        _migrate(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def is_disk_full(error: duckdb.Error) -> bool:
    """Return whether DuckDB failed for want of room on the disk."""
    return any(os.strerror(number) in str(error) for number in (errno.ENOSPC, errno.EDQUOT))


def is_damage(error: duckdb.Error) -> bool:
    """Return whether DuckDB failed because the bytes of its file are not what it wrote."""
    return any(sign in str(error) for sign in _DAMAGE)


def connect(path: Path) -> Connection:
    """Return a connection for writing."""
    return duckdb.connect(str(path), config={"storage_compatibility_version": STORAGE_VERSION})


def discard(path: Path, only_log: bool = False) -> None:
    """Remove a database, or only its log."""
    _log_of(path).unlink(missing_ok=True)
    if not only_log:
        path.unlink(missing_ok=True)


def set_aside(path: Path) -> None:
    """Move a database and its log out of the way, over an earlier one."""
    for file in (path, _log_of(path)):
        if file.exists():
            file.replace(file.with_name(f"{file.name}.damaged"))


def newest_schema() -> str:
    """Return the name of the last migration, as parts carry it."""
    return max(_scripts())


def table_schemas(connection: Connection) -> dict[str, pa.Schema]:
    """Return the columns of each table of rows as parts hold them: JSON is text there.

    Only nullable columns may be empty.
    """
    names = connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()
    return {name: _arrow_schema(connection, name) for (name,) in names if name not in _OWN_TABLES}


def _migrate(connection: Connection, path: Path) -> None:
    """Apply the named migrations that are new, each in a transaction, then define the views if they are others.

    Raises:
        StoreError: If a newer HEAL has written the database.
    """
    connection.execute((resources.files("heal_core.store") / "meta.sql").read_text())
    applied = {row[0] for row in connection.execute("SELECT name FROM migrations").fetchall()}
    scripts = _scripts()
    if unknown := sorted(applied - scripts.keys()):
        raise StoreError(
            f"the workspace was written by a newer HEAL (migrations {', '.join(unknown)} are unknown here). "
            "Upgrade HEAL, or use another workspace."
        )
    fresh = sorted(scripts.keys() - applied)
    if applied and fresh:
        _back_up(connection, path, max(applied))
    for name in fresh:
        connection.execute("BEGIN")
        connection.execute(scripts[name])
        connection.execute("INSERT INTO migrations VALUES (?, ?)", [name, datetime.now(UTC)])
        connection.execute("COMMIT")
    if not connection.execute("SELECT 1 FROM meta WHERE key = 'store_epoch'").fetchone():
        connection.execute("INSERT INTO meta VALUES ('store_epoch', ?)", [uuid.uuid4().hex])
    _define_views(connection, is_changed=bool(fresh))


def _define_views(connection: Connection, is_changed: bool) -> None:
    """Define the views where the tables or their script changed: that takes more than half of opening a database."""
    script = (resources.files("heal_core.store") / "views.sql").read_text()
    digest = hashlib.sha256(script.encode()).hexdigest()
    found = connection.execute("SELECT value FROM meta WHERE key = 'views'").fetchall()
    if is_changed or found != [(digest,)]:
        connection.execute(script)
        connection.execute("DELETE FROM meta WHERE key = 'views'")
        connection.execute("INSERT INTO meta VALUES ('views', ?)", [digest])


def _back_up(connection: Connection, path: Path, schema: str) -> None:
    """Copy the database as it is before a migration; a backup that is there is kept."""
    backup = path.with_name(f"backup-of-{schema}.duckdb")
    if backup.exists():
        return
    connection.execute("CHECKPOINT")
    durable.write_atomically(backup, lambda temporary: shutil.copyfile(path, temporary))
    logger.warning("the store of schema %s is upgraded in place; a copy of it as it was is %s", schema, backup)


def _scripts() -> dict[str, str]:
    folder = resources.files("heal_core.store") / "migrations"
    return {file.name.removesuffix(".sql"): file.read_text() for file in folder.iterdir() if file.name.endswith(".sql")}


def _arrow_schema(connection: Connection, table: str) -> pa.Schema:
    described = connection.execute(f"DESCRIBE {table}").fetchall()
    columns = ", ".join(f"{name}::VARCHAR AS {name}" if kind == "JSON" else str(name) for name, kind, *_ in described)
    schema = connection.sql(f"SELECT {columns} FROM {table} LIMIT 0").to_arrow_table().schema
    needed = {name for name, _, null, *_ in described if null == "NO"}
    return pa.schema([field.with_nullable(field.name not in needed) for field in schema])


def _cannot_open(path: Path, error: duckdb.Error) -> str:
    if "lock" in str(error):
        return (
            f"{path} is open in another process ({_first_line(error)}). It is the writer's own: close it there, "
            f"and query {path.parent.parent / 'heal.duckdb'} instead."
        )
    return (
        f"{path} cannot be opened: {error}. If the file is at fault, run `heal store rebuild`: "
        "it is made anew from the parts, which are the truth."
    )


def _log_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.wal")


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]
