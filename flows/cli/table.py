"""Rows as a person reads them: a table, or one row below the other where the columns do not fit."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, TextIO

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_NARROW_COLUMN = 24
"""A column may be folded to this width, in characters, and still be read."""


def print_rows(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Print rows that are dictionaries, in these columns."""
    print_table(columns, ([row[column] for column in columns] for row in rows), sys.stdout)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], stream: TextIO, limit: int | None = None) -> int:
    """Print at most `limit` rows and how many there are; return that number.

    On a terminal floats are rounded. Elsewhere the table is as wide as its rows.
    """
    console = Console(file=stream)
    remaining = iter(rows)
    shown = [[_cell(value, console.is_terminal) for value in row] for row in islice(remaining, limit)]
    if console.is_terminal and _needed_width(columns, shown) > console.width:
        _print_vertically(console, columns, shown)
    else:
        _print_horizontally(console, columns, shown)
    total = len(shown) + sum(1 for _ in remaining)
    count = f"{total:,} row{'' if total == 1 else 's'}"
    if total > len(shown):
        count = f"{len(shown):,} of {count}; --limit 0 shows all"
    console.print(count, style="dim", highlight=False, soft_wrap=True)
    return total


def _print_horizontally(console: Console, columns: Sequence[str], rows: list[list[str]]) -> None:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in columns:
        table.add_column(Text(column), overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    if not console.is_terminal:
        # a pipe or a file has no width to keep to, and a folded id cannot be copied
        console.width = 1_000_000
        console.width = Measurement.get(console, console.options, table).maximum
    console.print(table, markup=False)


def _print_vertically(console: Console, columns: Sequence[str], rows: list[list[str]]) -> None:
    for number, row in enumerate(rows, 1):
        console.rule(f"row {number}", align="left", style="dim")
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(no_wrap=True, style="bold")
        table.add_column(overflow="fold")
        for column, cell in zip(columns, row, strict=True):
            table.add_row(Text(column), Text(cell))
        console.print(table)


def _needed_width(columns: Sequence[str], rows: list[list[str]]) -> int:
    """Return the width, in characters, below which columns become unreadable."""
    widths = [
        max(len(column), *(len(line) for row in rows for line in row[position].split("\n")), 0)
        for position, column in enumerate(columns)
    ]
    return sum(min(width, _NARROW_COLUMN) + 2 for width in widths)


def _cell(value: Any, rounded: bool) -> str:
    if value is None:
        return ""
    if rounded and isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 10_000 else f"{value:.0f}"
    # model text must not steer the terminal
    return _CONTROL.sub(lambda match: repr(match.group())[1:-1], str(value))
