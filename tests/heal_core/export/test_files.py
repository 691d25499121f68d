from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from heal_core.errors import InputError
from heal_core.export.files import MESSAGES, check_target, write_rows

COLUMNS = {"messages": MESSAGES, "kind": pa.string()}
ROWS: list[dict[str, Any]] = [
    {"messages": [{"role": "user", "content": 'a "quoted"\nü\u2028'}], "kind": "rollout"},
    {"messages": None, "kind": None},
]


@pytest.mark.parametrize("name", ["rows.jsonl", "new/folder/rows.parquet"])
def test_rows_come_back_as_they_were(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    assert write_rows(path, iter(ROWS), COLUMNS) == 2
    lines = path.read_bytes().split(b"\n") if path.suffix == ".jsonl" else []
    found = [json.loads(line) for line in lines if line] or pq.read_table(path).to_pylist()
    assert found == ROWS
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_file_without_rows_still_has_its_columns(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    assert write_rows(path, [], COLUMNS) == 0
    assert pq.read_schema(path).names == list(COLUMNS)


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_what_fails_midway_leaves_the_old_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"rows{suffix}"
    path.write_text("old")

    def rows() -> Iterator[dict[str, Any]]:
        yield ROWS[0]
        raise InputError("no")

    with pytest.raises(InputError, match="no"):
        write_rows(path, rows(), COLUMNS)
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_targets_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    there = tmp_path / "there.jsonl"
    there.write_text("")
    with pytest.raises(InputError, match="exists already"):
        check_target(there, force=False)
    check_target(there, force=True)
    with pytest.raises(InputError, match=r"expected a file that ends in \.jsonl or \.parquet"):
        check_target(tmp_path / "rows.csv", force=True)
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        check_target(tmp_path / "folder.jsonl", force=True)
    with pytest.raises(InputError, match="cannot be written"):
        write_rows(there / "below.jsonl", ROWS, COLUMNS)
