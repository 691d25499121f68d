"""Which rows of a source pass a condition in SQL, as polars understands it.

A row's own values decide, and nothing else: rows whose columns have the same types go through
together, so that neither the order nor other rows change what a condition says of a row. A
column that a row lacks is null. Lists and objects are their JSON text. A row for which the
condition has no meaning, such as text against a number, is refused with the reason.
"""

from __future__ import annotations

import datetime
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import polars as pl
from polars.exceptions import PolarsError

from heal_core.errors import InputError
from heal_core.sources.row import Number, Refusal, SourceRow, number_of

BATCH_ROWS = 1024
_LOOKS_AT_OTHER_ROWS = {"Agg", "Over", "Window", "Rolling", "Len"}
_ROW, _PASSED = "\0row", "\0passed"  # no source has columns of these names
_TYPES: dict[type, Any] = {
    bool: pl.Boolean,
    int: pl.Int64,
    float: pl.Float64,
    str: pl.String,
    datetime.date: pl.Date,
    datetime.datetime: pl.Datetime,
}


@dataclass
class Filter:
    """A condition, and which of its columns have been met."""

    sql: str
    expression: pl.Expr
    columns: tuple[str, ...]
    types: dict[str, type] = field(default_factory=dict)
    missing: set[str] = field(default_factory=set)

    def judge(self, rows: Iterable[SourceRow]) -> Iterator[tuple[SourceRow, bool]]:
        """Yield each row with whether it passes; a refused one passes, with its reason.

        Raises:
            InputError: If the condition has a meaning for none of the first rows.
        """
        rows = iter(rows)
        suits_any = False
        while batch := list(islice(rows, BATCH_ROWS)):
            verdicts = self._judge_batch(batch)
            refused = [verdict for verdict in verdicts if isinstance(verdict, Refusal)]
            suits_any = suits_any or any(isinstance(verdict, bool) for verdict in verdicts)
            if refused and not suits_any:
                raise InputError(
                    f"the filter {self.sql!r} of {batch[0].place} suits none of its rows: "
                    f"{refused[0].reason}. In CSV all cells are text: write TRY_CAST(column AS DOUBLE) to compare "
                    "one as a number."
                )
            for row, verdict in zip(batch, verdicts, strict=True):
                if isinstance(verdict, Refusal):
                    yield replace(row, content=verdict), True
                else:
                    yield row, verdict is not False

    def _judge_batch(self, batch: Sequence[SourceRow]) -> list[bool | Refusal | None]:
        """Return what the condition says of each row; None for one that could not be read."""
        verdicts: list[bool | Refusal | None] = [None] * len(batch)
        values: dict[int, dict[str, Any]] = {}
        for index, row in enumerate(batch):
            if not isinstance(row.content, Refusal):
                values[index] = {column: _comparable(row.content.get(column)) for column in self.columns}
                self.missing.difference_update(row.content)
                for column, value in values[index].items():
                    if value is not None:
                        self.types.setdefault(column, type(value))
        groups: dict[tuple[type, ...], list[int]] = defaultdict(list)
        for index, cells in values.items():
            # a null is of the type that the column has elsewhere: it fits no function of text otherwise
            key = tuple(type(c) if c is not None else self.types.get(name, type(None)) for name, c in cells.items())
            groups[key].append(index)
        for types, members in groups.items():
            for index, verdict in zip(members, self._judge_group(types, [values[i] for i in members]), strict=True):
                verdicts[index] = verdict
        return verdicts

    def _judge_group(self, types: tuple[type, ...], rows: Sequence[Mapping[str, Any]]) -> list[bool | Refusal]:
        """Return the verdicts on rows of the same types, halving them to find those that cannot be judged."""
        fault: PolarsError | None = None
        # of a column that has been null so far any type may be meant: LIKE takes text only, ABS a number
        for unknown in (pl.Null, pl.String, pl.Float64) if type(None) in types else (pl.Null,):
            try:
                passed = self._evaluate(types, rows, unknown)
                break
            except PolarsError as error:
                fault = fault or error
        else:
            if len(rows) == 1:
                return [Refusal(f"filter_failed: {str(fault).splitlines()[0]}")]
            middle = len(rows) // 2
            return [*self._judge_group(types, rows[:middle]), *self._judge_group(types, rows[middle:])]
        if passed.dtype not in (pl.Boolean, pl.Null):
            raise InputError(f"the filter {self.sql!r} gives {passed.dtype}, expected a condition, such as level >= 3.")
        return [value is True for value in passed.to_list()]

    def _evaluate(self, types: tuple[type, ...], rows: Sequence[Mapping[str, Any]], unknown: Any) -> pl.Series:
        """Return the condition's values; `unknown` is the type of columns that are null."""
        dtypes = {**_TYPES, type(None): unknown}  # any other one is as polars takes it
        columns = {
            name: pl.Series([row[name] for row in rows], dtype=dtypes.get(kind))
            for name, kind in zip(self.columns, types, strict=True)
        }
        # numbered, so that a condition without columns has a row to be true of
        frame = pl.DataFrame({_ROW: range(len(rows)), **columns})
        return frame.select(_ROW, self.expression.alias(_PASSED))[_PASSED]


def parse_filter(sql: str, label: str) -> Filter:
    """Return the condition.

    Raises:
        InputError: If it is not one, or looks at other rows than the one it judges.
    """
    expected = "Expected a condition on the source's columns, such as: level >= 3 AND subject = 'algebra'."
    try:
        expression = pl.sql_expr(sql)
        columns = tuple(dict.fromkeys(expression.meta.root_names()))
    except PolarsError as error:
        raise InputError(
            f"the filter {sql!r} of {label} is not SQL: {str(error).splitlines()[0]}. {expected}"
        ) from error
    if _names(json.loads(expression.meta.serialize(format="json"))) & _LOOKS_AT_OTHER_ROWS:
        raise InputError(
            f"the filter {sql!r} of {label} looks at more than one row, but judges one at a time. {expected}"
        )
    return Filter(sql, expression, columns, missing=set(columns))


def _names(tree: Any) -> set[str]:
    """Return the names of all operations of a serialised expression."""
    if isinstance(tree, str):
        return {tree}
    if isinstance(tree, list):
        return set().union(*map(_names, tree))
    if not isinstance(tree, dict):
        return set()
    below = [_names(value) for key, value in tree.items() if key not in ("Column", "Literal")]
    return set(tree).union(*below)


def _comparable(value: Any) -> Any:
    """Return the value as a condition sees it: a number, text, a truth value, a date, a time in UTC or null."""
    if isinstance(value, datetime.datetime) and value.tzinfo is not None:
        return value.astimezone(datetime.UTC).replace(tzinfo=None)
    if value is None or isinstance(value, (bool, datetime.date)):
        return value
    if isinstance(value, Number):
        return number_of(value)
    if isinstance(value, str):  # polars takes no half of a surrogate pair
        return value if value.isascii() else value.encode(errors="replace").decode()
    return json.dumps(value, ensure_ascii=False, default=str)
