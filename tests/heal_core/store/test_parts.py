import hashlib
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from heal_core.store.parts import is_intact, list_parts, part_of, write_part


def test_a_part_is_named_by_its_bytes_and_holds_its_rows(tmp_path: Path) -> None:
    rows = pa.table({"id": ["a", "b"], "num": [1, None]})
    part = write_part(tmp_path, "things", rows)
    assert part.path == tmp_path / "things" / f"{part.part_name}.parquet"
    assert hashlib.sha256(part.path.read_bytes()).hexdigest() == part.part_name
    assert pq.read_table(part.path).equals(rows)
    assert is_intact(part)


def test_the_same_rows_are_the_same_part(tmp_path: Path) -> None:
    parts = [write_part(tmp_path, "things", pa.table({"id": [name]})) for name in ("a", "b", "a")]
    assert parts[0] == parts[2] != parts[1]
    assert len(list_parts(tmp_path)) == 2


def test_a_part_with_one_bit_changed_is_not_intact(tmp_path: Path) -> None:
    part = write_part(tmp_path, "things", pa.table({"id": ["a"]}))
    data = bytearray(part.path.read_bytes())
    data[len(data) // 2] ^= 1
    part.path.write_bytes(data)
    assert not is_intact(part)


def test_parts_are_listed_in_the_order_of_writing(tmp_path: Path) -> None:
    parts = [write_part(tmp_path, table, pa.table({"id": [table]})) for table in ("c", "a", "b")]
    for second, part in enumerate(parts):
        os.utime(part.path, (second, second))
    assert list_parts(tmp_path) == parts
    assert list_parts(tmp_path / "a") == []


def test_files_that_are_no_parts_are_not_listed(tmp_path: Path) -> None:
    part = write_part(tmp_path, "things", pa.table({"id": ["a"]}))
    (tmp_path / "things" / "x.parquet.1-2.tmp").touch()
    (tmp_path / "stray.parquet").touch()
    assert list_parts(tmp_path) == [part] == [part_of(part.path)]
