"""What publishing and rebuilding cost as a store grows.

    python -m benchmarks.publish --trajectories 10000 100000 1000000
    python -m benchmarks.publish --copy-gib 6             only the copying, of a file that large

Per size, in a synthetic store that is removed afterwards: seconds of `Store.publish` after
a flush of new rows, and so the interval that the 5 % rule makes of it; the size of the
published file, and of one without texts, with what copying each costs; seconds to rebuild
the index from the parts, publishing included.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb

from benchmarks.ingest import STORAGE, as_dictionaries, make_table
from benchmarks.rows import SyntheticConfig
from benchmarks.synthetic import make_store
from benchmarks.timing import interleave, print_report, spread, timed
from heal_core.store import durable
from heal_core.store.store import MAX_PUBLISH_SHARE, MIN_PUBLISH_SECONDS, Store
from heal_core.store.workspace import Workspace

_FLUSH_ROWS = 500
_TEXTS = {"trajectories": ("text", "prefix")}


def measure(folder: Path, config: SyntheticConfig, num_rounds: int) -> dict[str, Any]:
    """Return the figures of one size; `folder` is new and is left to the caller to remove."""
    make_store(folder, config)
    workspace = Workspace(folder)
    rebuilding = [_rebuild(workspace) for _ in range(num_rounds)]
    without_texts = _without_texts(workspace)
    copying = interleave(
        {"whole": _copier(workspace.database), "without_texts": _copier(without_texts)}, max(num_rounds, 5)
    )
    figures = {
        "num_trajectories": config.num_trajectories,
        "mean_text_chars": config.mean_text_chars,
        "mean_tokens": config.mean_tokens,
        "rows_per_part": config.rows_per_part,
        "num_parts": sum(1 for _ in workspace.parts.glob("*/*.parquet")),
        "parts_bytes": sum(part.stat().st_size for part in workspace.parts.glob("*/*.parquet")),
        "published_bytes": workspace.database.stat().st_size,
        "published_bytes_without_texts": without_texts.stat().st_size,
        "rebuild_seconds": spread(rebuilding),
        "copy_seconds": {name: spread(seconds) for name, seconds in copying.items()},
    }
    publishing = _publish(workspace, max(num_rounds, 5))
    interval = max(MIN_PUBLISH_SECONDS, statistics.median(publishing) / MAX_PUBLISH_SHARE)
    return {**figures, "publish_seconds": spread(publishing), "interval_seconds": round(interval, 1)}


def _rebuild(workspace: Workspace) -> float:
    """Return the seconds to open the store without its index, and to publish it."""
    for file in workspace.writer_database.parent.glob("writer.duckdb*"):
        file.unlink()
    return timed(lambda: Store(workspace).close())


def _publish(workspace: Workspace, num_rounds: int) -> list[float]:
    """Return the seconds of publishing, each time after a flush of new rows."""
    seconds = []
    with Store(workspace) as store:
        rows = as_dictionaries(make_table(store.part_schema("trajectories"), _FLUSH_ROWS * num_rounds, 32, seed=1))
        store.publish(force=True)
        for number in range(num_rounds):
            store.append("trajectories", rows[number * _FLUSH_ROWS : (number + 1) * _FLUSH_ROWS])
            seconds.append(timed(lambda: store.publish(force=True)))
    return seconds


def _without_texts(workspace: Workspace) -> Path:
    """Write the published tables without the texts of trajectories; return the file."""
    target = workspace.root / "without_texts.duckdb"
    with duckdb.connect(str(target), config=STORAGE) as connection:
        connection.execute(f"ATTACH '{workspace.database}' AS published (READ_ONLY)")
        names = connection.execute(
            "SELECT table_name FROM duckdb_tables() WHERE database_name = 'published' ORDER BY ALL"
        ).fetchall()
        for (name,) in names:
            emptied = ", ".join(f"'' AS {column}" for column in _TEXTS.get(name, ()))
            columns = f"* REPLACE ({emptied})" if emptied else "*"
            connection.execute(f"CREATE TABLE {name} AS SELECT {columns} FROM published.{name}")
    return target


def _copier(source: Path) -> Callable[[], float]:
    """Return the copying that publishing does, as a side."""
    target = source.with_name("copied.duckdb")

    def side() -> float:
        return timed(lambda: durable.write_atomically(target, lambda temporary: shutil.copyfile(source, temporary)))

    return side


def measure_copy(folder: Path, num_bytes: int, num_rounds: int) -> dict[str, Any]:
    """Return what copying a file of random bytes costs, as publishing copies: past the page cache, the disk decides."""
    source, block = folder / "published", os.urandom(min(num_bytes, 2**26))
    with source.open("wb") as file:
        for _ in range(num_bytes // len(block)):
            file.write(block)
    durable.sync_file(source)
    copy = _copier(source)
    return {"copied_bytes": source.stat().st_size, "copy_seconds": spread([copy() for _ in range(num_rounds)])}


def main() -> None:
    """Print a line of JSON per size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trajectories", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--mean-text-chars", type=float, default=800.0)
    parser.add_argument("--mean-tokens", type=float, default=32.0)
    parser.add_argument("--rows-per-part", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3, help="rebuilds; publishing is measured at least 5 times")
    parser.add_argument("--copy-gib", type=float)
    asked = parser.parse_args()
    if asked.copy_gib:
        with tempfile.TemporaryDirectory() as folder:
            figures = measure_copy(Path(folder), int(asked.copy_gib * 2**30), max(asked.rounds, 5))
        print_report("publish", figures)
        return
    for num in asked.trajectories:
        config = SyntheticConfig(
            num_trajectories=num,
            mean_text_chars=asked.mean_text_chars,
            mean_tokens=asked.mean_tokens,
            rows_per_part=asked.rows_per_part,
        )
        with tempfile.TemporaryDirectory() as folder:
            figures = measure(Path(folder), config, asked.rounds)
        print_report("publish", {"synthetic": True, **figures})


if __name__ == "__main__":
    main()
