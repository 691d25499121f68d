"""Benchmark P9: pass rates, bands and funnel of a store with 10^6 trajectories.

    python -m benchmarks.synthetic --trajectories 1000000 FOLDER
    python -m benchmarks.queries FOLDER

HEAL opens the published store and reads a view, as `heal sql` does; the peer computes the
same with polars, lazily, from the Parquet parts of the same store. Both sides open their
files anew each time and end with the rows as Python tuples. The results must be equal.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.polars_peer import QUESTIONS
from benchmarks.timing import interleave, print_report, ratio, spread, timed
from heal_core.store.inspect import open_store

GOAL_RATIO, GOAL_SECONDS = 1.2, 1.0


def ask_store(workspace: Path, view: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Return the columns and rows of a view of the published store."""
    with open_store(workspace) as store:
        cursor = store.execute(f"FROM {view}")
        return [column[0] for column in cursor.description], cursor.fetchall()


def ask_polars(workspace: Path, view: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Return the same from the parts."""
    frame = QUESTIONS[view](workspace / "parts").collect()
    return frame.columns, frame.rows()


def check_equal(workspace: Path, view: str) -> int:
    """Return the number of rows of a view, which both sides must give alike.

    Raises:
        SystemExit: If they do not.
    """
    columns, rows = ask_store(workspace, view)
    peer_columns, peer_rows = ask_polars(workspace, view)
    order = [peer_columns.index(name) for name in columns]
    expected = sorted((tuple(row[index] for index in order) for row in peer_rows), key=repr)
    if sorted(rows, key=repr) != expected:
        raise SystemExit(f"{view}: the store gives {len(rows)} rows and polars {len(peer_rows)}, and they differ")
    return len(rows)


def measure(workspace: Path, num_rounds: int) -> dict[str, Any]:
    """Return, per view, the seconds of both sides and their ratio."""
    figures: dict[str, Any] = {}
    for view in QUESTIONS:
        num_rows = check_equal(workspace, view)
        seconds = interleave(
            {"store": _side(ask_store, workspace, view), "polars": _side(ask_polars, workspace, view)}, num_rounds
        )
        figures[view] = {
            "rows": num_rows,
            "store_seconds": spread(seconds["store"]),
            "polars_seconds": spread(seconds["polars"]),
            "ratio": ratio(seconds["store"], seconds["polars"]),
        }
    return figures


def _side(ask: Callable[[Path, str], object], workspace: Path, view: str) -> Callable[[], float]:
    return lambda: timed(lambda: ask(workspace, view))


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    asked = parser.parse_args()
    _, [(num,)] = ask_store(asked.workspace, "(SELECT count(*) AS num_trajectories FROM trajectories)")
    figures = {"synthetic": True, "num_trajectories": num, "num_rounds": asked.rounds}
    goals = {"ratio": GOAL_RATIO, "seconds": GOAL_SECONDS}
    print_report("queries", {**figures, "views": measure(asked.workspace, asked.rounds), "goals": goals})


if __name__ == "__main__":
    main()
