"""Parquet: numbers by their shortest digits, nulls, nested values; damaged files are errors."""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from heal_core.errors import InputError
from heal_core.sources.row import Number, SourceRow

Read = Callable[..., list[SourceRow]]
Contents = Callable[..., list[Any]]


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (pa.array([0.1, 2.0, 1e20, None, math.nan], pa.float32()), ["0.1", "2", "100000000000000000000", None, None]),
        (pa.array([0.1, 2.0, 1e-7, None, math.nan]), ["0.1", "2", "0.0000001", None, None]),
        (pa.array([1, None, 2**62]), ["1", None, str(2**62)]),
        (pa.array([2**64 - 1], pa.uint64()), [str(2**64 - 1)]),
        (pa.array([Decimal("1.50")]), ["1.50"]),
    ],
)
def test_a_number_is_the_text_that_gives_it_back(
    tmp_path: Path, contents: Contents, array: pa.Array, expected: list[str | None]
) -> None:
    pq.write_table(pa.table({"answer": array}), tmp_path / "p.parquet")
    values = [row["answer"] for row in contents(path=str(tmp_path / "p.parquet"))]
    assert values == expected
    assert all(isinstance(value, Number) for value in values if value is not None)


def test_other_values_stay_what_they_are(tmp_path: Path, contents: Contents) -> None:
    row = {"problem": "a?", "flag": True, "tags": ["x"], "meta": {"n": 1}, "day": datetime.date(2026, 1, 2)}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "p.parquet")
    assert contents(path=str(tmp_path / "p.parquet")) == [row]


def test_rows_are_numbered_across_batches_and_row_groups(tmp_path: Path, read: Read) -> None:
    pq.write_table(pa.table({"answer": list(range(3000))}), tmp_path / "p.parquet", row_group_size=700)
    rows = read(path=str(tmp_path / "p.parquet"))
    assert [row.line for row in rows] == list(range(1, 3001))
    assert [row.content["answer"] for row in rows] == [str(k) for k in range(3000)]
    assert rows[1500].raw == '{"answer": "1500"}'


def test_a_file_without_rows_has_none(tmp_path: Path, read: Read) -> None:
    pq.write_table(pa.table({"answer": pa.array([], pa.string())}), tmp_path / "p.parquet")
    assert read(path=str(tmp_path / "p.parquet")) == []


@pytest.mark.parametrize("content", [b"", b"PAR1 but no more"])
def test_what_is_no_parquet_file_is_an_error(tmp_path: Path, read: Read, content: bytes) -> None:
    (tmp_path / "p.parquet").write_bytes(content)
    with pytest.raises(InputError, match=r"p\.parquet is no sound Parquet file"):
        read(path=str(tmp_path / "p.parquet"))


def test_a_column_that_is_there_twice_is_an_error(tmp_path: Path, read: Read) -> None:
    pq.write_table(pa.table([pa.array(["1"]), pa.array(["2"])], names=["a", "a"]), tmp_path / "p.parquet")
    with pytest.raises(InputError, match="has the column 'a' twice"):
        read(path=str(tmp_path / "p.parquet"))


@pytest.mark.parametrize("zone", [None, "UTC", "Europe/Zurich"])
def test_a_filter_compares_times(tmp_path: Path, contents: Contents, zone: str | None) -> None:
    times = pa.array([datetime.datetime(2025, 6, 1), None, datetime.datetime(2026, 6, 1)], pa.timestamp("us", zone))
    pq.write_table(pa.table({"day": times, "n": [0, 1, 2]}), tmp_path / "p.parquet")
    for condition, passed in (("day >= DATE '2026-01-01'", ["2"]), ("EXTRACT(YEAR FROM day) = 2025", ["0"])):
        assert [row["n"] for row in contents(path=str(tmp_path / "p.parquet"), filter=condition)] == passed
    assert len(contents(path=str(tmp_path / "p.parquet"), filter="day IS NOT NULL")) == 2
