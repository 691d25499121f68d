"""Asking a store, whether it is the writer's own or the published copy that a run leaves for others.

What does not belong here: the questions (`reads`, `experience`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import duckdb
import polars as pl
import pyarrow as pa

from heal_core.store.inspect import open_store
from heal_core.store.workspace import Workspace


class Readable(Protocol):
    """What can be asked: a `Store`, or a `PublishedStore`."""

    def rows(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> list[dict[str, Any]]:
        """Return the result of a query as dictionaries."""
        ...

    def frame_for(self, ids: Sequence[str], sql: str, parameters: Sequence[Any] = ()) -> pl.DataFrame:
        """Return the result of a query that may join the relation `wanted(id)`, one row per id."""
        ...


class PublishedStore:
    """The published copy of a store, read-only; it needs no lock, and a run may go on meanwhile."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection

    def rows(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> list[dict[str, Any]]:
        """Return the result of a query as dictionaries."""
        cursor = self._connection.execute(sql, parameters)
        names = [column[0] for column in cursor.description or []]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def frame_for(self, ids: Sequence[str], sql: str, parameters: Sequence[Any] = ()) -> pl.DataFrame:
        """Return the result of a query that may join the relation `wanted(id)`, one row per id."""
        self._connection.register("wanted", pa.table({"id": pa.array(ids, pa.string())}))
        try:
            frame: pl.DataFrame = self._connection.sql(sql, params=parameters).pl()
            return frame
        finally:
            self._connection.unregister("wanted")


@contextmanager
def open_published(workspace: Workspace) -> Iterator[PublishedStore | None]:
    """Yield what is published, None where nothing is so far.

    Raises:
        StoreError: If it is damaged.
    """
    if not workspace.database.exists():
        yield None
        return
    with open_store(workspace.root) as connection:
        yield PublishedStore(connection)
