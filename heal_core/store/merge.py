"""Merging parts into the index: verified, in the order of writing, each once.

Many parts go in one transaction with their ledger rows. What does not belong here: when
to merge (`store`), and what parts are (`parts`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pyarrow as pa

from heal_core.errors import StoreError
from heal_core.store import durable
from heal_core.store.database import Connection, is_damage, is_disk_full, newest_schema
from heal_core.store.parts import Part, PartHeader, check_digest, in_order, num_bytes, read_header
from heal_core.store.workspace import Workspace

_MAX_BATCH_PARTS = 256
_MAX_BATCH_BYTES = 256 * 2**20


def merge_parts(connection: Connection, schemas: Mapping[str, pa.Schema], parts: Sequence[Part]) -> int:
    """Insert the rows of parts that the ledger lacks, and note them there; return how many rows were new.

    Raises:
        StoreError: If a part is damaged, is of a newer HEAL, or the database refuses it.
    """
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        headers = dict(zip(parts, threads.map(read_header, parts), strict=True))
        for part in parts:
            _check_columns(part, headers[part], schemas)
        num_new = 0
        for batch in _batches(in_order(headers)):
            list(threads.map(check_digest, batch))
            num_new += merge_batch(connection, schemas, {part: headers[part] for part in batch})
    return num_new


def merge_batch(connection: Connection, schemas: Mapping[str, pa.Schema], batch: Mapping[Part, PartHeader]) -> int:
    """Insert verified parts of one table in one transaction; return how many rows were new.

    A row whose content key is known, from the database or from an earlier part, is left out.
    """
    (table,) = {part.table_name for part in batch}
    connection.execute("BEGIN")
    try:
        num_new = _insert(connection, table, schemas[table].names, batch)
        connection.execute("COMMIT")
    except BaseException as error:  # Ctrl-C too: the next statement must not find a transaction open
        _roll_back(connection)
        if not isinstance(error, duckdb.Error) or is_damage(error):
            raise
        if is_disk_full(error):
            raise durable.disk_full(Path("store/writer.duckdb")) from error
        if len(batch) > 1:  # one by one, to name the part at fault
            return sum(merge_batch(connection, schemas, {part: header}) for part, header in batch.items())
        (part,) = batch
        raise StoreError(
            f"part {part.path} cannot be merged: {error}. Move it out of `parts/`: its rows are then made again."
        ) from error
    return num_new


def remove_retired(connection: Connection, workspace: Workspace) -> None:
    """Remove the files of parts that were replaced; what a kill left of that is done by the next start."""
    retired = connection.execute("SELECT table_name, part_name FROM retired_parts").fetchall()
    for table, name in retired:
        (workspace.parts / table / f"{name}.parquet").unlink(missing_ok=True)
    if retired:
        connection.execute("DELETE FROM retired_parts")


def _insert(connection: Connection, table: str, names: Sequence[str], batch: Mapping[Part, PartHeader]) -> int:
    key = names[0]
    files = [str(part.path) for part in batch]
    held = {column for header in batch.values() for column in header.columns}
    columns = [name for name in names if name in held]
    source = "read_parquet(?, union_by_name = true, filename = true)"
    if table == "trajectories":
        columns.append("parse_filename(filename, true) AS part_name")
    known = f"SELECT 1 FROM {source} SEMI JOIN {table} USING ({key}) LIMIT 1"
    doubled = f"SELECT 1 FROM {source} GROUP BY {key} HAVING count(*) > 1 LIMIT 1"
    has_known = connection.execute(known, [files]).fetchone()
    if len(batch) > 1 and (has_known or connection.execute(doubled, [files]).fetchone()):
        return sum(_insert(connection, table, names, {part: header}) for part, header in batch.items())
    # a join may shuffle the rows of a batch, whose order says which verdict is the later one
    unless_known = f"ANTI JOIN {table} USING ({key})" if has_known else ""
    inserted = connection.execute(
        f"INSERT INTO {table} BY NAME SELECT {', '.join(columns)} FROM {source} {unless_known}", [files]
    ).fetchone()
    now = datetime.now(UTC)
    ledger = pa.table(
        {
            "part_name": [part.part_name for part in batch],
            "table_name": [table] * len(batch),
            "num_rows": [header.num_rows for header in batch.values()],
            "num_bytes": [num_bytes([part]) for part in batch],
            "merged_at": pa.array([now] * len(batch), pa.timestamp("us", "UTC")),
            "sequence": pa.array([header.sequence for header in batch.values()], pa.int64()),
        }
    )
    connection.register("new_ledger", ledger)
    try:
        connection.execute("INSERT INTO parts BY NAME FROM new_ledger")
    finally:
        connection.unregister("new_ledger")
    return int(inserted[0]) if inserted else 0


def _check_columns(part: Part, header: PartHeader, schemas: Mapping[str, pa.Schema]) -> None:
    if part.table_name not in schemas or (header.schema or "") > newest_schema():
        raise StoreError(
            f"part {part.path} was written by a newer HEAL (schema {header.schema or 'unknown'}, table "
            f"{part.table_name}; this one knows {newest_schema()}). Upgrade HEAL."
        )
    needed = {field.name for field in schemas[part.table_name] if not field.nullable} - {"part_name"}
    if lacking := sorted(needed - set(header.columns)):
        raise StoreError(
            f"part {part.path} cannot be merged: it lacks the columns {', '.join(lacking)} of the table "
            f"{part.table_name}. Is it in the wrong folder? Move it out of `parts/{part.table_name}/`."
        )


def _batches(parts: Sequence[Part]) -> Iterator[list[Part]]:
    """Yield parts of one table at a time, in their order, bounded in number and size."""
    waiting: dict[str, tuple[list[Part], int]] = {}
    for part in parts:
        batch, size = waiting.get(part.table_name, ([], 0))
        size += num_bytes([part])
        if batch and (len(batch) == _MAX_BATCH_PARTS or size > _MAX_BATCH_BYTES):
            yield batch
            batch, size = [], num_bytes([part])
        waiting[part.table_name] = ([*batch, part], size)
    for batch, _ in waiting.values():
        yield batch


def _roll_back(connection: Connection) -> None:
    # after a failed COMMIT there is no transaction left; the caller raises the first error
    with suppress(duckdb.Error):
        connection.execute("ROLLBACK")
