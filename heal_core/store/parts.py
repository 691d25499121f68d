"""Parts: immutable Parquet files named by the SHA-256 of their bytes.

A row exists once its part has its name; the database is only an index over parts.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from heal_core.store import durable

TOKEN_ARRAYS = pa.schema(
    [
        pa.field("token_ids", pa.list_(pa.int32()), nullable=False),
        pa.field("logprobs", pa.list_(pa.float32()), nullable=False),
        pa.field("entropies", pa.list_(pa.float32()), nullable=False),
        pa.field("token_starts", pa.list_(pa.int32()), nullable=False),
    ]
)
"""Columns of trajectory parts that stay out of the database, aligned, one entry per sampled token."""


@dataclass(frozen=True)
class Part:
    """One file of rows for one table."""

    table_name: str
    part_name: str
    path: Path


def write_part(folder: Path, table_name: str, rows: pa.Table) -> Part:
    """Write rows durably as a part; writing the same rows again gives the same file."""
    target = folder / table_name
    if not target.is_dir():
        target.mkdir(exist_ok=True)
        durable.sync_file(folder)
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink, compression="zstd")
    data = sink.getvalue().to_pybytes()
    part = part_of(target / f"{hashlib.sha256(data).hexdigest()}.parquet")
    if not part.path.exists():
        durable.write_atomically(part.path, lambda temporary: temporary.write_bytes(data))
    return part


def part_of(path: Path) -> Part:
    """Return the part that a file is, by its place and name."""
    return Part(table_name=path.parent.name, part_name=path.stem, path=path)


def list_parts(folder: Path) -> list[Part]:
    """Return all parts of a workspace, in the order of writing.

    A rebuilt index then prefers the same row among several with one key, and the same
    verdict as the latest one.
    """
    files = sorted(folder.glob("*/*.parquet"), key=lambda path: (path.stat().st_mtime_ns, path))
    return [part_of(path) for path in files]


def is_intact(part: Part) -> bool:
    """Return whether the bytes still are those that the name promises."""
    return hashlib.sha256(part.path.read_bytes()).hexdigest() == part.part_name
