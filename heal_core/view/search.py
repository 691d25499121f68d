"""Search by SQL: what one query finds, bounded in time and size, and the trajectories that it names.

A query is run as `heal sql` without --write runs it: it can read, and write nothing. Each has a session of its own,
so that no SET, temporary table or attached file of one reaches the next, be it from another tab. One runs at a time,
since a query may take all cores and much memory beside a run. What does not belong here: what a session refuses
(`store.readonly`).
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

from heal_core.errors import InputError
from heal_core.report.trajectory import bound
from heal_core.store.plain import plain_row
from heal_core.store.query import Limit, Result, SqlSession, Statement
from heal_core.store.workspace import Workspace

MAX_SECONDS = 30.0
_PATIENCE_SECONDS = 3.0
MAX_ROWS = 500
MAX_BYTES = 4_000_000
MAX_QUERY_CHARS = 100_000
ID_COLUMNS = ("trajectory_id", "subject_id")
_LARGEST_EXACT = 2**53 - 1
"""The largest whole number that every JSON reader keeps."""


@dataclass(frozen=True)
class Found:
    """The result of a query.

    Attributes:
        columns: Their names.
        rows: Values that JSON can hold; what is nested is JSON text.
        is_cut: Whether there are more rows.
        ids: The trajectories that its first id column names, in its order; None without such a column.
        notes: What the user should know of the store.
    """

    columns: list[str]
    rows: list[list[Any]]
    is_cut: bool
    ids: list[str] | None
    notes: list[str]


class Searches:
    """Runs the queries on a workspace's store, one after another."""

    def __init__(self, workspace: Workspace, max_seconds: float = MAX_SECONDS) -> None:
        self._workspace = workspace
        self._max_seconds = max_seconds
        self._turn = threading.Lock()
        self._limit = Limit(max_seconds)
        self._has_ended = False

    def run(self, query: str, run_id: str) -> Found:
        """Return what the last statement of a query finds; `$run` in it is the run's id.

        Raises:
            InputError: If the query is refused, fails, or takes too long.
            StoreError: If the store cannot be read.
        """
        if len(query) > MAX_QUERY_CHARS:
            raise InputError(f"the query has more than {MAX_QUERY_CHARS:,} characters.")
        with self._alone() as limit, SqlSession(self._workspace, limit=limit) as session:
            statements = session.split(query)
            with session.current() as notes:
                for statement in statements[:-1]:
                    for _ in _run(session, statement, run_id).rows:
                        pass
                return _take(_run(session, statements[-1], run_id), notes)

    def end(self) -> None:
        """Give up the query that runs, and let none begin."""
        self._has_ended = True
        self._limit.stop()

    @contextmanager
    def _alone(self) -> Iterator[Limit]:
        # the query before is stopped at its limit, after which it is this one's turn
        if not self._turn.acquire(timeout=self._max_seconds + _PATIENCE_SECONDS):
            raise InputError(f"other queries have been running for {self._max_seconds + _PATIENCE_SECONDS:g} seconds.")
        try:
            self._limit = limit = Limit(self._max_seconds)
            if self._has_ended:
                limit.stop()
            yield limit
        finally:
            self._turn.release()


def _run(session: SqlSession, statement: Statement, run_id: str) -> Result:
    if unknown := sorted(statement.parameters - {"run"}):
        raise InputError(f"the query has ${unknown[0]}; only $run has a value here, the id of the run.")
    return session.run(statement, {"run": run_id})


def _take(result: Result, notes: Sequence[str]) -> Found:
    """Return the first rows of a result, as many as there may be."""
    rows: list[list[Any]] = []
    num_bytes = 0
    is_cut = False
    ids: dict[str, None] = {}
    place = next((result.columns.index(name) for name in ID_COLUMNS if name in result.columns), None)
    for row in islice(result.rows, MAX_ROWS + 1):
        cells = [_cell(value) for value in plain_row(row, result.types)]
        num_bytes += len(json.dumps(cells))
        if len(rows) == MAX_ROWS or (rows and num_bytes > MAX_BYTES):
            is_cut = True
            break
        rows.append(cells)
        if place is not None and isinstance(row[place], str):
            ids[row[place]] = None
    columns = [bound(name) for name in result.columns]
    return Found(columns, rows, is_cut, None if place is None else list(ids), list(notes))


def _cell(value: Any) -> Any:
    """Return a value that a browser reads as it is meant."""
    if isinstance(value, int) and abs(value) > _LARGEST_EXACT:
        return str(value)
    return bound(json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value)
