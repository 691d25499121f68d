"""What people ask of a published store: runs, one trajectory with all that hangs on it. SQL has a module of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb

from heal_core.errors import InputError
from heal_core.store.database import is_damage
from heal_core.store.store import damaged_copy, open_reader
from heal_core.store.workspace import Workspace

Connection = duckdb.DuckDBPyConnection

NOTED_PRICES = (
    "SELECT detail -> '$.prices' AS prices FROM run_events WHERE run_id = ? AND event = 'priced' "
    "ORDER BY rowid DESC LIMIT 1"
)


@contextmanager
def open_store(workspace: Path) -> Iterator[Connection]:
    """Yield a read-only connection to a workspace's published store.

    Raises:
        StoreError: If there is none, or it is damaged.
    """
    layout = Workspace(workspace)
    connection = open_reader(layout)
    try:
        yield connection
    except duckdb.Error as error:
        if not is_damage(error):
            raise
        raise damaged_copy(layout, error) from error
    finally:
        connection.close()


def schema_name(store: Connection) -> str:
    """Return the last migration that a store has; one of another schema may lack what other functions here read."""
    (name,) = store.execute("SELECT max(name) FROM migrations").fetchall()[0]
    return str(name)


def run_overview(store: Connection) -> list[dict[str, Any]]:
    """Return one row per run, the one that was first started last coming first.

    Its `state` is completed, stopped, failed or unfinished, as far as the store can tell: whether
    an unfinished one runs now is a matter of the workspace's lock. `reason` says why it stopped
    or failed; `quarantined_problems` is None where the run did not note it.
    """
    return fetch_rows(
        store,
        """
        SELECT s.run_id,
               CASE WHEN s.completed THEN 'completed' WHEN s.last_event IN ('failed', 'stopped') THEN s.last_event
                    ELSE 'unfinished' END AS state,
               CASE WHEN state IN ('failed', 'stopped') THEN coalesce(e.detail ->> '$.error', e.detail ->> '$.reason')
                    END AS reason,
               e.last_phase, strftime(s.started_at, '%Y-%m-%d %H:%M') AS started,
               strftime(s.last_event_at, '%Y-%m-%d %H:%M:%S') AS last_event,
               (SELECT count(*) FROM run_problems p WHERE p.run_id = s.run_id) AS problems,
               (SELECT count(*) FROM run_rows r WHERE r.run_id = s.run_id AND r.phase = 'rollouts') AS rollouts,
               (SELECT count(*) FROM run_rows r WHERE r.run_id = s.run_id AND r.phase = 'repairs') AS repairs,
               (SELECT count(*) FROM quarantine q WHERE q.run_id = s.run_id) AS quarantined,
               e.quarantined_problems
        FROM run_status s
        JOIN runs USING (run_id)
        LEFT JOIN (
            SELECT run_id, last(detail ORDER BY rowid) AS detail,
                   -- copies from before schema 0003 have a view that takes every event's phase
                   last(phase ORDER BY rowid) FILTER (event = 'phase') AS last_phase,
                   last((detail ->> '$.quarantined')::INTEGER ORDER BY rowid) FILTER (event = 'completed')
                       AS quarantined_problems
            FROM run_events GROUP BY run_id
        ) e USING (run_id)
        ORDER BY runs.rowid DESC
        """,
    )


def import_overview(store: Connection) -> list[dict[str, Any]]:
    """Return one row per file of rollouts that was taken in, the last one coming first; none before schema 0007."""
    if schema_name(store) < "0007":
        return []
    return fetch_rows(
        store,
        "SELECT source, format, model, num_read, num_imported, num_there, num_unmatched, num_quarantined, "
        "strftime(imported_at, '%Y-%m-%d %H:%M:%S') AS imported_at FROM imports ORDER BY rowid DESC",
    )


def find_run(store: Connection, beginning: str) -> dict[str, Any]:
    """Return the row of a run.

    Raises:
        InputError: If no run, or more than one, has an id that begins so.
    """
    rows = fetch_rows(store, "SELECT * FROM runs WHERE starts_with(run_id, ?) ORDER BY rowid LIMIT 6", beginning)
    if not rows:
        raise InputError(f"no run has an id that begins with {beginning!r}. `heal status` lists them.")
    if len(rows) > 1:
        ids = ", ".join(row["run_id"] for row in rows[:5])
        raise InputError(f"{beginning!r} begins more than one id ({ids} ...): give more of it.")
    return rows[0]


def noted_prices(store: Connection, run_id: str) -> dict[str, Any] | None:
    """Return the prices by role that a run noted last; None where it never noted any."""
    rows = fetch_rows(store, NOTED_PRICES, run_id)
    return dict(json.loads(rows[0]["prices"])) if rows else None


def find_trajectory(store: Connection, beginning: str) -> dict[str, Any]:
    """Return a trajectory with problem, verdict, profile, hint, parent, score, decisions and repairs.

    Raises:
        InputError: If no trajectory, or more than one, has an id that begins so.
    """
    sql = "SELECT trajectory_id FROM trajectories WHERE starts_with(trajectory_id, ?) ORDER BY ALL LIMIT 6"
    ids = [row["trajectory_id"] for row in fetch_rows(store, sql, beginning)]
    if not ids:
        raise InputError(
            f"no trajectory has an id that begins with {beginning!r}. "
            'List some with: heal sql "SELECT trajectory_id, kind FROM trajectories LIMIT 10"'
        )
    if len(ids) > 1:
        raise InputError(f"{beginning!r} begins more than one id ({', '.join(ids[:5])} ...): give more of it.")
    return {**_trajectory(store, ids[0]), "repairs": _repairs(store, ids[0])}


def _trajectory(store: Connection, trajectory_id: str) -> dict[str, Any]:
    (row,) = fetch_rows(
        store,
        "SELECT t.*, p.question, p.answer, v.label, v.extracted, v.reason FROM trajectories t "
        "JOIN problems p USING (problem_id) LEFT JOIN latest_verdicts v USING (trajectory_id) WHERE trajectory_id = ?",
        trajectory_id,
    )
    row["decisions"] = fetch_rows(
        store,
        "SELECT run_id, phase, decision, reason, value FROM decisions WHERE subject_id = ? ORDER BY ALL",
        trajectory_id,
    )
    row["profile"] = _first(
        store,
        "SELECT * FROM profiles WHERE trajectory_id = ? "
        "ORDER BY entropy_source IS NOT DISTINCT FROM 'rescored' DESC, profile_id",
        trajectory_id,
    )
    row["score"] = _first(store, "SELECT * FROM scores WHERE trajectory_id = ? ORDER BY score_id", trajectory_id)
    row["hint"] = _first(store, "SELECT text FROM trajectories WHERE trajectory_id = ?", row["hint_id"])
    return row


def _repairs(store: Connection, rollout_id: str) -> list[dict[str, Any]]:
    """Return what was continued from a rollout: verified ones first."""
    return fetch_rows(
        store,
        "SELECT t.trajectory_id, t.text, v.label, h.text AS hint FROM trajectories t "
        "LEFT JOIN latest_verdicts v USING (trajectory_id) LEFT JOIN trajectories h ON h.trajectory_id = t.hint_id "
        "WHERE t.parent_id = ? AND t.kind = 'repair' ORDER BY v.label, t.sample_index",
        rollout_id,
    )


def _first(store: Connection, sql: str, parameter: str | None) -> dict[str, Any] | None:
    rows = fetch_rows(store, sql, parameter)
    return rows[0] if rows else None


def fetch_rows(store: Connection, sql: str, *values: Any, **named: Any) -> list[dict[str, Any]]:
    """Return the result of a query, with values for its `?` or for its `$name`, as dictionaries."""
    cursor = store.execute(sql, named or list(values))
    names = [column[0] for column in cursor.description or []]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
