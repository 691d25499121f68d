"""CSV: records with their first lines, all cells as text, bad ones alone refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from heal_core.errors import InputError
from heal_core.sources.row import SourceRow

Read = Callable[..., list[SourceRow]]
Contents = Callable[..., list[Any]]


@pytest.fixture
def write(tmp_path: Path) -> Callable[[bytes], str]:
    def write_csv(content: bytes) -> str:
        (tmp_path / "p.csv").write_bytes(content)
        return str(tmp_path / "p.csv")

    return write_csv


def test_windows_lines_a_byte_order_mark_and_blank_lines_are_fine(
    write: Callable[[bytes], str], read: Read, contents: Contents
) -> None:
    path = write(b"\xef\xbb\xbfproblem, answer\r\n\r\na?,1\r\n,\r\nb?,2\r\n")
    assert contents(path=path) == [{"problem": "a?", "answer": "1"}, {"problem": "b?", "answer": "2"}]
    assert [row.line for row in read(path=path)] == [3, 5]


def test_a_quoted_cell_holds_commas_quotes_and_line_breaks_and_the_line_is_where_it_begins(
    write: Callable[[bytes], str], read: Read
) -> None:
    rows = read(path=write(b'problem,answer\n"one,\ntwo ""2""\n",1\nb?,2\n'))
    assert [(row.line, row.content) for row in rows] == [
        (2, {"problem": 'one,\ntwo "2"\n', "answer": "1"}),
        (5, {"problem": "b?", "answer": "2"}),
    ]
    assert rows[0].raw == '"one,\ntwo ""2""\n",1\n'


def test_cells_are_text_as_written_and_an_empty_one_is_null(write: Callable[[bytes], str], contents: Contents) -> None:
    assert contents(path=write(b"problem,answer,level\na?,1.50,\n")) == [
        {"problem": "a?", "answer": "1.50", "level": None}
    ]


def test_a_bad_record_is_refused_alone(write: Callable[[bytes], str], read: Read, contents: Contents) -> None:
    path = write(b'problem,answer\na?,1,2\nb?\ncaf\xe9?,1\n"c"x,1\nd?,4\n')
    assert contents(path=path) == [
        "invalid_csv: 3 cells under a header of 2",
        "invalid_csv: 1 cells under a header of 2",
        "undecodable: byte 0xe9 in problem is not UTF-8",
        "invalid_csv: ',' expected after '\"'",
        {"problem": "d?", "answer": "4"},
    ]
    assert [row.line for row in read(path=path)] == [2, 3, 4, 5, 6]
    assert read(path=path)[2].raw == "caf\\xe9?,1\n"


def test_a_quote_that_is_never_closed_is_refused(write: Callable[[bytes], str], contents: Contents) -> None:
    *good, last = contents(path=write(b'problem,answer\na?,1\n"b?,2\nc?,3\n'))
    assert good == [{"problem": "a?", "answer": "1"}]
    assert last == "invalid_csv: unexpected end of data"


def test_a_cell_larger_than_pythons_default_is_read(write: Callable[[bytes], str], contents: Contents) -> None:
    path = write(b"problem,answer\n" + b"x" * 200_000 + b",1\n")
    assert len(contents(path=path)[0]["problem"]) == 200_000


@pytest.mark.parametrize("content", [b"", b"\n\n", b"problem,answer\n"])
def test_without_records_there_are_no_rows(write: Callable[[bytes], str], read: Read, content: bytes) -> None:
    assert read(path=write(content)) == []


def test_a_column_that_is_named_twice_is_an_error(write: Callable[[bytes], str], read: Read) -> None:
    with pytest.raises(InputError, match=r"p\.csv has the column 'answer' twice"):
        read(path=write(b"problem,answer,answer\na?,1,2\n"))
