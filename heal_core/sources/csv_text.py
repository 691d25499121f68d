"""CSV as rows: comma-separated, quoted with ", a header in the first row, UTF-8. All cells are text.

A quoted cell may hold commas and line breaks. An empty cell is null.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Any

from heal_core.errors import InputError
from heal_core.sources.files import SourceFile
from heal_core.sources.row import Refusal, SourceRow

MAX_CELL_CHARS = 16 * 2**20
"""Where a quote that is never closed stops swallowing the file."""


class _Lines:
    """The lines of a file, and those taken since they were last asked for."""

    def __init__(self, text: io.TextIOWrapper) -> None:
        self._text = text
        self._taken: list[str] = []

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = next(self._text)
        self._taken.append(line)
        return line

    def take(self) -> bytes:
        """Return the lines of the record just read, as they stand in the file."""
        written = "".join(self._taken).encode(errors="surrogateescape")
        self._taken.clear()
        return written


def read_csv(source: SourceFile) -> Iterator[SourceRow]:
    """Yield the records below the header; one that does not fit it with the reason.

    Raises:
        InputError: If the file cannot be read, or its header names a column twice.
    """
    csv.field_size_limit(MAX_CELL_CHARS)  # the default refuses a cell of 128 KiB: the tests of one code problem
    with source.open() as file:
        # undecodable bytes come through as lone surrogates, so that only their own row is lost
        text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
        lines = _Lines(text)
        records = csv.reader(lines, strict=True)
        header: list[str] | None = None
        last_line = 0
        while True:
            first_line = last_line + 1
            try:
                cells: list[str] | Refusal = next(records)
            except StopIteration:
                return
            except csv.Error as error:
                cells = Refusal(f"invalid_csv: {error}")
            last_line = records.line_num
            written = lines.take()
            if not isinstance(cells, Refusal) and not any(map(str.strip, cells)):
                continue
            if header is None:
                header = _header(source, cells)
                continue
            content = cells if isinstance(cells, Refusal) else _row(header, cells)
            yield SourceRow(source.place, first_line, source.name, content, written)


def _header(source: SourceFile, cells: list[str] | Refusal) -> list[str]:
    if isinstance(cells, Refusal):
        raise InputError(f"the header of {source.place} cannot be read: {cells.reason}. Expected names of columns.")
    names = [name.strip() for name in cells]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"{source.place} has the column {twice[0]!r} twice. Rename one of them.")
    return names


def _row(header: Sequence[str], cells: Sequence[str]) -> dict[str, Any] | Refusal:
    if len(cells) != len(header):
        return Refusal(f"invalid_csv: {len(cells)} cells under a header of {len(header)}")
    for name, cell in zip(header, cells, strict=True):
        bad = next((sign for sign in cell if 0xDC80 <= ord(sign) <= 0xDCFF), None)
        if bad is not None:
            return Refusal(f"undecodable: byte {ord(bad) - 0xDC00:#04x} in {name} is not UTF-8")
    return {name: cell or None for name, cell in zip(header, cells, strict=True)}
