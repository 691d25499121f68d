"""The empty database of Prefect's server: kept once, copied whole, and done without where that fails."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from flows.layout import DATABASE, copy_kept


def write_database(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE flow (name TEXT)")
        database.executemany("INSERT INTO flow VALUES (?)", [(f"{text} {number}",) for number in range(2000)])
    return path


def names_in(path: Path) -> set[str]:
    with closing(sqlite3.connect(path)) as database:
        return {name.split()[0] for (name,) in database.execute("SELECT name FROM flow")}


def test_a_new_home_gets_a_copy_that_others_may_read_as_they_may_any_other_file(tmp_path: Path) -> None:
    kept, other = write_database(tmp_path / "kept.db", "kept"), tmp_path / "other"
    other.touch()
    assert copy_kept(tmp_path / "home", kept)
    copied = tmp_path / "home" / DATABASE
    assert names_in(copied) == {"kept"}
    assert copied.stat().st_mode == other.stat().st_mode
    assert os.listdir(tmp_path / "home") == [DATABASE]


def test_a_database_in_use_is_never_replaced(tmp_path: Path) -> None:
    used = write_database(tmp_path / "home" / DATABASE, "used")
    assert copy_kept(tmp_path / "home", write_database(tmp_path / "kept.db", "kept"))
    assert names_in(used) == {"used"}


@pytest.mark.parametrize("damage", ["gone", "empty", "cut", "overwritten"])
def test_a_damaged_one_is_not_copied(tmp_path: Path, damage: str) -> None:
    kept = write_database(tmp_path / "kept.db", "kept")
    whole = kept.read_bytes()
    kept.unlink()
    if damage != "gone":
        middle = len(whole) // 2
        parts = {"empty": b"", "cut": whole[:middle], "overwritten": whole[:middle] + b"x" * (len(whole) - middle)}
        kept.write_bytes(parts[damage])
    assert not copy_kept(tmp_path / "home", kept)
    assert not (tmp_path / "home" / DATABASE).exists()


@pytest.mark.full
def test_prefect_lays_one_out_which_is_kept_and_the_next_home_gets_the_same(tmp_path: Path) -> None:
    kept = tmp_path / "caches" / "kept.db"
    kept.parent.mkdir()
    kept.write_bytes(b"damaged")
    dumps = []
    for name in ("first", "second"):
        home = tmp_path / name
        home.mkdir()
        before = kept.read_bytes()
        code = (
            "import sys; from pathlib import Path; from flows.layout import prepare; prepare(*map(Path, sys.argv[1:]))"
        )
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
        subprocess.run(
            [sys.executable, "-c", code, home, kept], env={**environment, "PREFECT_HOME": str(home)}, check=True
        )
        assert (kept.read_bytes() == before) is (name == "second")
        with closing(sqlite3.connect(home / DATABASE)) as database:
            dumps.append(list(database.iterdump()))
    assert dumps[0] == dumps[1]
    assert sum(line.startswith("CREATE TABLE") for line in dumps[0]) > 30
