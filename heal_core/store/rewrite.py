"""Replacing the database, or the parts themselves, by better ones with the same rows.

The new database is made beside the old one and takes its place by one rename, which also
retires the parts that were replaced; their files are removed once it has been published. A kill at any
moment leaves the old state or the new one. What does not belong here: what is garbage
(`garbage`), and what is wrong with a store (`check`).
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from heal_core.errors import StoreError
from heal_core.store import durable
from heal_core.store.database import discard, newest_schema, open_database, table_schemas
from heal_core.store.merge import merge_parts
from heal_core.store.parts import (
    Part,
    PartHeader,
    check_digest,
    in_order,
    list_parts,
    num_bytes,
    read_header,
    write_part,
)
from heal_core.store.store import Store
from heal_core.store.students import link_newest
from heal_core.store.workspace import Workspace

logger = logging.getLogger("heal")

JOINED_BYTES = 64 * 2**20
"""Parts below half of this are joined, up to about this size."""


@dataclass(frozen=True)
class Rewritten:
    """What became of the parts: how many there were and are, with their sizes on the disk."""

    parts_before: int
    parts_after: int
    bytes_before: int
    bytes_after: int
    rows_dropped: int


def rebuild(workspace: Workspace, set_damaged_aside: bool = False) -> list[Part]:
    """Make the database anew from the parts, and publish it; return the damaged parts that were set aside.

    Args:
        workspace: Its lock is taken.
        set_damaged_aside: Move damaged parts to `damaged/` and go on without their rows.

    Raises:
        WorkspaceBusyError: If another process holds the workspace.
        StoreError: If a part is damaged and is not to be set aside; the old database stays then.
    """
    workspace.create()
    with workspace.lock():
        damaged = _set_aside(workspace) if set_damaged_aside else []
        _replace_database(workspace, list_parts(workspace.parts), [])
        with Store(workspace) as store:
            link_newest(store)
    return damaged


def rewrite(workspace: Workspace, garbage: Mapping[str, Collection[str]] | None = None) -> Rewritten:
    """Join small parts into larger ones, leaving out garbage; return what became of them.

    Args:
        workspace: Its lock is taken.
        garbage: By table, the content keys of rows to leave out.

    Raises:
        WorkspaceBusyError: If another process holds the workspace.
        StoreError: If a part is damaged or the disk is full; nothing is lost then.
    """
    with workspace.lock():
        with Store(workspace) as store:  # what is not merged so far, and the newest schema
            schemas = {table: store.part_schema(table) for table in store.tables}
        return rewrite_locked(workspace, schemas, garbage or {})


def rewrite_locked(
    workspace: Workspace, schemas: Mapping[str, pa.Schema], garbage: Mapping[str, Collection[str]]
) -> Rewritten:
    """Do what `rewrite` does, for a caller that holds the lock and has merged all parts.

    Args:
        workspace: Nothing else has its store open.
        schemas: By table, the columns of its parts.
        garbage: By table, the content keys of rows to leave out.
    """
    dropped = {table: set(keys) for table, keys in garbage.items() if keys}
    before = list_parts(workspace.parts)
    bytes_before = num_bytes(before)
    headers = {part: read_header(part) for part in before}
    rows_before = sum(header.num_rows for header in headers.values())
    replaced: list[Part] = []
    for group in _groups(headers):
        replaced += _rewrite_group(workspace, group, headers, schemas, dropped)
    after = [part for part in list_parts(workspace.parts) if part not in replaced]
    if replaced:
        _replace_database(workspace, after, replaced)
        Store(workspace).close()
    return Rewritten(
        len(before), len(after), bytes_before, num_bytes(after),
        rows_before - sum(read_header(part).num_rows for part in after),
    )  # fmt: skip


def _replace_database(workspace: Workspace, parts: Sequence[Part], retired: Sequence[Part]) -> None:
    """Make a database from `parts` that retires others, and put it in the place of the old one."""
    fresh = workspace.writer_database.with_name("rebuild.duckdb")
    discard(fresh)
    connection = open_database(fresh)
    try:
        merge_parts(connection, table_schemas(connection), parts)
        names = pa.table(
            {
                "part_name": pa.array([part.part_name for part in retired], pa.string()),
                "table_name": pa.array([part.table_name for part in retired], pa.string()),
            }
        )
        connection.register("replaced", names)
        connection.execute("INSERT INTO retired_parts FROM replaced")
        connection.unregister("replaced")
        connection.execute("CHECKPOINT")
    except BaseException:
        connection.close()
        discard(fresh)
        raise
    connection.close()
    durable.sync_file(fresh)
    discard(workspace.writer_database, only_log=True)  # it would be replayed into the new file
    durable.replace_file(fresh, workspace.writer_database)


def _groups(headers: Mapping[Part, PartHeader]) -> Iterator[list[Part]]:
    """Yield the parts that may become one: neighbours of one table that are small; a large one is alone."""
    by_table: dict[str, list[Part]] = {}
    for part in in_order(dict(headers)):
        by_table.setdefault(part.table_name, []).append(part)
    for parts in by_table.values():
        group: list[Part] = []
        for part in parts:
            size = num_bytes([part])
            if group and (size > JOINED_BYTES // 2 or num_bytes(group) + size > JOINED_BYTES):
                yield group
                group = []
            group.append(part)
            if size > JOINED_BYTES // 2:
                yield group
                group = []
        if group:
            yield group


def _rewrite_group(
    workspace: Workspace,
    group: Sequence[Part],
    headers: Mapping[Part, PartHeader],
    schemas: Mapping[str, pa.Schema],
    dropped: Mapping[str, set[str]],
) -> list[Part]:
    """Write the rows of a group as one part, unless that changes nothing; return the parts it replaces."""
    table = group[0].table_name
    garbage = dropped.get(table, set())
    if len(group) == 1 and not garbage:
        return []
    rows = _read_rows(group, schemas[table], garbage)
    if len(group) == 1 and rows.num_rows == headers[group[0]].num_rows:
        return []
    if rows.num_rows:
        last = headers[group[-1]].sequence or 0
        kept = write_part(workspace.parts, table, rows, last, newest_schema())
        return [part for part in group if part != kept]
    return list(group)


def _read_rows(group: Sequence[Part], schema: pa.Schema, garbage: set[str]) -> pa.Table:
    """Return the rows of verified parts, the first of each key, without garbage; what old parts lack is null."""
    key = schema.names[0]
    seen = set(garbage)
    tables = []
    for part in group:
        check_digest(part)
        table = pq.ParquetFile(part.path).read()
        keys = table[key].to_pylist()
        fresh = [value not in seen for value in keys]
        seen.update(keys)
        rows = table if all(fresh) else table.filter(pa.array(fresh, pa.bool_()))
        tables.append(_fit(rows, schema))
    return pa.concat_tables(tables)


def _fit(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    columns = [
        rows[field.name].cast(field.type) if field.name in rows.column_names else pa.nulls(rows.num_rows, field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)


def _set_aside(workspace: Workspace) -> list[Part]:
    """Move damaged parts to `damaged/TABLE/`; return where they were."""
    damaged = []
    for part in list_parts(workspace.parts):
        try:
            check_digest(part)
        except StoreError as error:
            target = workspace.root / "damaged" / part.table_name
            target.mkdir(parents=True, exist_ok=True)
            part.path.replace(target / part.path.name)
            logger.warning("set aside to %s: %s", target, error)
            damaged.append(part)
    return damaged
