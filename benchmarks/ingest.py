"""Benchmark P6: durable ingest of trajectories with token arrays, each submitted twice.

    python -m benchmarks.ingest

Every side stores the same synthetic rows, arrays included, and is timed until they are
durable. HEAL is timed from row dictionaries, as sampling hands them over: it builds the
Arrow table, looks up which keys are known, writes and syncs the part, merges it with the
ledger and publishes. The peers are timed from an Arrow table that is there already
(`executemany`: from tuples), and end with CHECKPOINT.

- `insert_once`: plain INSERT .. SELECT, submitted once: the ceiling, since whatever is
  durable twice costs more
- `insert_twice`: the same twice, which stores every row twice
- `on_conflict`: a primary key and ON CONFLICT DO NOTHING
- `executemany`: fewer rows, scaled up
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from benchmarks.columns import Columns
from benchmarks.population import populate
from benchmarks.rows import SyntheticConfig, trajectory_rows
from benchmarks.synthetic import as_part
from benchmarks.timing import interleave, print_report, ratio, spread, timed
from heal_core.store.parts import TOKEN_ARRAYS
from heal_core.store.store import Store
from heal_core.store.workspace import Workspace

STORAGE: dict[str, str | bool | int | float | list[str]] = {"storage_compatibility_version": "v1.4.0"}
GOALS = {"insert_twice": 0.8, "on_conflict": 3.0, "executemany": 50.0}
"""How many times as fast as each peer HEAL is to be."""


def make_table(schema: pa.Schema, num_trajectories: int, num_tokens: int, seed: int = 0) -> pa.Table:
    """Return synthetic rollouts, each with exactly `num_tokens` entries per array."""
    columns = Columns(seed)
    config = SyntheticConfig(num_trajectories=num_trajectories, mean_tokens=num_tokens, repair_share=0.0)
    population = populate(columns, num_trajectories, 0.0)
    rows = trajectory_rows(columns, population.trajectories, config)
    lengths = np.full(num_trajectories, num_tokens)
    arrays = columns.token_arrays(lengths, np.full(num_trajectories, 4 * num_tokens))
    return as_part({**rows, "num_tokens": lengths, **arrays}, schema)


def as_dictionaries(table: pa.Table) -> list[dict[str, Any]]:
    """Return the rows as sampling hands them to the store: token arrays are arrays, all else is plain Python."""
    arrays = set(TOKEN_ARRAYS.names)
    rows: list[dict[str, Any]] = table.drop_columns(list(arrays)).to_pylist()
    for name in arrays:
        for row, values in zip(rows, table[name].combine_chunks(), strict=True):
            row[name] = values.values.to_numpy()
    return rows


def submit_to_store(rows: list[dict[str, Any]], folder: Path) -> tuple[float, float]:
    """Return the seconds of the first and of the second submission; the second must add nothing."""
    workspace = Workspace(folder)
    workspace.create()
    with Store(workspace) as store:
        added: list[int] = []
        first = timed(lambda: added.append(store.append("trajectories", rows)))
        second = timed(lambda: added.append(store.append("trajectories", rows)))
        (stored,) = store.rows("SELECT count(*) AS num, count(DISTINCT trajectory_id) AS distinct FROM trajectories")
    if added != [len(rows), 0] or stored != {"num": len(rows), "distinct": len(rows)}:
        raise SystemExit(f"submitting {len(rows)} rows twice added {added} and left {stored}")
    return first, second


def insert(table: pa.Table, folder: Path, submissions: int, on_conflict: bool = False) -> float:
    """Return the seconds of INSERT .. SELECT from Arrow, with a checkpoint after each submission."""
    with duckdb.connect(str(folder / "peer.duckdb"), config=STORAGE) as connection:
        _create_table(connection, table, on_conflict)
        clause = "ON CONFLICT DO NOTHING" if on_conflict else ""

        def submit() -> None:
            for _ in range(submissions):
                connection.execute(f"INSERT INTO stored FROM new_rows {clause}")
                connection.execute("CHECKPOINT")

        connection.register("new_rows", table)
        seconds = timed(submit)
        (num,) = connection.execute("SELECT count(*) FROM stored").fetchall()[0]
    expected = len(table) * (1 if on_conflict else submissions)
    if num != expected:
        raise SystemExit(f"the peer holds {num} rows; expected {expected}")
    return seconds


def insert_many(table: pa.Table, folder: Path) -> float:
    """Return the seconds of `executemany`, all rows in one transaction, submitted once."""
    rows = [tuple(row.values()) for row in table.to_pylist()]
    with duckdb.connect(str(folder / "peer.duckdb"), config=STORAGE) as connection:
        _create_table(connection, table, primary_key=False)
        marks = ", ".join("?" * table.num_columns)
        started = time.perf_counter()
        connection.execute("BEGIN")
        connection.executemany(f"INSERT INTO stored VALUES ({marks})", rows)
        connection.execute("COMMIT")
        connection.execute("CHECKPOINT")
        return time.perf_counter() - started


def _create_table(connection: duckdb.DuckDBPyConnection, table: pa.Table, primary_key: bool) -> None:
    connection.register("shape", table.slice(0, 0))
    connection.execute("CREATE TABLE stored AS FROM shape")
    if primary_key:
        connection.execute(f"ALTER TABLE stored ADD PRIMARY KEY ({table.column_names[0]})")


def in_new_folder(work: Callable[[Path], float]) -> Callable[[], float]:
    """Return `work` as a side that gets an empty folder each time."""

    def side() -> float:
        with tempfile.TemporaryDirectory() as folder:
            return work(Path(folder))

    return side


def measure(num_trajectories: int, num_tokens: int, num_many: int, num_rounds: int) -> dict[str, Any]:
    """Return the figures of P6."""
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(folder)
        workspace.create()
        with Store(workspace) as store:
            table = make_table(store.part_schema("trajectories"), num_trajectories, num_tokens)
    rows = as_dictionaries(table)
    submissions: list[tuple[float, float]] = []
    scale = 2 * num_trajectories / num_many

    def heal(folder: Path) -> float:
        submissions.append(submit_to_store(rows, folder))
        return sum(submissions[-1])

    seconds = interleave(
        {
            "heal": in_new_folder(heal),
            "insert_once": in_new_folder(lambda folder: insert(table, folder, 1)),
            "insert_twice": in_new_folder(lambda folder: insert(table, folder, 2)),
            "on_conflict": in_new_folder(lambda folder: insert(table, folder, 2, on_conflict=True)),
            "executemany": in_new_folder(lambda folder: scale * insert_many(table.slice(0, num_many), folder)),
        },
        num_rounds,
    )
    return {
        "num_trajectories": num_trajectories,
        "tokens_per_trajectory": num_tokens,
        "num_rounds": num_rounds,
        "executemany_rows": num_many,
        "seconds": {name: spread(values) for name, values in seconds.items()},
        "heal_first_submission": spread([first for first, _ in submissions]),
        "heal_second_submission": spread([second for _, second in submissions]),
        "times_as_fast": {name: ratio(values, seconds["heal"]) for name, values in seconds.items() if name != "heal"},
        "goals": GOALS,
    }


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trajectories", type=int, default=20_000)
    parser.add_argument("--tokens", type=int, default=500)
    parser.add_argument("--executemany-rows", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    print_report("ingest", measure(asked.trajectories, asked.tokens, asked.executemany_rows, asked.rounds))


if __name__ == "__main__":
    main()
