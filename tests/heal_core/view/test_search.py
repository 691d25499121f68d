"""Search by SQL: what is found and how much of it, what is refused, and that no query lasts or leaves anything."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from heal_core.errors import InputError, StoreError
from heal_core.store.workspace import Workspace
from heal_core.view.search import MAX_BYTES, MAX_QUERY_CHARS, MAX_ROWS, Searches

ENDLESS = "SELECT count(*) FROM range(1000000000) a, range(1000000000) b"


@pytest.fixture
def searches(small_store: Any) -> Searches:
    return Searches(small_store.workspace)


def test_the_run_has_a_name_in_a_query(searches: Searches) -> None:
    found = searches.run("SELECT $run AS run, count(*) AS num FROM run_rows WHERE run_id = $run", "run2")
    assert (found.columns, found.rows, found.is_cut, found.ids) == (["run", "num"], [["run2", 4]], False, None)
    with pytest.raises(InputError, match=r"the query has \$other; only \$run"):
        searches.run("SELECT $other", "run2")


def test_the_last_of_several_statements_is_shown(searches: Searches) -> None:
    assert searches.run("CREATE TEMP TABLE t AS SELECT 7 AS n; SET threads = 1; FROM t;", "run2").rows == [[7]]


def test_trajectories_are_named_once_in_the_querys_order(searches: Searches, small_store: Any) -> None:
    backwards = sorted(small_store.repairs, reverse=True)
    query = "SELECT 1, row_id AS trajectory_id FROM run_rows, range(2) WHERE kind = 'repair' ORDER BY row_id DESC"
    assert searches.run(query, "run2").ids == backwards
    assert searches.run("SELECT subject_id FROM decisions WHERE phase = 'path'", "run2").ids == [small_store.rollout]
    assert searches.run("SELECT NULL AS trajectory_id UNION ALL SELECT NULL", "run2").ids == []
    assert searches.run("SELECT 3 AS trajectory_id", "run2").ids == []


def test_values_are_such_that_a_browser_reads_them(searches: Searches) -> None:
    query = (
        "SELECT 'nan'::DOUBLE, 9007199254740991, 9007199254740993, [1, 2], {'a': NULL}, '[1]'::JSON, "
        "TIMESTAMP '2026-01-02 03:04:05', true, NULL, chr(27) || 'x', repeat('y', 30000)"
    )
    (row,) = searches.run(query, "run2").rows
    assert row[:10] == [
        None, 9007199254740991, "9007199254740993", "[1, 2]", '{"a": null}', "[1]", "2026-01-02T03:04:05", True, None,
        "\\u{1b}x",
    ]  # fmt: skip
    assert len(row[10]) < 21_000 and row[10].endswith("(10,000 more characters)")
    assert searches.run('SELECT 1 AS "\u202ea"', "run2").columns == ["\\u{202e}a"]


def test_a_result_is_cut_at_its_number_of_rows_and_at_its_size(searches: Searches) -> None:
    whole = searches.run(f"FROM range({MAX_ROWS})", "run2")
    assert (len(whole.rows), whole.is_cut) == (MAX_ROWS, False)
    longer = searches.run(f"FROM range({MAX_ROWS + 1})", "run2")
    assert (longer.rows, longer.is_cut) == (whole.rows, True)
    wide = searches.run(f"SELECT {', '.join(['repeat(chr(120), 20000)'] * 20)} FROM range(100)", "run2")
    assert wide.is_cut and 1 < len(wide.rows) <= MAX_BYTES // 400_000


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("", "empty"),
        (" -- nothing", "empty"),
        ("SELEC 1", "syntax error"),
        ("FROM nowhere", "nowhere does not exist"),
        ("SELECT error('<script>')", "<script>"),
        ("x" * (MAX_QUERY_CHARS + 1), "more than 100,000 characters"),
    ],
)
def test_a_mistake_is_said_in_duckdbs_words(searches: Searches, query: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        searches.run(query, "run2")


@pytest.mark.parametrize(
    "query",
    [
        "COPY (SELECT 1) TO '{file}'",
        "WITH t AS (COPY (SELECT 1) TO '{file}') FROM t",
        "EXPLAIN ANALYZE COPY (SELECT 1) TO '{file}'",
        "ATTACH '{file}' AS mine",
        "ATTACH '{file}' AS mine (READ_WRITE)",
        "ATTACH '{store}' AS again",
        "ATTACH '{writer}' AS own (READ_ONLY)",
        "EXPORT DATABASE '{file}'",
        "SELECT 1; COPY (SELECT 1) TO '{file}'; SELECT 2",
        "CREATE TABLE heal.mine (a INTEGER)",
        "DELETE FROM problems",
        "UPDATE heal.problems SET answer = '3'",
        "SET temp_directory = '{file}'",
        "SET enable_external_access = true",
        "INSTALL httpfs",
        "CREATE PERSISTENT SECRET s (TYPE s3)",
        "PRAGMA database_list; CHECKPOINT heal",
    ],
)
def test_nothing_can_be_written(searches: Searches, small_store: Any, tmp_path: Path, query: str) -> None:
    workspace = small_store.workspace
    before = {path: path.read_bytes() for path in sorted(tmp_path.rglob("*")) if path.is_file()}
    text = query.format(file=tmp_path / "new", store=workspace.database, writer=workspace.writer_database)
    with pytest.raises(InputError):
        searches.run(text, "run2")
    assert {path: path.read_bytes() for path in sorted(tmp_path.rglob("*")) if path.is_file()} == before


def test_queries_leave_nothing_to_each_other(searches: Searches) -> None:
    searches.run("CREATE TEMP TABLE mine AS SELECT 1; SET TimeZone = 'Asia/Tokyo'; SELECT 1", "run2")
    with pytest.raises(InputError, match="mine does not exist"):
        searches.run("FROM mine", "run2")
    assert searches.run("SELECT current_setting('TimeZone')", "run2").rows != [["Asia/Tokyo"]]


def test_each_query_sees_what_was_published_last(searches: Searches, small_store: Any) -> None:
    count = "SELECT count(*) FROM problems"
    assert searches.run(count, "run2").rows == [[1]]
    small_store.add_problem("p1")
    assert searches.run(count, "run2").rows == [[2]]


def test_a_query_that_takes_too_long_is_stopped_and_the_next_one_runs(small_store: Any) -> None:
    searches = Searches(small_store.workspace, max_seconds=3)
    started = time.monotonic()
    with pytest.raises(InputError, match="it took more than 3 seconds"):
        searches.run(ENDLESS, "run2")
    assert time.monotonic() - started < 15
    assert searches.run("SELECT 1", "run2").rows == [[1]]


def test_the_limit_is_of_all_statements_and_rows_together(small_store: Any) -> None:
    searches = Searches(small_store.workspace, max_seconds=0.5)
    with pytest.raises(InputError, match="more than"):
        searches.run(f"SELECT 1; CREATE TEMP TABLE t AS {ENDLESS}; SELECT 2", "run2")


def test_a_query_waits_for_the_one_before_but_not_for_ever(small_store: Any) -> None:
    searches = Searches(small_store.workspace, max_seconds=0.3)
    with searches._turn, pytest.raises(InputError, match=r"other queries have been running for 3\.3 seconds"):
        searches.run("SELECT 1", "run2")


def test_the_end_gives_up_the_query_that_runs_and_those_to_come(searches: Searches) -> None:
    said: list[str] = []

    def ask() -> None:
        with pytest.raises(InputError) as refused:
            searches.run(ENDLESS, "run2")
        said.append(str(refused.value))

    asking = threading.Thread(target=ask)
    asking.start()
    time.sleep(0.5)
    assert asking.is_alive()
    searches.end()
    asking.join(10)
    assert said == ["the query was stopped."]
    with pytest.raises(InputError, match="was stopped"):
        searches.run(ENDLESS, "run2")


def test_without_a_store_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no store at"):
        Searches(Workspace(tmp_path)).run("SELECT 1", "run")
