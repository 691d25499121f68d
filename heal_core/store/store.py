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
from contextlib import ExitStack
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
        for folder in (workspace.root, workspace.writer_database.parent, *workspace.parts.iterdir()):
            durable.sweep_temporaries(folder)
        self._connection = _connect(workspace.writer_database)
        with ExitStack() as on_failure:
            on_failure.callback(self._connection.close)
            _migrate(self._connection)
            self._schemas = {table: _arrow_schema(self._connection, table) for table in _tables(self._connection)}
            self.merge()
            self._define_tokens_view()
            on_failure.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Publish what is there and close the database."""
        with self._lock:
            try:
                self.publish(force=True)
            finally:
                self._connection.close()
                del self._connection  # kept alive by a late traceback, it would complain on stderr at exit

    @property
    def epoch(self) -> str:
        """Return the id of this database file: a rebuilt one has another, so no stale cache hits."""
        return str(self.rows("SELECT value FROM meta WHERE key = 'store_epoch'")[0]["value"])

    def append(self, table: str, rows: Sequence[Mapping[str, Any]]) -> int:
        """Store rows durably and merge them; return how many were new.

        Rows whose content key is known are not stored again. Trajectory rows carry the
        token arrays of `parts.TOKEN_ARRAYS` besides the table's columns.

        Raises:
            StoreError: If a row has not the table's columns, or no value where one is needed;
                nothing is stored then.
        """
        if not rows:
            return 0
        part = write_part(self.workspace.parts, table, self._part_rows(table, rows))
        with self._lock:
            num_new = self._merge_part(part)
            self.publish()
        return num_new

    def merge(self) -> int:
        """Merge every part that the ledger lacks; return how many.

        Raises:
            StoreError: If a part's bytes are not those its name promises, or a merged part is gone.
        """
        with self._lock:
            known = {row["part_name"] for row in self.rows("SELECT part_name FROM parts")}
            parts = list_parts(self.workspace.parts)
            if gone := sorted(known - {part.part_name for part in parts}):
                raise StoreError(
                    f"{len(gone)} merged parts are gone from {self.workspace.parts}, the first is {gone[0]}. Restore "
                    f"them from a backup, or delete {self.workspace.writer_database}: it is rebuilt without "
                    "their rows, which are then made again."
                )
            fresh = [part for part in parts if part.part_name not in known]
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

    def _part_rows(self, table: str, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
        """Return rows as a part holds them, the first of each content key.

        A part that is durable must be mergeable, or no later start could open the store.
        """
        schema = self._part_schema(table)
        key, columns = schema.names[0], set(schema.names)
        unique: dict[Any, Mapping[str, Any]] = {}
        for row in rows:
            if row.keys() != columns:
                raise StoreError(
                    f"row {row.get(key)} for table {table} lacks the columns {sorted(columns - row.keys())} "
                    f"and has the unknown columns {sorted(row.keys() - columns)}"
                )
            if empty := [field.name for field in schema if not field.nullable and row[field.name] is None]:
                raise StoreError(f"row {row[key]} for table {table} has no value in the columns {empty}")
            unique.setdefault(row[key], row)
        return pa.Table.from_pylist(list(unique.values()), schema=schema)

    def _merge_part(self, part: Part) -> int:
        """Insert a part's unknown rows and its ledger row in one transaction.

        Raises:
            StoreError: If the table is unknown or the database refuses the rows.
        """
        if part.table_name not in self._schemas:
            raise StoreError(f"part {part.path} is for a table that this HEAL does not know. Upgrade HEAL.")
        key = self._schemas[part.table_name].names[0]
        columns = ", ".join(n for n in self._schemas[part.table_name].names if n != "part_name")
        extra = ", ? AS part_name" if part.table_name == "trajectories" else ""
        parameters = [part.part_name] if extra else []
        num_bytes = part.path.stat().st_size
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
                [part.part_name, part.table_name, num_bytes, datetime.now(UTC), str(part.path)],
            )
            connection.execute("COMMIT")
        except duckdb.Error as error:
            connection.execute("ROLLBACK")
            raise StoreError(
                f"part {part.path} cannot be merged: {error}. Free the disk if it is full; "
                "else move the part out of `parts/`: its rows are then made again."
            ) from error
        return int(inserted[0]) if inserted else 0

    def _define_tokens_view(self) -> None:
        """Point the view `tokens` at the trajectory parts; without any it has no rows.

        Two parts may hold the same row; only the one that was merged first counts.
        """
        folder = self.workspace.parts / "trajectories"
        if any(folder.glob("*.parquet")):
            pattern = str(folder / "*.parquet").replace("'", "''")
            source = (
                f"trajectories t JOIN read_parquet('{pattern}', filename = true) p USING (trajectory_id) "
                "WHERE parse_filename(p.filename, true) = t.part_name"
            )
        else:
            source = (
                "(SELECT NULL::VARCHAR AS trajectory_id, NULL::INT[] AS token_ids, NULL::FLOAT[] AS logprobs, "
                "NULL::FLOAT[] AS entropies, NULL::INT[] AS token_starts WHERE false)"
            )
        self._connection.execute(
            "CREATE OR REPLACE VIEW tokens AS SELECT trajectory_id, token_ids, logprobs, entropies, "
            f"token_starts FROM {source}; COMMENT ON VIEW tokens IS "
            "'Token ids, log-probabilities, entropies and character offsets of each trajectory, from the parts.'"
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
        "CREATE TABLE IF NOT EXISTS meta (key VARCHAR, value VARCHAR); "
        "COMMENT ON TABLE migrations IS 'The changes of the schema that this database has seen.'; "
        "COMMENT ON COLUMN migrations.name IS 'File name of the migration, without .sql.'; "
        "COMMENT ON COLUMN migrations.applied_at IS 'When it was applied.'; "
        "COMMENT ON TABLE meta IS 'Facts about this database file.'; "
        "COMMENT ON COLUMN meta.key IS 'store_epoch: names this file; a rebuilt one has another.'; "
        "COMMENT ON COLUMN meta.value IS 'Its value.'"
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
    """Return a table's columns as parts hold them: JSON is text there. Only nullable ones may be empty."""
    described = connection.execute(f"DESCRIBE {table}").fetchall()
    columns = ", ".join(f"{name}::VARCHAR AS {name}" if kind == "JSON" else str(name) for name, kind, *_ in described)
    schema = connection.sql(f"SELECT {columns} FROM {table} LIMIT 0").to_arrow_table().schema
    needed = {name for name, _, null, *_ in described if null == "NO"}
    return pa.schema([field.with_nullable(field.name not in needed) for field in schema])
