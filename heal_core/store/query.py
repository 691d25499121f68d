"""A session of SQL on a workspace: statements, their parameters, and their results.

The store is read-only in every session. One that may write can make tables and views of the
user's own, and files. What does not belong here: what is attached (`attached`), what is
refused before it runs (`readonly`), and how a result is shown.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar

import duckdb

from heal_core.errors import InputError
from heal_core.store.attached import Databases
from heal_core.store.readonly import lock_settings, refuse_attaching, refuse_writing, statement_kind
from heal_core.store.sqltext import without_semicolon
from heal_core.store.workspace import Workspace

_ROWS_PER_FETCH = 10_000
_SIGNAL_SECONDS = 0.1
_STREAMED = {"SELECT", "MULTI"}
_NAMING = {"CREATE", "ALTER", "PRAGMA", "COPY_DATABASE"}
_COPY_OPTIONS = {"csv": "FORMAT csv, HEADER true", "parquet": "FORMAT parquet"}
_OWN_NAMES = re.compile(r'\s*DETACH\s+(DATABASE\s+)?(IF\s+EXISTS\s+)?"?(heal|my)\b', re.IGNORECASE)
_READ_ONLY = re.compile(r'type "(?P<kind>\w+)" on database "(?P<name>\w+)" which is attached in read-only')

Values = Mapping[str, Any]
Row = tuple[Any, ...]
T = TypeVar("T")


@dataclass(frozen=True)
class Statement:
    """One statement: its text, DuckDB's type of it, and the names of its parameters."""

    text: str
    kind: str
    parameters: frozenset[str]


@dataclass(frozen=True)
class Result:
    """Names and DuckDB types of the columns, and the rows as they come; no columns if there is nothing to show."""

    columns: list[str]
    types: list[str]
    rows: Iterator[Row]


class Limit:
    """When the statements of a session are given up: after some seconds together, or once `stop` is called."""

    def __init__(self, max_seconds: float) -> None:
        self._max_seconds = max_seconds
        self._ends_at = time.monotonic() + max_seconds
        self._is_stopped = False

    def stop(self) -> None:
        """Give them up now; any thread may ask for it."""
        self._is_stopped = True

    def check(self) -> None:
        """Raise when they are to be given up.

        Raises:
            InputError: If they are.
        """
        if self._is_stopped:
            raise InputError("the query was stopped.")
        if time.monotonic() > self._ends_at:
            raise InputError(f"the query was stopped: it took more than {self._max_seconds:g} seconds.")


class SqlSession:
    """A connection for queries on one workspace; statements run within `current()`."""

    def __init__(self, workspace: Workspace, write: bool = False, limit: Limit | None = None) -> None:
        """Open the session.

        Args:
            workspace: Whose store is queried.
            write: Whether own tables and files may be written.
            limit: When statements are given up; never by default.

        Raises:
            StoreError: If there is no store, or if another process has the user's own tables open.
        """
        self._workspace = workspace
        self._limit = limit
        self._databases = Databases(workspace, write)
        self._connection = self._databases.connection
        self.write = write
        # a name in a query shall never mean a variable of this program
        self._connection.execute("SET python_enable_replacements = false")
        # with threads for writing, DuckDB 2.0.0 may wait for ever when the query of a COPY fails
        self._connection.execute("SET async_threads = 0")
        if not write:
            # DuckDB would spill into the current folder
            self._connection.execute("SET temp_directory = $folder", {"folder": f"{workspace.database}.tmp"})
            lock_settings(self._connection)
        self._thread = ThreadPoolExecutor(1, "sql")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the session; temporary tables are gone with it."""
        self._thread.shutdown()
        self._connection.close()

    @contextmanager
    def current(self) -> Iterator[list[str]]:
        """Give the store as it is published now; yield what the user should know of it.

        Afterwards its files are let go. Within a transaction nothing changes.

        Raises:
            StoreError: If the store cannot be read.
        """
        if not self._databases.in_transaction():
            self._databases.detach()
            self._databases.attach()
        try:
            yield self._databases.notes
        finally:
            if not self._databases.in_transaction():
                self._databases.detach()

    def has_open_transaction(self) -> bool:
        """Return whether a BEGIN has not come to its end; what it wrote would be lost with the session."""
        return self._databases.in_transaction()

    def split(self, text: str) -> list[Statement]:
        """Return the statements of a text.

        Raises:
            InputError: If it has none, or DuckDB cannot parse it.
        """
        with self._reported():
            parsed = self._connection.extract_statements(text)
        if not parsed:
            raise InputError("the query is empty: expected one SQL statement, for instance SHOW TABLES.")
        return [Statement(s.query, statement_kind(s), frozenset(s.named_parameters)) for s in parsed]

    def run(self, statement: Statement, values: Values) -> Result:
        """Run a statement and return its result; a SELECT goes on running while its rows are read.

        Args:
            statement: One of `split`.
            values: Values of parameters; those of other statements may be among them.

        Raises:
            InputError: With DuckDB's own words if it refuses the statement; if a parameter has no value;
                if it would write where it may not.
        """
        needed = self._admit(statement, values)
        if self.write and statement.kind in _NAMING:
            return self._run_naming(statement, needed)
        return self._run(statement, needed)

    def copy(self, statement: Statement, values: Values, path: str, form: str) -> None:
        """Write the rows of a SELECT to a file as `csv` or `parquet`, with DuckDB's types.

        Raises:
            InputError: As `run` does, and if the statement is no SELECT.
        """
        if statement.kind not in _STREAMED:
            raise InputError(
                f"only the rows of a SELECT can be written as {form}, and the last statement is of type "
                f"{statement.kind}. Use --format table or json."
            )
        needed = self._admit(statement, values)
        target = path.replace("'", "''")
        text = f"COPY (\n{without_semicolon(statement.text)}\n) TO '{target}' ({_COPY_OPTIONS[form]})"
        with self._reported():
            self._interruptibly(lambda: self._connection.execute(text, needed))

    def relations(self) -> Result:
        """Return the tables and views of the store and of the user's own, with what they hold."""
        return self._list(
            "SELECT database_name AS database, table_name AS name, 'table' AS kind, comment FROM duckdb_tables() "
            "WHERE database_name IN ('heal', 'my') UNION ALL "
            "SELECT database_name, view_name, 'view', comment FROM duckdb_views() "
            "WHERE database_name IN ('heal', 'my') AND NOT internal ORDER BY ALL",
            {},
        )

    def columns_of(self, name: str) -> Result:
        """Return the columns of a table or view with what they hold; `name` may have a database before a dot.

        Raises:
            InputError: If there is none of that name.
        """
        database, _, relation = name.strip('"').rpartition(".")
        result = self._list(
            "WITH named AS (FROM duckdb_columns() WHERE lower(table_name) = lower($relation) "
            "AND database_name IN ('heal', 'my') AND $database IN ('', database_name)) "
            "SELECT column_name AS column, data_type AS type, comment FROM named "
            # the store's names come first
            "WHERE database_name = (SELECT min(database_name) FROM named) ORDER BY column_index",
            {"relation": relation, "database": database},
        )
        if not result.columns:
            raise InputError(f"there is no table or view {name!r}.")
        return result

    def _admit(self, statement: Statement, values: Values) -> dict[str, Any]:
        """Return the values that a statement needs, if it may run."""
        if missing := sorted(statement.parameters - values.keys()):
            raise InputError(f"the query has ${missing[0]}, which has no value: add --param {missing[0]}=VALUE.")
        needed = {name: values[name] for name in statement.parameters}
        with self._reported():
            if statement.kind == "DETACH" and _OWN_NAMES.match(statement.text):
                raise InputError("the query was refused: heal and my belong to every session.")
            if statement.kind == "ATTACH":
                refuse_attaching(self._connection, statement.text, self._workspace, self.write)
            elif not self.write:
                refuse_writing(self._connection, statement.text, statement.kind, needed)
        return needed

    def _run_naming(self, statement: Statement, values: Values) -> Result:
        """Run what may give a name to a table or view; one of the store's is refused."""
        clashes = self._databases.clashes()
        is_own = not self._databases.in_transaction()
        if is_own:
            self._connection.begin()
        try:
            result = self._run(statement, values)
            taken = sorted(self._databases.clashes() - clashes)
        except BaseException:
            if is_own:
                self._connection.rollback()
            raise
        if taken:
            self._connection.rollback()
            also = "" if is_own else " The transaction is rolled back."
            raise InputError(f"the query was refused: {taken[0]} is a name of the store's. Take another.{also}")
        if is_own:
            self._connection.commit()
        return result

    def _run(self, statement: Statement, values: Values) -> Result:
        with self._reported():
            cursor = self._interruptibly(lambda: self._connection.execute(statement.text, dict(values)))
            columns = [str(column[0]) for column in cursor.description or ()]
            types = [str(column[1]) for column in cursor.description or ()]
            if statement.kind in _STREAMED:
                return Result(columns, types, self._fetch())
            rows = self._interruptibly(cursor.fetchall)
        return Result(columns, types, iter(rows)) if rows else Result([], [], iter(()))

    def _list(self, query: str, values: Values) -> Result:
        return self._run(Statement(query, "CALL", frozenset(values)), values)

    def _fetch(self) -> Iterator[Row]:
        def fetch() -> Sequence[Row]:
            return self._connection.fetchmany(_ROWS_PER_FETCH)

        with self._reported():
            while batch := self._interruptibly(fetch):
                yield from batch

    def _interruptibly(self, call: Callable[[], T]) -> T:
        """Return what `call` returns; Ctrl-C, which DuckDB by itself notices late, and the limit end it at once."""
        running = self._thread.submit(call)
        try:
            # waiting in steps, since after polars' handler of the signal an endless wait goes on
            while not running.done():
                if self._limit is not None:
                    self._limit.check()
                wait([running], timeout=_SIGNAL_SECONDS)
            return running.result()
        except (KeyboardInterrupt, InputError):
            while not running.done():
                self._connection.interrupt()
                wait([running], timeout=_SIGNAL_SECONDS)
            raise

    @contextmanager
    def _reported(self) -> Iterator[None]:
        try:
            yield
        except duckdb.Error as error:
            if refused := _READ_ONLY.search(str(error)):
                raise InputError(f"the query was refused: {self._explain(**refused.groupdict())}") from error
            raise InputError(f"the query was refused: {error}") from error
        except UnicodeDecodeError as error:  # DuckDB's message cuts a character in two
            raise InputError("the query was refused: it is no SQL that DuckDB can read.") from error

    def _explain(self, kind: str, name: str) -> str:
        """Return why DuckDB did not let a statement write to a database, and where own tables go."""
        own = f"Your own tables and views go to {self._databases.own}: "
        own += "CREATE TABLE mine AS SELECT ..." if self.write else "`heal sql --write` makes some."
        rows = "Rows of the store are append-only: runs add them, and nothing changes them. " if name == "heal" else ""
        return f"{kind} would write to {name}, which is read-only. {rows}{own}"
