import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from heal_core.errors import StoreError
from heal_core.store.database import open_database
from heal_core.store.parts import list_parts, part_of
from heal_core.store.store import Store
from heal_core.store.workspace import Workspace

Row = dict[str, Any]
TableRow = Callable[..., Row]

FIRST = "0001_initial"


# ---- damage


def truncate(data: bytearray) -> bytearray:
    return data[: len(data) // 2]


def flip_header(data: bytearray) -> bytearray:
    data[4100] ^= 0xFF
    data[8200] ^= 0xFF
    return data


DAMAGES: dict[str, Callable[[bytearray], bytearray]] = {
    "text instead": lambda data: bytearray(b"hello " * 5000),
    "cut to half": truncate,
    "empty": lambda data: bytearray(b""),
    "its headers flipped": flip_header,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_database_is_set_aside_and_rebuilt_from_the_parts(
    workspace: Workspace,
    table_row: TableRow,
    caplog: pytest.LogCaptureFixture,
    damage: Callable[[bytearray], bytearray],
) -> None:
    with Store(workspace) as store:
        store.append("recipes", [table_row("recipes")])
        epoch = store.epoch
    bad = damage(bytearray(workspace.writer_database.read_bytes()))
    workspace.writer_database.write_bytes(bad)
    with caplog.at_level(logging.WARNING, "heal"), Store(workspace) as store:
        assert store.rows("SELECT * FROM recipes") == [table_row("recipes")]
        assert store.epoch != epoch
    if bad:  # DuckDB takes an empty file for a new one
        assert workspace.writer_database.with_name("writer.duckdb.damaged").stat().st_size >= len(bad)
        assert "it is set aside and rebuilt from the parts" in caplog.text


def test_damage_that_shows_late_is_told_and_never_published_over_a_good_copy(
    workspace: Workspace, table_row: TableRow
) -> None:
    texts = [table_row("quarantine", quarantine_id=f"q{n}", raw=os.urandom(2000).hex()) for n in range(1000)]
    with Store(workspace) as store:
        store.append("quarantine", texts)
    published = workspace.database.read_bytes()
    data = bytearray(workspace.writer_database.read_bytes())
    data[len(data) // 2] ^= 0xFF  # among the texts, so that it opens
    workspace.writer_database.write_bytes(data)
    with (
        pytest.raises(StoreError, match=r"writer\.duckdb is damaged: .*`heal store rebuild`"),
        Store(workspace) as store,
    ):
        store.rows("SELECT * FROM quarantine")
    assert workspace.database.read_bytes() == published


def test_a_database_that_another_process_has_open_is_left_alone(workspace: Workspace) -> None:
    Store(workspace).close()
    code = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('open', flush=True); sys.stdin.readline()"
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(workspace.writer_database)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert other.stdout is not None and other.stdin is not None
    other.stdout.readline()
    with pytest.raises(StoreError, match=r"writer.duckdb is open in another process .*query .*heal.duckdb instead"):
        Store(workspace)
    other.communicate(b"\n", timeout=20)
    Store(workspace).close()


# ---- schemas


def write_first_schema(workspace: Workspace, table_row: TableRow) -> Row:
    """Leave a workspace as the first schema did, with its parts; return the row of a run in it."""
    tables = {
        "verdicts": [
            table_row("verdicts", verdict_id=name, label=label, verifier_version=name)
            for name, label in (("old", "wrong"), ("newer", "correct"))
        ],
        "run_rows": [table_row("run_rows")],
    }
    with duckdb.connect(str(workspace.writer_database)) as connection:
        folder = resources.files("heal_core.store")
        connection.execute((folder / "meta.sql").read_text())
        connection.execute((folder / "migrations" / f"{FIRST}.sql").read_text())
        connection.execute("INSERT INTO migrations VALUES (?, now())", [FIRST])
        connection.execute("INSERT INTO meta VALUES ('store_epoch', 'first')")
        for table, rows in tables.items():
            names = [row[0] for row in connection.execute(f"DESCRIBE {table}").fetchall()]
            path = workspace.parts / table / "x.parquet"
            path.parent.mkdir()
            pq.write_table(pa.Table.from_pylist([{name: row[name] for name in names} for row in rows]), path)
            part = part_of(path.rename(path.with_stem(sha256(path))))
            connection.execute(f"INSERT INTO {table} FROM read_parquet('{part.path}')")
            connection.execute("INSERT INTO parts VALUES (?, ?, ?, ?, now())", [part.part_name, table, len(rows), 1])
    return tables["run_rows"][0]


def sha256(path: Path) -> str:
    return subprocess.run(["sha256sum", path], capture_output=True, text=True, check=True).stdout.split()[0]


def test_a_workspace_of_the_first_schema_is_upgraded_in_place_with_a_backup(
    workspace: Workspace, table_row: TableRow
) -> None:
    row = write_first_schema(workspace, table_row)
    with Store(workspace) as store:
        assert store.epoch == "first"
        # its runs keep the verdict that counted for them: the newest of then
        assert store.rows("SELECT * FROM run_rows") == [row | {"verdict_id": "newer"}]
        store.append("verdicts", [table_row("verdicts", verdict_id="later", label="unverifiable")])
        upgraded = store.rows("SELECT * FROM verdicts ORDER BY verdict_id")
    assert [r["limit_seconds"] for r in upgraded] == [5.0, None, None]
    backup = workspace.writer_database.with_name(f"backup-of-{FIRST}.duckdb")
    with duckdb.connect(str(backup), read_only=True) as old:
        assert old.execute("SELECT name FROM migrations").fetchall() == [(FIRST,)]
        assert old.execute("SELECT count(*) FROM verdicts").fetchall() == [(2,)]
    # and rebuilt from parts of both schemas it is the same
    workspace.writer_database.unlink()
    with Store(workspace) as store:
        assert store.rows("SELECT * FROM run_rows") == [row | {"verdict_id": "newer"}]
        assert store.rows("SELECT * FROM verdicts ORDER BY verdict_id") == upgraded


def test_an_upgrade_that_was_killed_is_done_by_the_next_start(workspace: Workspace, table_row: TableRow) -> None:
    write_first_schema(workspace, table_row)
    backup = workspace.writer_database.with_name(f"backup-of-{FIRST}.duckdb")
    shutil.copyfile(workspace.writer_database, backup)  # made before the kill
    made = backup.stat().st_mtime_ns
    with Store(workspace) as store:
        assert len(store.rows("SELECT name FROM migrations")) > 1
    assert backup.stat().st_mtime_ns == made


def test_a_newer_workspace_is_refused(workspace: Workspace) -> None:
    Store(workspace).close()
    with duckdb.connect(str(workspace.writer_database)) as connection:
        connection.execute("INSERT INTO migrations VALUES ('0999_later', now())")
    with pytest.raises(StoreError, match=r"written by a newer HEAL \(migrations 0999_later .*Upgrade HEAL, or use"):
        Store(workspace)


def test_parts_of_a_newer_heal_are_refused_when_their_database_is_gone(
    workspace: Workspace, table_row: TableRow
) -> None:
    with Store(workspace) as store:
        store.append("recipes", [table_row("recipes")])
    (part,) = list_parts(workspace.parts)
    rows = pq.read_table(part.path)
    part.path.unlink()
    said = {b"heal.schema": b"0999_later", b"heal.sequence": b"1"}
    pq.write_table(rows.replace_schema_metadata(said), part.path)
    part.path.rename(part.path.with_stem(sha256(part.path)))
    workspace.writer_database.unlink()
    with pytest.raises(StoreError, match=r"written by a newer HEAL \(schema 0999_later.*Upgrade HEAL"):
        Store(workspace)


def test_views_are_defined_again_only_where_their_script_is_another(tmp_path: Path) -> None:
    path = tmp_path / "writer.duckdb"

    def bands_after(*statements: str) -> int:
        """Return how many columns the view has that a start finds after some statements."""
        with open_database(path) as connection:
            for statement in statements:
                connection.execute(statement)
        with open_database(path) as connection:
            return len(connection.execute("DESCRIBE bands").fetchall())

    whole = bands_after()
    assert whole > 1
    old_view = "CREATE OR REPLACE VIEW bands AS SELECT 1 AS one"
    assert bands_after(old_view) == 1, "the script is the same"
    assert bands_after(old_view, "UPDATE meta SET value = 'another' WHERE key = 'views'") == whole
    assert bands_after(old_view, "DELETE FROM meta WHERE key = 'views'") == whole
