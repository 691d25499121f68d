"""What a session of SQL has attached: the published store as `heal`, the user's own database as `my`.

`my.duckdb` lies in the workspace beside the store, and HEAL opens it for nothing else. A name
without a database means either; the store's names come first. What does not belong here:
running statements (`query`).
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

import duckdb

from heal_core.errors import StoreError
from heal_core.store.database import connect
from heal_core.store.store import open_reader
from heal_core.store.tokens_view import PARTS_VARIABLE
from heal_core.store.workspace import Workspace

OWN_DATABASE = "my.duckdb"
LOCK_SECONDS = 5.0
"""How long a session that writes waits for `my.duckdb`: a reader has it open while its query runs."""

_NAMES = (
    "SELECT lower(table_name) AS name FROM duckdb_tables() WHERE database_name = '{0}' AND schema_name = 'main' "
    "UNION ALL SELECT lower(view_name) FROM duckdb_views() WHERE database_name = '{0}' AND schema_name = 'main' "
    "AND NOT internal"
)

Connection = duckdb.DuckDBPyConnection


class Databases:
    """The databases of one session, attached while a query needs them."""

    def __init__(self, workspace: Workspace, write: bool) -> None:
        """Open the session's connection, with `write` to the user's own database.

        Raises:
            StoreError: If there is no store, or if another process has the user's own open and `write` is wanted.
        """
        self.notes: list[str] = []
        """What the user should know of the last `attach`."""
        self.own = workspace.root / OWN_DATABASE
        self._workspace = workspace
        self._write = write
        self._default_path = ""
        self._chosen_path: str | None = None
        open_reader(workspace).close()  # says what is wrong with it, before anything is made
        self.connection = _open_for_writing(self.own) if write else duckdb.connect(":memory:")
        self._home = "my" if write else "memory"

    def attach(self) -> None:
        """Attach the store as it is published now, and the own database as it is now.

        Raises:
            StoreError: If the store cannot be read.
        """
        try:
            self._attach_file(self._workspace.database, "heal")
        except duckdb.Error as error:
            open_reader(self._workspace).close()  # says so if it is gone
            raise StoreError(f"{self._workspace.database} cannot be attached: {_first_line(error)}") from error
        self._point_to_parts()
        self.notes = []
        has_own = self._write or self._attach_own()
        clashes = sorted(self.clashes()) if has_own else []
        if clashes:
            self.notes.append(
                f"{', '.join(clashes)}: the name is the store's and also in {OWN_DATABASE}; it means the store's. "
                f"Rename your own with --write: ALTER TABLE my.{clashes[0]} RENAME TO ..."
            )
        order = ("my", "heal") if self._write and not clashes else ("heal", "my") if has_own else ("heal",)
        self._set_search_path(",".join(order))
        self._default_path = self._search_path()
        if self._chosen_path is not None:
            with contextlib.suppress(duckdb.Error):  # what it names is gone
                self._set_search_path(self._chosen_path)

    def detach(self) -> None:
        """Let the files go, so that a session left open stops no one; one that writes keeps its own."""
        if self._default_path:
            now = self._search_path()
            self._chosen_path = now if now != self._default_path else None  # by a USE of the user's
            self._default_path = ""
        self.connection.execute(f"USE {self._home}")
        for name in {"heal", "my"} - {self._home}:
            self.connection.execute(f"DETACH DATABASE IF EXISTS {name}")

    def in_transaction(self) -> bool:
        """Return whether the user has begun a transaction: then queries share its number."""
        try:
            return bool(self._value("SELECT txid_current()") == self._value("SELECT txid_current()"))
        except duckdb.TransactionException:  # it is broken, and waits for its ROLLBACK
            return True

    def clashes(self) -> set[str]:
        """Return the names of own tables and views that are the store's."""
        query = f"({_NAMES.format('my')}) INTERSECT ({_NAMES.format('heal')})"
        return {name for (name,) in self.connection.execute(query).fetchall()}

    def _point_to_parts(self) -> None:
        """Say where a moved workspace's parts are; the variable would also lead another store's `tokens` there."""
        parts = str(self._workspace.parts / "trajectories" / "*.parquet")
        holds = "SELECT contains(sql, $parts) FROM duckdb_views() WHERE database_name = 'heal' AND view_name = 'tokens'"
        if self.connection.execute(holds, {"parts": parts}).fetchall() == [(True,)]:
            self.connection.execute(f"RESET VARIABLE {PARTS_VARIABLE}")
        else:
            self.connection.execute(f"SET VARIABLE {PARTS_VARIABLE} = $parts", {"parts": parts})

    def _attach_own(self) -> bool:
        """Return whether the user's own tables are there to be read."""
        if not self.own.exists():
            return False
        try:
            self._attach_file(self.own, "my")
        except duckdb.Error as error:
            why = "another process writes to it" if _is_locked(error) else _first_line(error)
            self.notes.append(f"{OWN_DATABASE} is left out, and with it your own tables: {why}.")
            return False
        return True

    def _attach_file(self, path: Path, name: str) -> None:
        quoted = str(path).replace("'", "''")
        self.connection.execute(f"ATTACH '{quoted}' AS {name} (READ_ONLY)")

    def _search_path(self) -> str:
        return str(self._value("SELECT current_setting('search_path')"))

    def _set_search_path(self, path: str) -> None:
        self.connection.execute("SET search_path = $path", {"path": path})

    def _value(self, query: str) -> Any:
        ((value,),) = self.connection.execute(query).fetchall()
        return value


def _open_for_writing(path: Path) -> Connection:
    """Return a connection to the user's own database, which is made if it is not there."""
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            return connect(path)
        except duckdb.Error as error:
            if not _is_locked(error):
                raise StoreError(f"{path} cannot be opened for writing: {_first_line(error)}") from error
            if time.monotonic() > deadline:
                raise StoreError(
                    f"{path} is open in another process ({_first_line(error)}). Close it there, or leave out --write."
                ) from error
        time.sleep(0.1)


def _is_locked(error: duckdb.Error) -> bool:
    return "Could not set lock" in str(error)


def _first_line(error: duckdb.Error) -> str:
    return str(error).splitlines()[0]
