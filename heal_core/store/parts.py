"""Parts: immutable Parquet files named by the SHA-256 of their bytes.

A row exists once its part has its name; the database is only an index over parts. A part
carries its number in the order of writing and the schema it was written under, so that
neither clocks nor copied file times decide anything.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from heal_core.errors import StoreError
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

ENTROPY_RADII = pa.field("entropy_radii", pa.list_(pa.float32()))
"""A further one: null where entropies are exact. Parts from before schema 0008 lack it."""

_ENCODINGS = {
    "token_ids": "PLAIN",
    "logprobs": "BYTE_STREAM_SPLIT",
    "entropies": "BYTE_STREAM_SPLIT",
    "token_starts": "DELTA_BINARY_PACKED",
    "entropy_radii": "BYTE_STREAM_SPLIT",
}
"""How token arrays are written: on full mantissas the smallest that DuckDB 1.4 reads (docs/benchmarks.md)."""

_SEQUENCE, _SCHEMA = b"heal.sequence", b"heal.schema"


@dataclass(frozen=True)
class Part:
    """One file of rows for one table."""

    table_name: str
    part_name: str
    path: Path


@dataclass(frozen=True)
class PartHeader:
    """What a part says of itself.

    Attributes:
        sequence: Its number in the order of writing; None before schema 0002.
        schema: The last migration that its writer knew; None before schema 0002.
        columns: Its column names.
        num_rows: Its rows.
    """

    sequence: int | None
    schema: str | None
    columns: tuple[str, ...]
    num_rows: int


def write_part(folder: Path, table_name: str, rows: pa.Table, sequence: int, schema: str) -> Part:
    """Write rows durably as a part; the same arguments again give the same file."""
    target = folder / table_name
    if not target.is_dir():
        target.mkdir(exist_ok=True)
        durable.sync_file(folder)
    sink = pa.BufferOutputStream()
    said = {_SEQUENCE: str(sequence), _SCHEMA: schema}
    encodings = {f"{name}.list.element": how for name, how in _ENCODINGS.items() if name in rows.column_names}
    pq.write_table(
        rows.replace_schema_metadata(said),
        sink,
        compression="zstd",
        use_dictionary=[name for name in rows.column_names if name not in _ENCODINGS],
        column_encoding=encodings,
    )
    data = sink.getvalue()
    part = part_of(target / f"{hashlib.sha256(data).hexdigest()}.parquet")
    if not part.path.exists():
        durable.write_atomically(part.path, lambda temporary: temporary.write_bytes(data))
    return part


def part_of(path: Path) -> Part:
    """Return the part that a file is, by its place and name."""
    return Part(table_name=path.parent.name, part_name=path.stem, path=path)


def list_parts(folder: Path) -> list[Part]:
    """Return all parts of a workspace, by table and name."""
    return [part_of(path) for path in sorted(folder.glob("*/*.parquet"))]


def read_header(part: Part) -> PartHeader:
    """Return what a part says of itself.

    Raises:
        StoreError: If the file is not Parquet.
    """
    try:
        metadata = pq.read_metadata(part.path)
    except (pa.ArrowException, OSError) as error:
        raise damaged(part, f"it cannot be read as Parquet ({error})") from error
    said = metadata.metadata or {}
    return PartHeader(
        sequence=int(said[_SEQUENCE]) if _SEQUENCE in said else None,
        schema=said[_SCHEMA].decode() if _SCHEMA in said else None,
        columns=tuple(metadata.schema.to_arrow_schema().names),
        num_rows=metadata.num_rows,
    )


def in_order(headers: dict[Part, PartHeader]) -> list[Part]:
    """Return parts in the order of writing: those without a number first, by file time.

    A rebuilt index then prefers the same row among several with one key, and gives rows
    the same order.
    """

    def place(part: Part) -> tuple[int, int, str]:
        sequence = headers[part].sequence
        if sequence is None:
            return (-1, part.path.stat().st_mtime_ns, part.part_name)
        return (sequence, 0, part.part_name)

    return sorted(headers, key=place)


def check_digest(part: Part) -> None:
    """Compare a part's bytes with its name.

    Raises:
        StoreError: If they are not those that the name promises, or cannot be read.
    """
    try:
        with part.path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise damaged(part, f"it cannot be read ({error.strerror})") from error
    if digest != part.part_name:
        raise damaged(part, "its bytes do not match its name")


def damaged(part: Part, why: str) -> StoreError:
    """Return the error for a part that cannot be trusted, with the remedy."""
    return StoreError(
        f"part {part.path} is damaged: {why}. Restore it from a backup; or move it out of `parts/` and run "
        "`heal store rebuild`: its rows are then made again by the runs that need them."
    )


def num_bytes(parts: Iterable[Part]) -> int:
    """Return the size of parts on the disk."""
    return sum(part.path.stat().st_size for part in parts)
