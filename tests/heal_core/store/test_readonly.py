"""A read-only session writes nothing: no table, no file, no setting that names a file."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from heal_core.errors import InputError
from heal_core.store.query import SqlSession
from heal_core.store.store import Store
from heal_core.store.workspace import Workspace


@pytest.fixture
def session(workspace: Workspace, empty_database: Path) -> Iterator[SqlSession]:
    shutil.copyfile(empty_database, workspace.writer_database)
    Store(workspace).close()
    with SqlSession(workspace) as session, session.current():
        yield session


def run(session: SqlSession, text: str) -> list[tuple[Any, ...]]:
    """Return the rows of the last statement."""
    results = [list(session.run(statement, {}).rows) for statement in session.split(text)]
    return results[-1]


WRITES = {
    "copy": "COPY (SELECT 1) TO '{file}'",
    "copy of a table": "COPY problems TO '{file}' (FORMAT parquet)",
    "copy in a WITH": "WITH c AS (COPY (SELECT 1) TO '{file}') SELECT 1",
    "copy in a WITH of a new table": "CREATE TEMP TABLE t AS WITH c AS (COPY (SELECT 1) TO '{file}') SELECT 1",
    "copy in a WITH of a PIVOT": "WITH c AS (COPY (SELECT 1) TO '{file}') PIVOT (SELECT 1 AS a) ON a USING sum(a)",
    "copy in a WITH of a PIVOT, explained":
        "EXPLAIN WITH c AS (COPY (SELECT 1) TO '{file}') PIVOT (SELECT 1 AS a) ON a USING sum(a)",
    "copy in a text that is a query": "FROM query('WITH c AS (COPY (SELECT 1) TO ''{file}'') SELECT 1')",
    "copy that is explained": "EXPLAIN ANALYZE COPY (SELECT 1) TO '{file}'",
    "copy that is explained, after a comment": "/* EXPLAIN */ EXPLAIN (ANALYZE) COPY (SELECT 1) TO '{file}'",
    "copy that is prepared": "PREPARE p AS COPY (SELECT 1) TO '{file}'; EXECUTE p",
    "export": "EXPORT DATABASE '{file}'",
    "attach": "ATTACH '{file}' AS other",
    "attach, with the words in its name": "ATTACH '{file}' AS \"x (READ_ONLY)\"",
    "attach for both": "ATTACH '{file}' AS other (READ_WRITE)",
    "attach for both, read-only last": "ATTACH '{file}' AS other (READ_WRITE, READ_ONLY)",
    "attach, with the words in an escaped text": r"ATTACH E'{file}\'(READ_ONLY)' AS other",
    "attach, with the words in a comment": "ATTACH '{file}' AS other /* (READ_ONLY) */",
    "attach, with the words in a nested comment": "ATTACH '{file}' AS other /* /* */ (READ_ONLY) */",
    "attach, with the words after its end": "ATTACH '{file}' AS other; -- (READ_ONLY)",
    "attach by a calculated path": "ATTACH '{file}' || '' AS other (READ_ONLY)",
    "attach, read-only denied": "ATTACH '{file}' AS other (READ_ONLY false)",
    "profile": "SET profiling_output = '{file}'; PRAGMA enable_profiling = 'json'; SELECT 1",
    "log": "FROM enable_logging('QueryLog', storage = 'file', storage_path = '{file}'); SELECT 1",
    "spilling elsewhere": "SET temp_directory = '{file}'; SELECT 1",
    "unlocking": "SET lock_configuration = false",
    "install": "INSTALL '{file}'",
    "load": "LOAD '{file}'",
    "import": "IMPORT DATABASE '{file}'",
    "own table": "CREATE TABLE mine AS SELECT 1",
    "secret that stays": "CREATE PERSISTENT SECRET s (TYPE http, BEARER_TOKEN 'b')",
}  # fmt: skip


@pytest.mark.parametrize("name", WRITES)
def test_what_writes_is_refused(session: SqlSession, tmp_path: Path, name: str) -> None:
    before = sorted(path for path in tmp_path.rglob("*"))
    with pytest.raises(InputError, match=r"the query was refused"):
        run(session, WRITES[name].format(file=tmp_path / "written"))
    assert sorted(path for path in tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "target", ["{parts}/trajectories/x.parquet", "{root}/heal.duckdb", "{root}/store/writer.duckdb"]
)
def test_not_even_the_workspace_is_written(session: SqlSession, workspace: Workspace, target: str) -> None:
    before = {path: path.stat().st_mtime_ns for path in workspace.root.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match=r"COPY .* read-only.*`heal sql --write`"):
        run(session, f"WITH c AS (COPY (SELECT 1) TO '{workspace.root / target}') SELECT 1")
    assert {path: path.stat().st_mtime_ns for path in workspace.root.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO problems SELECT * FROM problems",
        "UPDATE problems SET answer = ''",
        "DELETE FROM problems",
        "TRUNCATE problems",
        "DROP TABLE problems",
        "ALTER TABLE problems ADD COLUMN note VARCHAR",
        "COMMENT ON TABLE problems IS 'mine'",
        "CREATE OR REPLACE VIEW bands AS SELECT 1 AS one",
    ],
)
def test_a_change_of_the_store_is_refused_with_where_own_tables_go(session: SqlSession, statement: str) -> None:
    with pytest.raises(InputError, match=r"writes? to heal, which is read-only.*append-only.*my\.duckdb.*--write"):
        run(session, statement)


def test_files_can_be_read(session: SqlSession, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,n\nx,1\ny,2\n")
    (tmp_path / "b.jsonl").write_text('{"id": "x", "weight": 0.5}\n')
    query = f"SELECT id, n, weight FROM '{tmp_path}/a.csv' JOIN '{tmp_path}/b.jsonl' USING (id)"
    assert run(session, query) == [("x", 1, 0.5)]


@pytest.mark.parametrize(
    "form",
    [
        "ATTACH '{file}' AS other (READ_ONLY)",
        "ATTACH '{file}' (READ_ONLY); -- named by its file",
        "attach if not exists\n '{file}'as other(read_only) ;;",
    ],
)
def test_another_database_can_be_attached_read_only(session: SqlSession, tmp_path: Path, form: str) -> None:
    file = tmp_path / "it's" / "other.duckdb"
    file.parent.mkdir()
    with duckdb.connect(str(file)) as other:
        other.execute("CREATE TABLE t AS SELECT 7 AS n")
    assert run(session, form.format(file=str(file).replace("'", "''")) + "\n; FROM other.t") == [(7,)]
    with pytest.raises(InputError, match="read-only"):
        run(session, "DELETE FROM other.t")


def test_the_refusal_of_an_attach_says_the_form_that_is_allowed(session: SqlSession) -> None:
    with pytest.raises(InputError, match=r"ATTACH 'file' AS name \(READ_ONLY\), .*`heal sql --write`"):
        run(session, "ATTACH 'x.duckdb' AS x (TYPE duckdb, READ_ONLY)")


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("CREATE TEMP TABLE t AS SELECT 1 AS a; INSERT INTO t VALUES (2); SELECT sum(a) FROM t", [(3,)]),
        ("CREATE TEMP MACRO twice(a) AS 2 * a; SELECT twice(4)", [(8,)]),
        ("SET TimeZone = 'Asia/Tokyo'; SELECT current_setting('TimeZone')", [("Asia/Tokyo",)]),
        ("SET VARIABLE v = 5; SELECT getvariable('v')", [(5,)]),
        ("SELECT 'COPY' AS copy", [("COPY",)]),
        ("WITH copy AS (SELECT 7 AS a) FROM copy", [(7,)]),
        ("BEGIN; SELECT 3; COMMIT; SELECT 4", [(4,)]),
        ("CREATE TEMP TABLE t (a INT); PRAGMA table_info('t')", [(0, "a", "INTEGER", False, None, False)]),
        ("PIVOT (SELECT 'x' AS a, 2 AS b) ON a USING sum(b)", [(2,)]),
    ],
)  # fmt: skip
def test_what_stays_in_memory_is_allowed(session: SqlSession, query: str, expected: list[tuple[Any, ...]]) -> None:
    assert run(session, query) == expected


def test_a_plan_that_is_refused_is_told_with_the_querys_own_line(session: SqlSession) -> None:
    with pytest.raises(InputError, match=r"LINE 2: FROM nowhere"):
        run(session, "SELECT 'copy' AS a\nFROM nowhere")


def test_a_name_never_means_a_variable_of_the_program(session: SqlSession) -> None:
    frame = [{"a": 1}]
    with pytest.raises(InputError, match="Table with name frame does not exist"):
        run(session, "FROM frame")
    assert frame


@pytest.mark.parametrize("query", ["DETACH heal", 'detach database if exists "my"', "SELECT x'é'"])
def test_what_would_break_the_session_is_refused(session: SqlSession, query: str) -> None:
    with pytest.raises(InputError, match="the query was refused"):
        run(session, query)
    assert run(session, "SELECT 1") == [(1,)]
