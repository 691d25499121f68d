"""Paths: one file, globs that find what is new, compressed files, URLs through fsspec."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from heal_core.errors import InputError
from heal_core.sources.files import find_files
from heal_core.sources.row import SourceRow

Read = Callable[..., list[SourceRow]]
Contents = Callable[..., list[Any]]


@pytest.fixture
def memory() -> Iterator[Any]:
    """An empty file system of fsspec's own, behind memory://."""
    file_system = fsspec.filesystem("memory")
    file_system.store.clear()
    yield file_system
    file_system.store.clear()


def test_a_glob_takes_files_of_all_formats_by_name_and_a_night_finds_new_ones(tmp_path: Path, read: Read) -> None:
    (tmp_path / "b.csv").write_text("problem,answer\nb?,2\n")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "c.jsonl").write_text('{"problem": "c?"}\n')
    pattern = str(tmp_path / "**" / "*.*")
    assert [Path(row.place).name for row in read(path=pattern)] == ["b.csv", "c.jsonl"]
    (tmp_path / "a.jsonl").write_text('{"problem": "a?"}\n')
    rows = read(path=pattern)
    assert [(Path(row.place).name, row.line, row.content["problem"]) for row in rows] == [
        ("a.jsonl", 1, "a?"),
        ("b.csv", 2, "b?"),
        ("c.jsonl", 1, "c?"),
    ]


def test_a_relative_path_is_named_as_it_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Read) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "p.jsonl").write_text("{}\n")
    monkeypatch.chdir(tmp_path)
    for path in ("data/p.jsonl", "data/*.jsonl"):
        (row,) = read(path=path)
        assert (row.place, row.name) == ("data/p.jsonl", "p.jsonl")


def test_a_file_whose_name_looks_like_a_glob_is_meant_as_it_stands(tmp_path: Path, contents: Contents) -> None:
    (tmp_path / "p[1].jsonl").write_text('{"problem": "bracket"}\n')
    (tmp_path / "p1.jsonl").write_text('{"problem": "other"}\n')
    assert contents(path=str(tmp_path / "p[1].jsonl")) == [{"problem": "bracket"}]


@pytest.mark.parametrize(
    ("name", "format", "expected"),
    [("p.txt", None, "jsonl"), ("p.csv.gz", None, "csv"), ("p.parquet", None, "parquet"), ("p", None, "jsonl")],
)
def test_the_ending_says_the_format(tmp_path: Path, name: str, format: str | None, expected: str) -> None:
    (file,) = find_files(str(tmp_path / name))
    assert file.format == expected


def test_the_format_can_be_given(tmp_path: Path, contents: Contents) -> None:
    (tmp_path / "p.txt").write_text("problem\na?\n")
    assert contents(path=str(tmp_path / "p.txt"), format="csv") == [{"problem": "a?"}]


def test_a_compressed_file_is_unpacked_and_a_torn_one_is_an_error(tmp_path: Path, contents: Contents) -> None:
    packed = gzip.compress(b'{"problem": "a?"}\n' * 1000)
    (tmp_path / "p.jsonl.gz").write_bytes(packed)
    assert len(contents(path=str(tmp_path / "p.jsonl.gz"))) == 1000
    (tmp_path / "p.jsonl.zip").write_bytes(packed)
    with pytest.raises(InputError, match=r"p\.jsonl\.zip: BadZipFile"):
        contents(path=str(tmp_path / "p.jsonl.zip"))
    (tmp_path / "p.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(InputError, match=r"cannot read the problem file .*p\.jsonl\.gz"):
        contents(path=str(tmp_path / "p.jsonl.gz"))


def test_a_glob_that_matches_nothing_and_a_folder_are_errors(tmp_path: Path, read: Read) -> None:
    with pytest.raises(InputError, match=r"no problem file matches .*\*\.jsonl"):
        read(path=str(tmp_path / "*.jsonl"))
    with pytest.raises(InputError, match="Is a directory"):
        read(path=str(tmp_path))


def test_urls_and_globs_behind_them_are_read(memory: Any, read: Read) -> None:
    memory.pipe("/data/b.jsonl", b'{"problem": "b?"}\n')
    (row,) = read(path="memory://data/b.jsonl")
    assert (row.place, row.name, row.content) == ("memory://data/b.jsonl", "b.jsonl", {"problem": "b?"})
    memory.pipe("/data/a.csv", b"problem\na?\n")
    rows = read(path="memory://data/*")
    assert [(row.name, row.content["problem"]) for row in rows] == [("a.csv", "a?"), ("b.jsonl", "b?")]
    assert rows[0].place == "memory:///data/a.csv"


def test_urls_that_cannot_be_used_say_why(memory: Any, read: Read) -> None:
    with pytest.raises(InputError, match=r"memory://none\.jsonl: FileNotFoundError"):
        read(path="memory://none.jsonl")
    with pytest.raises(InputError, match=r"no problem file matches memory://none/\*"):
        read(path="memory://none/*")
    with pytest.raises(InputError, match="Protocol not known: nowhere"):
        read(path="nowhere://x/p.jsonl")


def test_a_package_that_is_missing_is_named_with_the_remedy(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "s3fs", None)  # as where the extra is not installed
    with pytest.raises(InputError, match=r"s3://bucket/p\.jsonl cannot be read: Install s3fs.*heal-distill\[fsspec\]"):
        read(path="s3://bucket/p.jsonl")
