"""Bytes per token on disk, for several ways to write the token arrays of a part.

    python -m benchmarks.encodings                        synthetic arrays
    python -m benchmarks.encodings --workspace FOLDER     those of a workspace

`stored` is what parts have, `dictionary` what Parquet does by default. DuckDB 1.4 cannot read those with
`split_all`, which splits integers too. Synthetic floats have full mantissas, like those of a large model; a
small model's are near zero for most tokens and pack better.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.columns import Columns
from benchmarks.timing import interleave, print_report, spread, timed
from heal_core.store.parts import TOKEN_ARRAYS

_FLOATS, _INTEGERS = ("logprobs", "entropies"), ("token_ids", "token_starts")


def _leaf(column: str) -> str:
    return f"{column}.list.element"


def _encoded(**encodings: str) -> dict[str, Any]:
    return {
        "compression": "zstd",
        "use_dictionary": False,
        "column_encoding": {_leaf(column): encoding for column, encoding in encodings.items()},
    }


_SPLIT, _DELTA = "BYTE_STREAM_SPLIT", "DELTA_BINARY_PACKED"

ALTERNATIVES: dict[str, dict[str, Any]] = {
    "dictionary": {"compression": "zstd"},
    "plain": _encoded(),
    "stored": _encoded(**dict.fromkeys(_FLOATS, _SPLIT), token_starts=_DELTA),
    "split_floats": _encoded(**dict.fromkeys(_FLOATS, _SPLIT)),
    "split_all": _encoded(**dict.fromkeys((*_FLOATS, *_INTEGERS), _SPLIT)),
    "split_all_delta_starts": _encoded(**dict.fromkeys((*_FLOATS, "token_ids"), _SPLIT), token_starts=_DELTA),
    "split_floats_delta_integers": _encoded(**dict.fromkeys(_FLOATS, _SPLIT), **dict.fromkeys(_INTEGERS, _DELTA)),
    "split_all_level_9": {**_encoded(**dict.fromkeys((*_FLOATS, *_INTEGERS), _SPLIT)), "compression_level": 9},
}


def synthetic_arrays(num_trajectories: int, mean_tokens: float) -> pa.Table:
    """Return token arrays as a store of long texts has them."""
    columns = Columns(seed=0)
    num_tokens = columns.lengths(num_trajectories, mean_tokens)
    arrays = columns.token_arrays(num_tokens, np.asarray(3.5 * num_tokens, dtype=np.int32))
    return pa.table([arrays[name].cast(TOKEN_ARRAYS.field(name).type) for name in TOKEN_ARRAYS.names], TOKEN_ARRAYS)


def stored_arrays(workspace: Path) -> pa.Table:
    """Return the token arrays of all parts of a workspace."""
    paths = sorted((workspace / "parts" / "trajectories").glob("*.parquet"))
    if not paths:
        raise SystemExit(f"{workspace} holds no parts of trajectories")
    return pa.concat_tables([pq.read_table(path, columns=TOKEN_ARRAYS.names) for path in paths]).combine_chunks()


def measure(table: pa.Table, num_rounds: int) -> dict[str, Any]:
    """Return, per alternative, bytes per token (also by column) and seconds to write and to read."""
    num_tokens = sum(len(chunk.flatten()) for chunk in table["token_ids"].chunks)
    files = {name: _write(table, settings) for name, settings in ALTERNATIVES.items()}
    writing = interleave({name: _writer(table, settings) for name, settings in ALTERNATIVES.items()}, num_rounds)
    reading = interleave({name: _reader(data) for name, data in files.items()}, num_rounds)
    for name, data in files.items():
        if not pq.read_table(pa.BufferReader(data)).equals(table):
            raise SystemExit(f"{name} does not give the arrays back")
    return {
        "num_tokens": num_tokens,
        "alternatives": {
            name: {
                "bytes_per_token": round(data.size / num_tokens, 3),
                "by_column": _by_column(data, num_tokens),
                "write_seconds": spread(writing[name]),
                "read_seconds": spread(reading[name]),
            }
            for name, data in files.items()
        },
    }


def _write(table: pa.Table, settings: dict[str, Any]) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, **settings)
    return sink.getvalue()


def _writer(table: pa.Table, settings: dict[str, Any]) -> Callable[[], float]:
    return lambda: timed(lambda: _write(table, settings))


def _reader(data: pa.Buffer) -> Callable[[], float]:
    return lambda: timed(lambda: pq.read_table(pa.BufferReader(data)))


def _by_column(data: pa.Buffer, num_tokens: int) -> dict[str, float]:
    metadata = pq.read_metadata(pa.BufferReader(data))
    sizes = dict.fromkeys(TOKEN_ARRAYS.names, 0)
    for group in range(metadata.num_row_groups):
        for index, name in enumerate(sizes):
            sizes[name] += metadata.row_group(group).column(index).total_compressed_size
    return {name: round(size / num_tokens, 3) for name, size in sizes.items()}


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workspace", type=Path)
    parser.add_argument("--trajectories", type=int, default=10_000)
    parser.add_argument("--tokens", type=float, default=500.0)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    if asked.workspace:
        table = stored_arrays(asked.workspace)
    else:
        table = synthetic_arrays(asked.trajectories, asked.tokens)
    print_report("encodings", {"synthetic": asked.workspace is None, **measure(table, asked.rounds)})


if __name__ == "__main__":
    main()
