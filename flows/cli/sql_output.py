"""The result of a query in the format that was asked for, to a file or to the terminal or pipe.

A table is for people. JSON, CSV and Parquet are complete and are written as the rows come.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from flows.cli.table import print_table
from heal_core.errors import InputError
from heal_core.store.durable import write_atomically
from heal_core.store.plain import plain_row

if TYPE_CHECKING:
    from heal_core.store.query import Result, SqlSession, Statement

TERMINAL_ROWS = 40


class Format(StrEnum):
    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    PARQUET = "parquet"


@dataclass(frozen=True)
class Target:
    """Where results go: the format, the file (else standard output), how many rows a table shows (None: all)."""

    form: Format
    file: Path | None
    limit: int | None


def choose_target(form: Format | None, file: Path | None, limit: int | None) -> Target:
    """Return where results go; the format is that of the file's name if none is given.

    Raises:
        InputError: If the choices do not fit together.
    """
    if form is None:
        suffix = file.suffix.removeprefix(".").lower() if file else "txt"
        if suffix not in {*Format, "txt"}:
            raise InputError(f"the ending of {file} names no format: give .parquet, .csv, .json, .txt, or --format.")
        form = Format(suffix) if suffix in set(Format) else Format.TABLE
    if form is Format.PARQUET and file is None and sys.stdout.isatty():
        raise InputError("Parquet is not for reading on a terminal: give --output FILE, or pipe it.")
    if limit is not None and form is not Format.TABLE:
        raise InputError(f"--limit is for tables; {form} is always complete. Write LIMIT {limit} into the query.")
    if file is not None and not file.absolute().parent.is_dir():
        raise InputError(f"{file} cannot be written: there is no folder {file.absolute().parent}.")
    if file is not None and file.exists() and not file.is_file():
        raise InputError(f"{file} cannot be written: it is a folder or a device, not a file.")
    if limit is None and file is None and sys.stdout.isatty():
        limit = TERMINAL_ROWS
    return Target(form, file, limit or None)


def put_result(session: SqlSession, statement: Statement, values: Mapping[str, Any], target: Target) -> None:
    """Run a statement and write its result.

    Raises:
        InputError: If it is refused, or the file cannot be written.
    """
    if target.file is None:
        _put_on_stdout(session, statement, values, target)
        return
    try:
        write_atomically(target.file, lambda path: _put_in_file(session, statement, values, target, path))
    except OSError as error:
        raise InputError(f"{target.file} cannot be written: {error.strerror}.") from error


def _put_on_stdout(session: SqlSession, statement: Statement, values: Mapping[str, Any], target: Target) -> None:
    if target.form in (Format.CSV, Format.PARQUET):
        with _stdout_as_path() as path:
            session.copy(statement, values, path, target.form)
    else:
        _write_text(session.run(statement, values), sys.stdout, target)


def _put_in_file(
    session: SqlSession, statement: Statement, values: Mapping[str, Any], target: Target, path: Path
) -> None:
    path.touch()  # a folder that cannot be written is not the query's fault
    if target.form in (Format.CSV, Format.PARQUET):
        session.copy(statement, values, str(path), target.form)
        return
    result = session.run(statement, values)
    with path.open("w", encoding="utf-8") as stream:
        _write_text(result, stream, target)


def _write_text(result: Result, stream: TextIO, target: Target) -> None:
    if target.form is Format.JSON:
        _write_json(result, stream)
    elif result.columns:
        print_table(result.columns, result.rows, stream, target.limit)
    else:
        stream.write("done\n")
    stream.flush()


def _write_json(result: Result, stream: TextIO) -> None:
    """Write a list with an object per row and line."""
    names = _distinct(result.columns)
    opening = "[\n"
    for row in result.rows:
        values = dict(zip(names, plain_row(row, result.types), strict=True))
        stream.write(opening + json.dumps(values, ensure_ascii=False, allow_nan=False))
        opening = ",\n"
    stream.write("[]\n" if opening == "[\n" else "\n]\n")


def _distinct(columns: list[str]) -> list[str]:
    """Return names of which none comes twice, as DuckDB's own writers make them: a, a_1."""
    names: list[str] = []
    for column in columns:
        number, name = 0, column
        while name in names:
            number += 1
            name = f"{column}_{number}"
        names.append(name)
    return names


@contextmanager
def _stdout_as_path() -> Iterator[str]:
    """Give a path that DuckDB can write to; what it writes comes out on standard output.

    `/dev/stdout` itself would truncate a file that the shell appends to.

    Raises:
        BrokenPipeError: If nobody reads standard output any more.
    """
    reader, writer = os.pipe()
    failures: list[OSError] = []
    pump = threading.Thread(target=_pump, args=(reader, failures))
    pump.start()
    try:
        yield f"/dev/fd/{writer}"
    finally:
        os.close(writer)
        pump.join()
        if failures:
            raise failures[0]


def _pump(reader: int, failures: list[OSError]) -> None:
    sys.stdout.flush()
    with os.fdopen(reader, "rb", buffering=0) as source:
        try:
            while chunk := source.read(1 << 20):
                sys.stdout.buffer.write(chunk)
            sys.stdout.buffer.flush()
        except OSError as error:
            failures.append(error)
