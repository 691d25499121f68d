"""Conditions in SQL: a row's own values decide, and what cannot be judged is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from heal_core.errors import InputError
from heal_core.sources.config import SourceConfig
from heal_core.sources.filter import BATCH_ROWS
from heal_core.sources.read import Tally, read_source
from heal_core.sources.row import Refusal

Keep = Callable[[str, list[dict[str, Any]]], list[Any]]


@pytest.fixture
def keep(tmp_path: Path, contents: Callable[..., list[Any]]) -> Keep:
    """Return a function from a condition and rows of JSON Lines to the ids that pass, or the reasons."""

    def ids(sql: str, rows: list[dict[str, Any]]) -> list[Any]:
        path = tmp_path / "p.jsonl"
        path.write_text("".join(json.dumps({"id": index, **row}) + "\n" for index, row in enumerate(rows)))
        return [row if isinstance(row, str) else int(row["id"]) for row in contents(path=str(path), filter=sql)]

    return ids


LEVELS = [{"level": 10, "subject": "algebra"}, {"level": 9}, {"level": 2.5, "subject": "Algebra II"}, {"level": None}]


@pytest.mark.parametrize(
    ("sql", "passed"),
    [
        ("level >= 9", [0, 1]),  # as numbers: "10" is before "9" as text
        ("level > 2.4 AND level < 10", [1, 2]),
        ("subject = 'algebra'", [0]),
        ("subject LIKE 'Alg%' OR level IN (9, 10)", [0, 1, 2]),
        ("level IS NULL", [3]),
        ("subject IS NOT NULL", [0, 2]),
        ("NOT (level > 9)", [1, 2]),  # null is neither true nor false
        ("LENGTH(subject) > 7", [2]),
        ("1 = 1", [0, 1, 2, 3]),
    ],
)
def test_rows_that_pass_are_kept_in_their_order(keep: Keep, sql: str, passed: list[int]) -> None:
    assert keep(sql, LEVELS) == passed


@pytest.mark.parametrize(
    ("sql", "late"), [("subject LIKE 'alg%'", "algebra"), ("LENGTH(subject) > 3", "algebra"), ("ABS(subject) > 3", -4)]
)
def test_a_column_that_is_null_for_long_is_of_the_type_that_the_condition_takes(
    keep: Keep, sql: str, late: Any
) -> None:
    rows: list[dict[str, Any]] = [{"subject": None}] * (BATCH_ROWS + 10)
    assert keep(sql, [*rows, {"subject": late}]) == [len(rows)]


def test_lists_and_objects_are_their_json(keep: Keep) -> None:
    assert keep("tags LIKE '%\"geometry\"%'", [{"tags": ["geometry", "x"]}, {"tags": []}, {}]) == [0]


def test_half_of_a_surrogate_pair_in_a_compared_column_is_no_crash(keep: Keep) -> None:
    assert keep("subject = 'x'", [{"subject": "\ud800"}, {"subject": "x"}]) == [1]


def test_a_column_that_comes_only_in_later_batches_is_null_before(keep: Keep) -> None:
    rows: list[dict[str, Any]] = [{} for _ in range(BATCH_ROWS + 5)]
    rows[BATCH_ROWS + 2]["level"] = 3
    assert keep("level >= 3", rows) == [BATCH_ROWS + 2]


def test_a_row_that_cannot_be_judged_is_refused_alone(keep: Keep) -> None:
    rows = [{"level": 3}, {"level": "three"}, {"level": 1}, {"level": 4}]
    assert keep("level >= 3", rows) == [0, "filter_failed: cannot compare string with numeric type (i32)", 3]


def test_a_cast_that_fails_spares_the_other_rows(keep: Keep) -> None:
    rows = [{"level": str(k)} for k in range(100)]
    rows[41]["level"] = rows[97]["level"] = "many"
    passed = keep("CAST(level AS INT) >= 40", rows)
    assert [item for item in passed if isinstance(item, int)] == [k for k in range(40, 100) if k not in (41, 97)]
    assert [item for item in passed if isinstance(item, str)] == [
        """filter_failed: conversion from `str` to `i32` failed in column 'level' for 1 out of 1 values: ["many"]"""
    ] * 2


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("level >=", "is not SQL"),
        ("", "is not SQL"),
        ("level > 1; DROP TABLE runs", "is not SQL"),
        ("level > (SELECT 1)", "looks at more than one row"),
        ("level", "gives Int64, expected a condition"),
        ("level > AVG(level)", "looks at more than one row"),
        ("COUNT(*) > 1", "looks at more than one row"),
        ("ROW_NUMBER() OVER (ORDER BY level) > 1", "looks at more than one row"),
        ("levle > 1", "names levle, which no row has. Expected columns of answer, level, problem"),
        ("problem > 1", "suits none of its rows: filter_failed: cannot compare string.*TRY_CAST"),
    ],
)
def test_a_condition_that_cannot_be_meant_is_an_error(
    tmp_path: Path, contents: Callable[..., list[Any]], sql: str, said: str
) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text('{"problem": "a?", "answer": 1, "level": 1}\n' * 3)
    with pytest.raises(InputError, match=said):
        contents(path=str(path), filter=sql)


def test_csv_compares_numbers_after_a_cast(tmp_path: Path, contents: Callable[..., list[Any]]) -> None:
    (tmp_path / "p.csv").write_text("problem,level\na?,10\nb?,9\nc?,\nd?,none\n")
    passed = contents(path=str(tmp_path / "p.csv"), filter="TRY_CAST(level AS DOUBLE) >= 9.5")
    assert passed == [{"problem": "a?", "level": "10"}]


def test_what_could_not_be_read_passes_with_its_reason_and_all_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text('{"level": 1}\nbroken\n{"level": 3}\n{"level": 2}\n')
    tally = Tally()
    rows = list(read_source(SourceConfig(path=str(path), filter="level > 2"), tally))
    assert [(row.line, isinstance(row.content, Refusal)) for row in rows] == [(2, True), (3, False)]
    assert (tally.num_read, tally.num_filtered_out) == (4, 2)
