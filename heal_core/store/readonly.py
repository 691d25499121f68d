"""What a session of SQL refuses, beyond what DuckDB refuses on a database attached read-only.

No session may ATTACH the run's own database, nor the store for writing. In a read-only one,
files may be read, but none may be written: a folder that DuckDB may read from it may also
write to, so that its own settings cannot tell the two apart. Each statement is therefore
judged before it runs. Temporary tables, views and macros are in memory, and are allowed.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import duckdb

from heal_core.errors import InputError
from heal_core.store.sqltext import blank_literals
from heal_core.store.workspace import Workspace

_READING = {"SELECT", "MULTI", "EXPLAIN", "SET", "VARIABLE_SET", "TRANSACTION", "DETACH", "PRAGMA"}
_IN_MEMORY = {"CREATE", "ALTER", "DROP", "INSERT", "UPDATE", "DELETE", "MERGE_INTO"}
"""Allowed because every database is attached read-only: DuckDB lets them at temporary tables alone."""

_PRAGMAS = re.compile(
    r"\s*PRAGMA\s+(collations|database_list|database_size|functions|metadata_info|platform|show|show_tables"
    r"|show_tables_expanded|storage_info|table_info|user_agent|version)\b",
    re.IGNORECASE,
)
_EXPLAIN = re.compile(r"\s*EXPLAIN\b\s*(ANALYZE\b\s*)?(\([^)]*\)\s*)?", re.IGNORECASE)
_ATTACH = re.compile(
    r"ATTACH\s+(?:IF\s+NOT\s+EXISTS\s+)?"
    # a prefix names another way to open the file; a backslash is a slash to DuckDB
    r"'(?P<file>(?:(?!\w+:)|(?=https?://|s3://))(?:[^'\\\0]|'')+)'"
    r"(?:\s*AS\s+\w+)?(?:\s*\(\s*(?P<options>.*?)\s*\))?"
    r"\s*(?:;.*)?",  # a statement ends with its first semicolon
    re.IGNORECASE | re.DOTALL | re.ASCII,
)
_PLAN = "EXPLAIN (FORMAT json)\n"
_LINE = re.compile(r"LINE (?P<number>\d+):")

_SETTINGS = {
    # what a query may need; the others stay as they are, since some name files to write
    "allowed_configs": [
        "threads", "worker_threads", "memory_limit", "max_memory", "timezone", "search_path", "schema",
        "default_order", "default_null_order", "null_order", "preserve_insertion_order",
    ],
    "allow_persistent_secrets": False,
    "autoinstall_known_extensions": False,
    "lock_configuration": True,
}  # fmt: skip
"""In the order in which they are set."""


def lock_settings(connection: duckdb.DuckDBPyConnection) -> None:
    """Let a session change no setting by which DuckDB would write or load anything."""
    for name, value in _SETTINGS.items():
        connection.execute(f"SET {name} = $value", {"value": value})


def refuse_attaching(connection: duckdb.DuckDBPyConnection, text: str, workspace: Workspace, write: bool) -> None:
    """Refuse an ATTACH of the run's own database, one for writing where nothing may be written, or an unclear one.

    Args:
        connection: Where it would run.
        text: One statement.
        workspace: Whose store the session queries.
        write: Whether the session may write.

    Raises:
        InputError: If it is refused.
    """
    match = _ATTACH.fullmatch(text)
    read_only = match is not None and (match["options"] or "").upper() == "READ_ONLY"
    if match is None or not (read_only or write):
        form = "ATTACH 'file' AS name (options)" if write else "ATTACH 'file' AS name (READ_ONLY)"
        more = "" if write else " `heal sql --write` takes other options."
        raise InputError(
            f"the query was refused: a database is attached as {form}, with a plain path and no comments.{more}"
        )
    file = _resolve(connection, match["file"].replace("''", "'"))
    if _are_same(file, workspace.writer_database):
        raise InputError(f"the query was refused: {file} is the run's own. Query its published copy, heal.")
    if _are_same(file, workspace.database) and not read_only:
        raise InputError(f"the query was refused: {file} is the store, which is read-only. Query it as heal.")


def _resolve(connection: duckdb.DuckDBPyConnection, path: str) -> str:
    """Return the file that DuckDB opens for a path."""
    if path.startswith("~"):
        ((home,),) = connection.execute("SELECT current_setting('home_directory')").fetchall()
        path = (home or os.environ.get("HOME", "")) + path[1:]
    return os.path.realpath(os.path.abspath(path))  # DuckDB drops `..` before it follows links


def _are_same(file: str, own: Path) -> bool:
    return file == os.path.realpath(own) or (os.path.exists(file) and own.exists() and os.path.samefile(file, own))


def refuse_writing(connection: duckdb.DuckDBPyConnection, text: str, kind: str, values: Mapping[str, Any]) -> None:
    """Refuse a statement that would write a file, a setting of the user's DuckDB, or another database.

    Args:
        connection: Where it would run.
        text: One statement.
        kind: DuckDB's type of it.
        values: Its parameters.

    Raises:
        InputError: If it would.
    """
    if what := _what_writes(connection, text, kind, values):
        raise InputError(f"the query was refused: {what}, and the session is read-only. `heal sql --write` allows it.")


def _what_writes(connection: duckdb.DuckDBPyConnection, text: str, kind: str, values: Mapping[str, Any]) -> str | None:
    if kind not in _READING | _IN_MEMORY:
        return f"a statement of type {kind} may write"
    if kind == "PRAGMA" and not _PRAGMAS.match(blank_literals(text)):
        return "this PRAGMA may write"
    if kind == "EXPLAIN":  # with ANALYZE it runs the statement
        return _what_explained_writes(connection, text, values)
    # a COPY may also be the body of a WITH; DuckDB allows that at the top of a statement only
    if not re.search(r"\bCOPY\b", text, re.IGNORECASE):
        return None
    if kind == "MULTI":  # already asking for its plan runs a part of it
        return "a PIVOT with the word COPY may write a file"
    return "COPY ... TO writes a file" if _copies(connection, text, values) else None


def _what_explained_writes(connection: duckdb.DuckDBPyConnection, text: str, values: Mapping[str, Any]) -> str | None:
    statements = connection.extract_statements(_EXPLAIN.sub("", text, count=1))
    for statement in statements:
        if what := _what_writes(connection, statement.query, statement_kind(statement), values):
            return what
    return None


def statement_kind(statement: Any) -> str:
    """Return DuckDB's name of a statement's type; `UNKNOWN` for one that its Python package does not know."""
    try:
        return str(statement.type.name)
    except ValueError:
        return "UNKNOWN"


def _copies(connection: duckdb.DuckDBPyConnection, text: str, values: Mapping[str, Any]) -> bool:
    try:
        plans = connection.execute(_PLAN + text, dict(values)).fetchall()
    except duckdb.Error as error:
        raise InputError(f"the query was refused: {_LINE.sub(_earlier, str(error))}") from error
    return any("COPY" in name for _, plan in plans for root in json.loads(plan) for name in _operators(root))


def _earlier(line: re.Match[str]) -> str:
    return f"LINE {int(line['number']) - 1}:"


def _operators(node: dict[str, Any]) -> Iterator[str]:
    yield node["name"]
    for child in node.get("children", ()):
        yield from _operators(child)
