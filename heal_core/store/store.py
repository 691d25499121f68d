"""The trajectory store: append rows, merge parts, query, publish.

Rows are written as parts first (the durable truth) and then merged into the writer's
DuckDB in one transaction with the ledger; what people query is a copy, published by
rename, so that no reader can stop a writer. What does not belong here: which rows are
wanted (`plan`), and the SQL of particular questions (`reads`).
"""

from __future__ import annotations

import shutil
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import duckdb
import polars as pl
import pyarrow as pa

from heal_core.errors import StoreError
from heal_core.store import durable
from heal_core.store.parts import TOKEN_ARRAYS, Part, is_intact, list_parts, write_part
from heal_core.store.workspace import Workspace

STORAGE_VERSION = "v1.4.0"
"""The oldest DuckDB that can open the files."""

MIN_PUBLISH_SECONDS = 10.0
MAX_PUBLISH_SHARE = 0.05


class Store:
    """The writer's store of one workspace; thread-safe. The caller holds the workspace's lock."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self._lock = threading.RLock()
        self._published_at = 0.0
        self._publish_seconds = 0.0
        for folder in (workspace.parts, workspace.writer_database.parent, workspace.root):
            if folder is not workspace.root:
                durable.sweep_temporaries(folder)
        for leftover in workspace.root.glob("*.tmp"):
            leftover.unlink()
        self._connection = _connect(workspace.writer_database)
        _migrate(self._connection)
        self._schemas = {table: _arrow_schema(self._connection, table) for table in _tables(self._connection)}
        self.merge()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Publish what is there and close the database."""
        with self._lock:
            self.publish(force=True)
            self._connection.close()

    @property
    def epoch(self) -> str:
        """Return the id of this database file: a rebuilt one has another, so no stale cache hits."""
        return str(self.rows("SELECT value FROM meta WHERE key = 'store_epoch'")[0]["value"])

    def append(self, table: str, rows: Sequence[Mapping[str, Any]]) -> int:
        """Store rows durably and merge them; return how many were new.

        Rows whose content key is known are not stored again. Trajectory rows carry the
        token arrays of `parts.TOKEN_ARRAYS` besides the table's columns.
        """
        if not rows:
            return 0
        schema = self._part_schema(table)
        missing = set(schema.names) - set(rows[0])
        if missing:
            raise StoreError(f"rows for table {table} lack the columns {sorted(missing)}")
        part = write_part(self.workspace.parts, table, pa.Table.from_pylist(list(rows), schema=schema))
        with self._lock:
            num_new = self._merge_part(part)
            self.publish()
        return num_new

    def merge(self) -> int:
        """Merge every part that the ledger lacks; return how many.

        Raises:
            StoreError: If a part's bytes are not those its name promises.
        """
        with self._lock:
            known = {row["part_name"] for row in self.rows("SELECT part_name FROM parts")}
            fresh = [part for part in list_parts(self.workspace.parts) if part.part_name not in known]
            for part in fresh:
                if not is_intact(part):
                    raise StoreError(
                        f"part {part.path} is damaged: its bytes do not match its name. "
                        "Restore it from a backup, or move it out of `parts/`: its rows are then made again."
                    )
                self._merge_part(part)
            return len(fresh)

    def rows(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> list[dict[str, Any]]:
        """Return the result of a query as dictionaries."""
        with self._lock:
            cursor = self._connection.execute(sql, parameters)
            names = [column[0] for column in cursor.description or []]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def frame(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> pl.DataFrame:
        """Return the result of a query as a polars frame."""
        with self._lock:
            frame: pl.DataFrame = self._connection.sql(sql, params=parameters).pl()
            return frame

    def frame_for(self, ids: Sequence[str], sql: str, parameters: Sequence[Any] = ()) -> pl.DataFrame:
        """Return the result of a query that may join the relation `wanted(id)`, one row per id."""
        with self._lock:
            self._connection.register("wanted", pa.table({"id": pa.array(ids, pa.string())}))
            try:
                frame: pl.DataFrame = self._connection.sql(sql, params=parameters).pl()
                return frame
            finally:
                self._connection.unregister("wanted")

    def publish(self, force: bool = False) -> bool:
        """Make the rows visible to readers; return whether it was done.

        Without `force` it is done at most every 10 s and so that it takes at most 5 %
        of the time.
        """
        with self._lock:
            waited = time.monotonic() - self._published_at
            if not force and waited < max(MIN_PUBLISH_SECONDS, self._publish_seconds / MAX_PUBLISH_SHARE):
                return False
            started = time.monotonic()
            self._define_tokens_view()
            self._connection.execute("CHECKPOINT")
            durable.write_atomically(
                self.workspace.database,
                lambda temporary: shutil.copyfile(self.workspace.writer_database, temporary),
            )
            self._published_at = time.monotonic()
            self._publish_seconds = self._published_at - started
            return True

    def _part_schema(self, table: str) -> pa.Schema:
        if table not in self._schemas:
            raise StoreError(f"there is no table {table!r}; known: {', '.join(sorted(self._schemas))}")
        schema = self._schemas[table]
        if table == "trajectories":
            fields = [field for field in schema if field.name not in ("part_name", "created_at")]
            return pa.schema([*fields, schema.field("created_at"), *TOKEN_ARRAYS])
        return schema

    def _merge_part(self, part: Part) -> int:
        """Insert a part's unknown rows and its ledger row in one transaction."""
        key = self._schemas[part.table_name].names[0]
        columns = ", ".join(n for n in self._schemas[part.table_name].names if n != "part_name")
        extra = ", ? AS part_name" if part.table_name == "trajectories" else ""
        parameters = [part.part_name] if extra else []
        connection = self._connection
        connection.execute("BEGIN")
        try:
            if connection.execute("SELECT 1 FROM parts WHERE part_name = ?", [part.part_name]).fetchone():
                connection.execute("ROLLBACK")
                return 0
            inserted = connection.execute(
                f"INSERT INTO {part.table_name} BY NAME SELECT {columns}{extra} "
                f"FROM read_parquet(?) ANTI JOIN {part.table_name} USING ({key})",
                [*parameters, str(part.path)],
            ).fetchone()
            connection.execute(
                "INSERT INTO parts SELECT ?, ?, num_rows, ?, ? FROM parquet_file_metadata(?)",
                [part.part_name, part.table_name, part.path.stat().st_size, datetime.now(UTC), str(part.path)],
            )
            connection.execute("COMMIT")
        except duckdb.Error:
            connection.execute("ROLLBACK")
            raise
        return int(inserted[0]) if inserted else 0

    def _define_tokens_view(self) -> None:
        """Point the view `tokens` at the trajectory parts; without any it has no rows."""
        folder = self.workspace.parts / "trajectories"
        if any(folder.glob("*.parquet")):
            pattern = str(folder / "*.parquet").replace("'", "''")
            source = f"read_parquet('{pattern}')"
        else:
            source = (
                "(SELECT NULL::VARCHAR AS trajectory_id, NULL::INT[] AS token_ids, NULL::FLOAT[] AS logprobs, "
                "NULL::FLOAT[] AS entropies, NULL::INT[] AS token_starts WHERE false)"
            )
        self._connection.execute(
            "CREATE OR REPLACE VIEW tokens AS SELECT trajectory_id, token_ids, logprobs, entropies, "
            f"token_starts FROM {source}"
        )


def open_reader(workspace: Workspace) -> duckdb.DuckDBPyConnection:
    """Return a read-only connection to the published copy.

    Raises:
        StoreError: If nothing has been published there.
    """
    if not workspace.database.exists():
        raise StoreError(
            f"no store at {workspace.database}. Run `heal run CONFIG.yaml` first, or point --workspace "
            "at the folder that holds heal.duckdb."
        )
    return duckdb.connect(str(workspace.database), read_only=True)


def _connect(path: Path) -> duckdb.DuckDBPyConnection:
    try:
        return duckdb.connect(str(path), config={"storage_compatibility_version": STORAGE_VERSION})
    except duckdb.Error as error:
        raise StoreError(
            f"{path} cannot be opened: {error}. The parts are the truth: move the file away and run again, "
            "and it is rebuilt from them."
        ) from error


def _migrate(connection: duckdb.DuckDBPyConnection) -> None:
    """Apply the named migrations that are new, each in a transaction, then define the views.

    Raises:
        StoreError: If a newer HEAL has written the database.
    """
    connection.execute(
        "CREATE TABLE IF NOT EXISTS migrations (name VARCHAR, applied_at TIMESTAMPTZ); "
        "CREATE TABLE IF NOT EXISTS meta (key VARCHAR, value VARCHAR)"
    )
    applied = {row[0] for row in connection.execute("SELECT name FROM migrations").fetchall()}
    scripts = {
        script.name.removesuffix(".sql"): script
        for script in (resources.files("heal_core.store") / "migrations").iterdir()
        if script.name.endswith(".sql")
    }
    if unknown := sorted(applied - scripts.keys()):
        raise StoreError(
            f"the workspace was written by a newer HEAL (migrations {', '.join(unknown)} are unknown here). "
            "Upgrade HEAL, or use another workspace."
        )
    for name in sorted(scripts.keys() - applied):
        connection.execute("BEGIN")
        connection.execute(scripts[name].read_text())
        connection.execute("INSERT INTO migrations VALUES (?, ?)", [name, datetime.now(UTC)])
        connection.execute("COMMIT")
    if not connection.execute("SELECT 1 FROM meta WHERE key = 'store_epoch'").fetchone():
        connection.execute("INSERT INTO meta VALUES ('store_epoch', ?)", [uuid.uuid4().hex])
    connection.execute((resources.files("heal_core.store") / "views.sql").read_text())


def _tables(connection: duckdb.DuckDBPyConnection) -> list[str]:
    own = {"migrations", "meta", "parts"}
    names = connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()
    return [name for (name,) in names if name not in own]


def _arrow_schema(connection: duckdb.DuckDBPyConnection, table: str) -> pa.Schema:
    """Return a table's columns as parts hold them: JSON is text there."""
    described = connection.execute(f"DESCRIBE {table}").fetchall()
    columns = ", ".join(f"{name}::VARCHAR AS {name}" if kind == "JSON" else str(name) for name, kind, *_ in described)
    return connection.sql(f"SELECT {columns} FROM {table} LIMIT 0").to_arrow_table().schema
