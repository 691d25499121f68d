import hashlib
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from heal_core.errors import StoreError
from heal_core.store.parts import Part, check_digest, in_order, list_parts, part_of, read_header, write_part


def write(folder: Path, table: str = "things", sequence: int = 1, **columns: list) -> Part:
    return write_part(folder, table, pa.table(columns or {"id": ["a"]}), sequence, "0002_x")


def test_a_part_is_named_by_its_bytes_and_holds_its_rows(tmp_path: Path) -> None:
    part = write(tmp_path, id=["a", "b"], num=[1, None])
    assert part.path == tmp_path / "things" / f"{part.part_name}.parquet"
    assert hashlib.sha256(part.path.read_bytes()).hexdigest() == part.part_name
    assert pq.read_table(part.path).to_pydict() == {"id": ["a", "b"], "num": [1, None]}
    check_digest(part)


def test_a_part_says_its_number_its_schema_and_its_columns(tmp_path: Path) -> None:
    header = read_header(write(tmp_path, sequence=7, id=["a", "b"], num=[1, 2]))
    assert (header.sequence, header.schema, header.columns, header.num_rows) == (7, "0002_x", ("id", "num"), 2)


def test_the_same_rows_with_the_same_number_are_the_same_part(tmp_path: Path) -> None:
    parts = [write(tmp_path, id=[name]) for name in ("a", "b", "a")]
    assert parts[0] == parts[2] != parts[1]
    assert len(list_parts(tmp_path)) == 2


def test_a_part_with_one_bit_changed_is_refused(tmp_path: Path) -> None:
    part = write(tmp_path)
    data = bytearray(part.path.read_bytes())
    data[len(data) // 2] ^= 1
    part.path.write_bytes(data)
    with pytest.raises(StoreError, match=f"{part.path} is damaged: its bytes do not match.*heal store rebuild"):
        check_digest(part)


def test_a_part_that_lost_its_end_is_no_parquet(tmp_path: Path) -> None:
    part = write(tmp_path)
    part.path.write_bytes(part.path.read_bytes()[:-5])
    with pytest.raises(StoreError, match=f"{part.path} is damaged: it cannot be read as Parquet"):
        read_header(part)


def test_the_order_of_writing_is_that_of_the_numbers_whatever_the_clock_says(tmp_path: Path) -> None:
    parts = [write(tmp_path, table, sequence) for sequence, table in enumerate(("c", "a", "b"))]
    for second, part in enumerate(reversed(parts)):  # a clock that ran backwards
        os.utime(part.path, (second, second))
    assert in_order({part: read_header(part) for part in list_parts(tmp_path)}) == parts


def test_parts_without_a_number_come_first_in_the_order_of_their_file_times(tmp_path: Path) -> None:
    numbered = write(tmp_path, "a", sequence=1)
    old = []
    for second, name in enumerate(("z", "y", "x")):
        path = tmp_path / name / "old.parquet"
        path.parent.mkdir()
        pq.write_table(pa.table({"id": [name]}), path)
        os.utime(path, (second, second))
        old.append(part_of(path))
    assert in_order({part: read_header(part) for part in list_parts(tmp_path)}) == [*old, numbered]


def test_files_that_are_no_parts_are_not_listed(tmp_path: Path) -> None:
    part = write(tmp_path)
    (tmp_path / "things" / "x.parquet.1-2.tmp").touch()
    (tmp_path / "stray.parquet").touch()
    assert list_parts(tmp_path) == [part] == [part_of(part.path)]
    assert list_parts(tmp_path / "none") == []
