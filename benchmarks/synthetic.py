"""Make a synthetic store: `python -m benchmarks.synthetic --trajectories 1000000 FOLDER`.

Its rows are drawn from a seed; no model wrote them, and their ids are random, not content
keys. It is written as a run writes: parts first, then a store that merges and publishes
them. For measuring scale only: the source of each problem and the recipes say "synthetic".
What does not belong here: what is drawn (`population`, `rows`, `columns`).
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from benchmarks.columns import Columns
from benchmarks.population import populate
from benchmarks.rows import SyntheticConfig, table_rows
from heal_core.store.database import newest_schema
from heal_core.store.parts import write_part
from heal_core.store.store import Store
from heal_core.store.workspace import Workspace

_BYTES_PER_CHAR, _BYTES_PER_TOKEN, _BYTES_PER_ROW = 4, 12, 1500


def make_store(folder: Path, config: SyntheticConfig) -> dict[str, float]:
    """Write a synthetic store into an empty folder; return what it took, in seconds, rows and parts."""
    workspace = Workspace(folder)
    _check_disk(folder, config)
    workspace.create()
    started = time.perf_counter()
    columns = Columns(config.seed)
    population = populate(columns, config.num_trajectories, config.repair_share)
    drawn = time.perf_counter()
    with Store(workspace) as store:
        schemas = {table: store.part_schema(table) for table in store.tables}
    num_parts = 0
    for table, rows in table_rows(columns, population, config):
        num_parts += 1
        write_part(workspace.parts, table, as_part(rows, schemas[table]), num_parts, newest_schema())
    written = time.perf_counter()
    Store(workspace).close()
    return {
        "draw_seconds": drawn - started,
        "write_parts_seconds": written - drawn,
        "merge_and_publish_seconds": time.perf_counter() - written,
        "num_parts": num_parts,
    }


def as_part(columns: dict[str, Any], schema: pa.Schema) -> pa.Table:
    """Return columns as a part: a single value fills its column, a column that is not there is empty."""
    num = len(next(iter(columns.values())))
    return pa.Table.from_arrays([_as_column(columns.get(field.name), field, num) for field in schema], schema=schema)


def _as_column(value: Any, field: pa.Field, num: int) -> pa.Array:
    if isinstance(value, pl.Series):
        value = value.to_arrow()
    elif isinstance(value, (list, np.ndarray)):
        value = pa.array(value)
    elif not isinstance(value, pa.Array):
        value = pa.repeat(pa.scalar(value, field.type), num)
    return value.cast(field.type)


def _check_disk(folder: Path, config: SyntheticConfig) -> None:
    """Refuse a store that would not fit, or a folder that holds one."""
    if any(Path(folder).glob("*")):
        raise SystemExit(f"{folder} is not empty: a synthetic store is made in a folder of its own")
    per_row = (
        _BYTES_PER_ROW + _BYTES_PER_CHAR * config.mean_text_chars + _BYTES_PER_TOKEN * config.mean_tokens
    ) * config.num_trajectories
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if per_row > 0.8 * free:
        raise SystemExit(f"the store may need {per_row / 1e9:.0f} GB, and {free / 1e9:.0f} GB are free at {folder}")


def main() -> None:
    """Make the store that the command line asks for, and print what it took as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    default = SyntheticConfig()
    parser.add_argument("--trajectories", type=int, default=default.num_trajectories)
    parser.add_argument("--mean-text-chars", type=float, default=default.mean_text_chars)
    parser.add_argument("--mean-tokens", type=float, default=default.mean_tokens)
    parser.add_argument("--rows-per-part", type=int, default=default.rows_per_part)
    parser.add_argument("--seed", type=int, default=default.seed)
    asked = parser.parse_args()
    config = SyntheticConfig(
        num_trajectories=asked.trajectories,
        mean_text_chars=asked.mean_text_chars,
        mean_tokens=asked.mean_tokens,
        rows_per_part=asked.rows_per_part,
        seed=asked.seed,
    )
    print(json.dumps({"synthetic": True, **asdict(config), **make_store(asked.folder, config)}))


if __name__ == "__main__":
    main()
