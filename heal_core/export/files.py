"""Files that are exported: written whole or not at all, and never over another one unasked.

What does not belong here: what is in a row (`examples`, `openr1`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from heal_core.errors import InputError
from heal_core.store.durable import write_atomically

SUFFIXES = (".jsonl", ".parquet")
_GROUP_ROWS = 1024
"""Rows of a Parquet file's group: what is held in memory at a time."""

MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))


def check_target(path: Path, force: bool, suffixes: tuple[str, ...] = SUFFIXES) -> None:
    """Check that a file may be written, before anything is read for it.

    Raises:
        InputError: If its ending is none of `suffixes`, it is a folder, or it exists and `force` is off.
    """
    if path.suffix not in suffixes:
        raise InputError(f"{path}: expected a file that ends in {' or '.join(suffixes)}.")
    if path.is_dir():
        raise InputError(f"{path} is a folder: give the name of a file.")
    if path.exists() and not force:
        raise InputError(f"{path} exists already: give another name, or --force to replace it.")


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]], columns: Mapping[str, pa.DataType]) -> int:
    """Write rows by the file's ending and return how many; an error of `rows` leaves what was there before.

    Args:
        columns: The columns and their types, in order; each row has them and no other.

    Raises:
        InputError: If the folder cannot be written.
        StoreError: If the disk is full.
    """
    schema = pa.schema(list(columns.items()))
    writer = _write_parquet if path.suffix == ".parquet" else _write_json_lines
    num_rows = 0

    def counted() -> Iterator[Mapping[str, Any]]:
        nonlocal num_rows
        for row in rows:
            num_rows += 1
            yield row

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, lambda temporary: writer(temporary, counted(), schema))
    except (PermissionError, NotADirectoryError, FileExistsError, FileNotFoundError) as error:
        where = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
        raise InputError(f"{path} cannot be written ({where}). Give a place in a folder of yours.") from error
    return num_rows


def _write_json_lines(path: Path, rows: Iterator[Mapping[str, Any]], schema: pa.Schema) -> None:
    with path.open("wb") as file:
        for row in rows:
            file.write(orjson.dumps({name: row[name] for name in schema.names}) + b"\n")


def _write_parquet(path: Path, rows: Iterator[Mapping[str, Any]], schema: pa.Schema) -> None:
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        while group := list(islice(rows, _GROUP_ROWS)):
            writer.write_table(pa.Table.from_pylist(group, schema=schema))
