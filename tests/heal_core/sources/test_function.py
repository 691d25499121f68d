"""A function of the user's own: rows as it gives them, and errors that name it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from heal_core.errors import InputError
from heal_core.sources.row import Number, SourceRow

Read = Callable[..., list[SourceRow]]
Contents = Callable[..., list[Any]]

MODULE = """
import numpy as np

def problems():
    for n in (2, 0.1, 1e20):
        yield {"problem": f"What is {n}?", "answer": n}

def odd():
    return [{"answer": np.float32(0.1), "flag": True, "nothing": float("nan")}, ["a?", "1"], None]

def breaks():
    yield {"problem": "a?"}
    raise RuntimeError("no more")

def raises():
    raise LookupError("gone")

def number():
    return 3

def wants(argument):
    return []

def none():
    return []

text = "not a function"
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module in the folder where heal is started."""
    (tmp_path / "my_rows.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", str(tmp_path))])
    monkeypatch.delitem(sys.modules, "my_rows", raising=False)
    return "my_rows"


def test_a_function_gives_rows_and_numbers_are_text(module: str, read: Read) -> None:
    rows = read(function=f"{module}:problems")
    assert [row.content["answer"] for row in rows] == ["2", "0.1", "100000000000000000000"]
    assert all(isinstance(row.content["answer"], Number) for row in rows)
    assert [(row.place, row.line, row.name) for row in rows][1] == ("my_rows:problems", 2, "my_rows:problems")


def test_odd_values_and_rows_are_told(module: str, contents: Contents) -> None:
    assert contents(function=f"{module}:odd") == [
        {"answer": "0.1", "flag": True, "nothing": None},
        "not_an_object: list, expected a mapping of columns",
        "not_an_object: NoneType, expected a mapping of columns",
    ]


def test_a_function_without_rows_has_none(module: str, read: Read) -> None:
    assert read(function=f"{module}:none") == []


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("my_rows:breaks", "my_rows:breaks failed after 1 rows: RuntimeError: no more"),
        ("my_rows:raises", "failed after 0 rows: LookupError: gone"),
        ("my_rows:number", "failed after 0 rows: TypeError: 'int' object is not iterable. Expected an iterable"),
        ("my_rows:wants", "missing 1 required positional argument: 'argument'"),
        ("my_rows:text", "my_rows:text is str, expected a function"),
        ("my_rows:nothing", "cannot be imported: AttributeError: .*has no attribute 'nothing'"),
        ("nowhere:problems", "cannot be imported: ModuleNotFoundError: No module named 'nowhere'"),
        ("my_rows.problems", "not of the form package.module:function"),
    ],
)
def test_a_function_that_cannot_be_used_is_an_error(module: str, read: Read, name: str, said: str) -> None:
    before = list(sys.path)
    with pytest.raises(InputError, match=said):
        read(function=name)
    assert sys.path == before
