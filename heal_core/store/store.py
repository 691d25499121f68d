"""The trajectory store: append rows, merge parts, query, publish.

Rows are written as parts first (the durable truth) and then merged into the writer's
DuckDB in one transaction with the ledger; what people query is a copy, published by
rename, so that no reader can stop a writer. What does not belong here: how a part is
merged (`merge`), which rows are wanted (`plan`), and the SQL of questions (`reads`).
"""

from __future__ import annotations

import logging
import shutil
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any, Self

import duckdb
import polars as pl
import pyarrow as pa

from heal_core.errors import StoreError
from heal_core.store import durable
from heal_core.store.database import (
    is_damage,
    is_disk_full,
    newest_schema,
    open_database,
    table_schemas,
)
from heal_core.store.merge import merge_batch, merge_parts, remove_retired
from heal_core.store.parts import (
    ENTROPY_RADII,
    TOKEN_ARRAYS,
    check_digest,
    list_parts,
    part_of,
    read_header,
    write_part,
)
from heal_core.store.publishing import Publisher
from heal_core.store.tokens_view import PARTS_VARIABLE, define_tokens_view
from heal_core.store.workspace import Workspace

logger = logging.getLogger("heal")

MIN_PUBLISH_SECONDS = 10.0
MAX_PUBLISH_SHARE = 0.05
_CLOSE_FLOATS = 1e-9


class Store:
    """The writer's store of one workspace; thread-safe. The caller holds the workspace's lock."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self._lock = threading.RLock()
        self._publisher = Publisher(self._copy_for_readers, self._lock, MIN_PUBLISH_SECONDS, MAX_PUBLISH_SHARE)
        self._checked: set[str] = set()
        self._decided: Counter[tuple[str, tuple[tuple[str, str], ...]]] = Counter()
        self._is_damaged = False
        for name in (workspace.database.name, "summary.json"):  # a user may keep files of his own beside them
            durable.sweep_temporaries(workspace.root, name)
        for folder in (workspace.writer_database.parent, *workspace.parts.iterdir()):
            durable.sweep_temporaries(folder)
        self._connection = open_database(workspace.writer_database)
        with ExitStack() as on_failure:
            on_failure.callback(self._connection.close)
            self._schemas = table_schemas(self._connection)
            self.merge()
            self._adopt_verdicts()
            self._sequence = self.rows("SELECT coalesce(max(sequence), 0) AS last FROM parts")[0]["last"]
            define_tokens_view(self._connection, self.workspace)
            on_failure.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
            return
        try:
            self.close()
        except StoreError as second:  # the first error is the one to tell
            logger.warning("readers still see the store of before: %s", second)

    def close(self) -> None:
        """Publish what is there and close the database."""
        with self._lock:
            self._publisher.put_off()
            try:
                self.publish(force=True)
            finally:
                self._connection.close()
                del self._connection  # kept alive by a late traceback, it would complain on stderr at exit

    @property
    def epoch(self) -> str:
        """Return the id of this database file: a rebuilt one has another, so no stale cache hits."""
        return str(self.rows("SELECT value FROM meta WHERE key = 'store_epoch'")[0]["value"])

    @property
    def tables(self) -> list[str]:
        """Return the names of the tables that parts have rows for."""
        return sorted(self._schemas)

    def append(self, table: str, rows: Sequence[Mapping[str, Any]]) -> int:
        """Store rows durably and merge them; return how many were new.

        Rows whose content key is known are not stored again. Trajectory rows carry the
        token arrays of `parts.TOKEN_ARRAYS` besides the table's columns.

        Raises:
            StoreError: If a row has not the table's columns, or no value where one is needed;
                nothing is stored then.
        """
        unknown = self._unknown(table, rows)
        if not unknown:
            return 0
        table_rows = self._part_rows(table, unknown)
        with self._lock:
            self._sequence += 1
            sequence = self._sequence
        part = write_part(self.workspace.parts, table, table_rows, sequence, newest_schema())
        with self._lock:
            num_new = merge_batch(self._connection, self._schemas, {part: read_header(part)})
            self.publish()
        return num_new

    def append_decided(self, table: str, rows: Sequence[Mapping[str, Any]], scope: Mapping[str, str]) -> int:
        """Store rows that follow from the whole set of a run; return how many were new.

        A run that is resumed decides anew, and must come to what it decided before.

        Args:
            scope: The columns that all rows share and no other rows have; the first says whose they are, a run's or an
                ablation's. `check_decided` compares it as a whole once all of its rows are there.

        Raises:
            StoreError: If it does not: then code was changed in between, and the run would be a mix.
        """
        if rows and (changed := self._changed(table, rows)):
            key = self._schemas[table].names[0]
            raise _decided_otherwise(table, scope, f"{len(changed)} differ, the first has the {key} {changed[0]}")
        num_new = self.append(table, rows)
        self._decided[table, tuple(scope.items())] += len(rows)
        return num_new

    def check_decided(self) -> None:
        """Compare what was decided since the last call with what is stored for the same scopes.

        Raises:
            StoreError: If more is stored: an earlier start of the run had decided on other subjects.
        """
        for (table, scope), num in self._decided.items():
            where = " AND ".join(f"{column} = ?" for column, _ in scope)
            query = f"SELECT count(*) AS num FROM {table} WHERE {where}"
            (stored,) = self.rows(query, [value for _, value in scope])
            if stored["num"] != num:
                raise _decided_otherwise(table, dict(scope), f"{stored['num']} where there are {num} now")
        self._decided.clear()

    def _unknown(self, table: str, rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """Return the rows whose content key the table lacks, the first of each key."""
        key = self.part_schema(table).names[0]
        first: dict[Any, Mapping[str, Any]] = {}
        for row in rows:
            first.setdefault(row.get(key), row)
        ids = [name for name in first if name is not None]
        known = set(self.frame_for(ids, f"SELECT {key} FROM {table} SEMI JOIN wanted ON {key} = id")[key])
        return [row for name, row in first.items() if name not in known]

    def _changed(self, table: str, rows: Sequence[Mapping[str, Any]]) -> list[str]:
        """Return the keys of rows that are stored with other values."""
        key, *columns = self._schemas[table].names
        floats = {field.name for field in self._schemas[table] if pa.types.is_floating(field.type)}
        differs = " OR ".join(
            f"(coalesce(abs(n.{c} - t.{c}) > {_CLOSE_FLOATS}, false) OR (n.{c} IS NULL) <> (t.{c} IS NULL))"
            if c in floats
            else f"n.{c} IS DISTINCT FROM t.{c}"
            for c in columns
        )
        new = pa.Table.from_pylist(list(rows), schema=self._schemas[table])
        with self._lock:
            self._connection.register("decided", new)
            try:
                found = self.rows(f"SELECT n.{key} AS key FROM decided n JOIN {table} t USING ({key}) WHERE {differs}")
            finally:
                self._connection.unregister("decided")
        return sorted(row["key"] for row in found)

    def merge(self) -> int:
        """Merge every part that the ledger lacks; return how many.

        Raises:
            StoreError: If a part is damaged or of a newer HEAL, or a merged part is gone.
        """
        with self._lock:
            known = {row["part_name"] for row in self.rows("SELECT part_name FROM parts")}
            retired = {row["part_name"] for row in self.rows("SELECT part_name FROM retired_parts")}
            parts = [part for part in list_parts(self.workspace.parts) if part.part_name not in retired]
            if gone := sorted(known - {part.part_name for part in parts}):
                raise StoreError(
                    f"{len(gone)} merged parts are gone from {self.workspace.parts}, the first is {gone[0]}. Restore "
                    "them from a backup, or run `heal store rebuild`: the database is made anew without their rows, "
                    "which are then made again by the runs that need them."
                )
            fresh = [part for part in parts if part.part_name not in known]
            merge_parts(self._connection, self._schemas, fresh)
            return len(fresh)

    def _adopt_verdicts(self) -> None:
        """Give the rows of runs from before schema 0002 the verdict that counted then: the newest of that time."""
        self._connection.execute(
            "UPDATE run_rows SET verdict_id = v.verdict_id FROM ("
            "SELECT trajectory_id, last(verdict_id ORDER BY rowid) AS verdict_id FROM verdicts "
            "WHERE created_at IS NULL GROUP BY trajectory_id) v "
            "WHERE run_rows.verdict_id IS NULL AND run_rows.row_id = v.trajectory_id"
        )

    def check_parts(self, part_names: Iterable[str]) -> None:
        """Compare the bytes of trajectory parts with their names, each once in this object's life.

        Raises:
            StoreError: If one is damaged.
        """
        folder = self.workspace.parts / "trajectories"
        for name in sorted(set(part_names) - self._checked):
            check_digest(part_of(folder / f"{name}.parquet"))
            self._checked.add(name)

    def rows(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> list[dict[str, Any]]:
        """Return the result of a query as dictionaries."""
        with self._lock, self._reported():
            cursor = self._connection.execute(sql, parameters)
            names = [column[0] for column in cursor.description or []]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def frame(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> pl.DataFrame:
        """Return the result of a query as a polars frame."""
        with self._lock, self._reported():
            frame: pl.DataFrame = self._connection.sql(sql, params=parameters).pl()
            return frame

    def frame_for(self, ids: Sequence[str], sql: str, parameters: Sequence[Any] = ()) -> pl.DataFrame:
        """Return the result of a query that may join the relation `wanted(id)`, one row per id."""
        with self._lock, self._reported():
            self._connection.register("wanted", pa.table({"id": pa.array(ids, pa.string())}))
            try:
                frame: pl.DataFrame = self._connection.sql(sql, params=parameters).pl()
                return frame
            finally:
                self._connection.unregister("wanted")

    def publish(self, force: bool = False) -> bool:
        """Make the rows visible to readers; return whether it was done now.

        Without `force` it is done at most every 10 s and so that it takes at most 5 % of the
        time; what was put off is published by itself when that time has come. A database that
        was found damaged is not published over a good copy.
        """
        with self._lock:
            return not self._is_damaged and self._publisher.publish(force)

    def _copy_for_readers(self) -> None:
        with self._reported():
            define_tokens_view(self._connection, self.workspace)
            self._connection.execute("CHECKPOINT")
        durable.write_atomically(
            self.workspace.database,
            lambda temporary: shutil.copyfile(self.workspace.writer_database, temporary),
        )
        remove_retired(self._connection, self.workspace)  # readers of the new copy do not need them

    @contextmanager
    def _reported(self) -> Iterator[None]:
        """Tell a full disk and a damaged database with the remedy; any other error of DuckDB is a defect of HEAL's."""
        try:
            yield
        except duckdb.Error as error:
            if is_disk_full(error):
                raise durable.disk_full(self.workspace.writer_database) from error
            if not is_damage(error):
                raise
            self._is_damaged = True
            self._publisher.put_off()
            raise StoreError(
                f"{self.workspace.writer_database} is damaged: {error}. Run `heal store rebuild`: "
                "it is made anew from the parts, which are the truth."
            ) from error

    def part_schema(self, table: str) -> pa.Schema:
        """Return the columns of a table's parts.

        Raises:
            StoreError: If there is no such table.
        """
        if table not in self._schemas:
            raise StoreError(f"there is no table {table!r}; known: {', '.join(sorted(self._schemas))}")
        schema = self._schemas[table]
        if table == "trajectories":
            fields = [field for field in schema if field.name not in ("part_name", "created_at")]
            return pa.schema([*fields, schema.field("created_at"), *TOKEN_ARRAYS, ENTROPY_RADII])
        return schema

    def _part_rows(self, table: str, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
        """Return rows as a part holds them.

        A part that is durable must be mergeable, or no later start could open the store.
        """
        schema = self.part_schema(table)
        key, columns = schema.names[0], set(schema.names)
        for row in rows:
            if row.keys() != columns:
                raise StoreError(
                    f"row {row.get(key)} for table {table} lacks the columns {sorted(columns - row.keys())} "
                    f"and has the unknown columns {sorted(row.keys() - columns)}"
                )
            if empty := [field.name for field in schema if not field.nullable and row[field.name] is None]:
                raise StoreError(f"row {row[key]} for table {table} has no value in the columns {empty}")
        return pa.Table.from_pylist(list(rows), schema=schema)


def _decided_otherwise(table: str, scope: Mapping[str, str], how: str) -> StoreError:
    (kind, owner), *others = scope.items()
    where = ", ".join(value for _, value in others if value)
    return StoreError(
        f"{kind.removesuffix('_id')} {owner} had stored other {table} before ({where + ': ' if where else ''}{how}). "
        "The code that makes them was changed since. Raise its number in STAGE_VERSIONS (heal_core/keys.py), which "
        "makes this a new run that reuses all samples, or go back to the old code."
    )


def open_reader(workspace: Workspace) -> duckdb.DuckDBPyConnection:
    """Return a read-only connection to the published copy.

    Raises:
        StoreError: If nothing has been published there, or it is damaged.
    """
    if not workspace.database.exists():
        raise StoreError(
            f"no store at {workspace.database}. Run `heal run CONFIG.yaml` first, or point --workspace "
            "at the folder that holds heal.duckdb."
        )
    try:
        reader = duckdb.connect(str(workspace.database), read_only=True)
    except duckdb.Error as error:
        raise damaged_copy(workspace, error) from error
    reader.execute(f"SET VARIABLE {PARTS_VARIABLE} = ?", [str(workspace.parts / "trajectories" / "*.parquet")])
    return reader


def damaged_copy(workspace: Workspace, error: duckdb.Error) -> StoreError:
    """Return the error for a published copy that cannot be read, with the remedy."""
    return StoreError(
        f"{workspace.database} cannot be read ({str(error).splitlines()[0]}). It is a copy: "
        "`heal store rebuild` makes it anew from the parts."
    )
