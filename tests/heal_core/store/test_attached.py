"""The store and the user's own tables, side by side, in sessions of several processes."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pytest

from heal_core.errors import InputError, StoreError
from heal_core.store import attached
from heal_core.store.query import SqlSession
from heal_core.store.store import Store
from heal_core.store.workspace import Workspace

Row = dict[str, Any]


@pytest.fixture(autouse=True)
def published(workspace: Workspace, store: Store, table_row: Callable[..., Row]) -> None:
    """A store with two problems; its writer stays open, as in a run."""
    store.append("problems", [table_row("problems", problem_id=name) for name in ("p0", "p1")])
    store.publish(force=True)


def ask(workspace: Workspace, *queries: str, write: bool = False) -> list[tuple[Any, ...]]:
    """Return the rows of the last statement of a session of its own."""
    with SqlSession(workspace, write) as session, session.current():
        return run(session, ";".join(queries))


def run(session: SqlSession, text: str) -> list[tuple[Any, ...]]:
    return [list(session.run(statement, {}).rows) for statement in session.split(text)][-1]


@contextmanager
def held(path: Path, read_only: bool) -> Iterator[None]:
    """Have another process keep a database open."""
    opening = f"import duckdb\nc = duckdb.connect({str(path)!r}, read_only={read_only})"
    script = f"{opening}\nprint('open', flush=True)\ninput()"
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        yield
        process.communicate("\n", timeout=30)


def test_own_tables_are_kept_beside_the_store(workspace: Workspace) -> None:
    before = workspace.database.read_bytes()
    ask(workspace, "CREATE TABLE mine AS SELECT problem_id, 1 AS n FROM problems WHERE problem_id = 'p1'", write=True)
    ask(workspace, "CREATE VIEW joined AS FROM mine JOIN problems USING (problem_id)", write=True)
    assert ask(workspace, "SELECT problem_id, question FROM joined") == [("p1", "1 + 1?")]
    assert ask(workspace, "INSERT INTO mine VALUES ('p0', 5)", "SELECT sum(n) FROM mine", write=True) == [(6,)]
    assert workspace.database.read_bytes() == before
    with pytest.raises(
        InputError, match=r"INSERT would write to my, which is read-only\. Your own .* `heal sql --write`"
    ):
        ask(workspace, "INSERT INTO mine VALUES ('p0', 5)")


@pytest.mark.parametrize(
    "statement", ["UPDATE problems SET answer = ''", "DELETE FROM heal.problems", "DROP VIEW bands"]
)
def test_also_a_session_that_writes_leaves_the_store_alone(workspace: Workspace, statement: str) -> None:
    with pytest.raises(InputError, match=r"to heal, .*append-only.*my\.duckdb: CREATE TABLE mine"):
        ask(workspace, statement, write=True)
    assert ask(workspace, "SELECT count(*), min(answer) FROM problems") == [(2, "2")]


@pytest.mark.parametrize("write", [False, True])
@pytest.mark.parametrize(
    "path",
    [
        "{root}/store/writer.duckdb", "workspace/store/writer.duckdb", "~/workspace/store/writer.duckdb", "link.duckdb",
        "hard.duckdb", "folder/../workspace/store/writer.duckdb", "none/../workspace/store/writer.duckdb",
    ],
)  # fmt: skip
def test_the_runs_own_database_cannot_be_attached(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, path: str, write: bool
) -> None:
    here = workspace.root.parent
    monkeypatch.chdir(here)
    monkeypatch.setenv("HOME", str(here))
    (here / "link.duckdb").symlink_to(workspace.writer_database)
    (here / "hard.duckdb").hardlink_to(workspace.writer_database)
    (here / "folder").symlink_to(workspace.parts)  # DuckDB goes back from where the link is
    with pytest.raises(InputError, match=r"duckdb is the run's own\. Query its published copy, heal"):
        ask(workspace, f"ATTACH '{path.format(root=workspace.root)}' AS own (READ_ONLY)", write=write)


@pytest.mark.parametrize("options", ["", "(READ_WRITE)", "(READ_ONLY false)", "(READ_WRITE, READ_ONLY)"])
def test_the_store_cannot_be_attached_for_writing(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, options: str
) -> None:
    monkeypatch.chdir(workspace.root)
    for path in ("heal.duckdb", "~/heal.duckdb"):
        with pytest.raises(InputError, match=r"heal\.duckdb is the store, which is read-only\. Query it as heal"):
            ask(workspace, "SET home_directory = '.'", f"ATTACH '{path}' AS other {options}", write=True)
    assert ask(workspace, "ATTACH 'heal.duckdb' AS other (READ_ONLY)", "SELECT count(*) FROM other.problems") == [(2,)]


@pytest.mark.parametrize(
    "path", ["duckdb:{0}", "DUCKDB:{0}", "file://{0}", "duckdb://{0}", "duckdb:file://{0}", "ducklake:{0}", "{0}\0"]
)
def test_also_a_session_that_writes_attaches_by_plain_paths_alone(workspace: Workspace, path: str) -> None:
    with pytest.raises(InputError, match=r"ATTACH 'file' AS name \(options\), with a plain path"):
        ask(workspace, f"ATTACH '{path.format(workspace.database)}' AS other", write=True)


def test_a_session_that_writes_attaches_other_databases_with_their_options(
    workspace: Workspace, tmp_path: Path
) -> None:
    other = f"ATTACH '{tmp_path / 'other.duckdb'}' AS other (BLOCK_SIZE 16384, TYPE duckdb)"
    assert ask(workspace, other, "CREATE TABLE other.t AS SELECT 1", "FROM other.t", write=True) == [(1,)]
    assert ask(workspace, "ATTACH ':memory:' AS m", "CREATE TABLE m.t AS SELECT 2", "FROM m.t", write=True) == [(2,)]


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE problems AS SELECT 1 AS one",
        "CREATE OR REPLACE VIEW bands AS SELECT 1 AS one",
        "CREATE TABLE IF NOT EXISTS Problems (one INT)",
        "CREATE TABLE my.problems (one INT)",
        "CREATE TABLE other AS SELECT 1 AS one; ALTER TABLE other RENAME TO problems",
        "COPY FROM DATABASE heal TO my (SCHEMA)",
    ],
)
def test_a_name_of_the_store_cannot_be_taken(workspace: Workspace, statement: str) -> None:
    with pytest.raises(InputError, match=r"refused: .* is a name of the store's"):
        ask(workspace, statement, write=True)
    own = "SELECT count(*) FROM duckdb_tables() WHERE database_name = 'my' AND table_name <> 'other'"
    assert ask(workspace, own, write=True) == [(0,)]
    assert ask(workspace, "SELECT count(*) FROM problems", write=True) == [(2,)]


def test_a_name_taken_within_a_transaction_undoes_it(workspace: Workspace) -> None:
    with SqlSession(workspace, write=True) as session, session.current():
        with pytest.raises(InputError, match=r"Take another\. The transaction is rolled back"):
            run(session, "BEGIN; CREATE TABLE mine AS SELECT 1 AS a; CREATE TABLE problems AS SELECT 1 AS a; COMMIT")
        assert not session.has_open_transaction()
    assert ask(workspace, "SELECT count(*) FROM duckdb_tables() WHERE database_name = 'my'") == [(0,)]


@pytest.mark.parametrize("write", [False, True])
def test_where_a_new_name_of_the_store_is_also_an_own_one_it_means_the_stores(
    workspace: Workspace, write: bool
) -> None:
    with duckdb.connect(str(workspace.root / "my.duckdb")) as own:  # made before the store had the name
        own.execute("CREATE TABLE problems AS SELECT 'mine' AS problem_id")
    with SqlSession(workspace, write) as session, session.current() as notes:
        assert len(notes) == 1 and "problems: the name is the store's" in notes[0] and "RENAME TO" in notes[0]
        assert run(session, "SELECT count(*) FROM problems") == [(2,)]
        assert run(session, "SELECT count(*) FROM my.problems") == [(1,)]
        if write:
            run(session, "ALTER TABLE my.problems RENAME TO mine")
    if write:
        with SqlSession(workspace) as session, session.current() as notes:
            assert (notes, run(session, "FROM mine")) == ([], [("mine",)])


def test_while_another_process_writes_own_tables_the_store_is_read_without_them(workspace: Workspace) -> None:
    ask(workspace, "CREATE TABLE mine AS SELECT 1 AS a", write=True)
    own = workspace.root / "my.duckdb"
    with held(own, read_only=False), SqlSession(workspace) as session, session.current() as notes:
        assert len(notes) == 1 and "left out" in notes[0] and "another process writes" in notes[0]
        assert run(session, "SELECT count(*) FROM problems") == [(2,)]
        with pytest.raises(InputError, match="mine does not exist"):
            run(session, "FROM mine")


@pytest.mark.parametrize("read_only", [False, True])
def test_own_tables_that_are_open_elsewhere_cannot_be_written(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, read_only: bool
) -> None:
    monkeypatch.setattr(attached, "LOCK_SECONDS", 0.3)
    ask(workspace, "CREATE TABLE mine AS SELECT 1 AS a", write=True)
    told = pytest.raises(StoreError, match=r"my\.duckdb is open in another process .*PID.*leave out --write")
    with held(workspace.root / "my.duckdb", read_only), told:
        SqlSession(workspace, write=True)
    assert ask(workspace, "FROM mine", write=True) == [(1,)]


def test_a_session_left_open_stops_no_one(workspace: Workspace) -> None:
    ask(workspace, "CREATE TABLE mine AS SELECT 1 AS a", write=True)
    with SqlSession(workspace) as reader:
        with reader.current():
            assert run(reader, "FROM mine") == [(1,)]
        with held(workspace.root / "my.duckdb", read_only=False):
            pass  # it could be opened
        ask(workspace, "INSERT INTO mine VALUES (2)", write=True)
        with reader.current():
            assert run(reader, "SELECT sum(a) FROM mine") == [(3,)]


def test_each_query_sees_what_was_published_last(
    workspace: Workspace, store: Store, table_row: Callable[..., Row]
) -> None:
    with SqlSession(workspace) as session:
        with session.current():
            run(session, "CREATE TEMP VIEW num AS SELECT count(*) AS n FROM problems; USE memory")
        store.append("problems", [table_row("problems", problem_id="p2")])
        store.publish(force=True)
        with session.current():
            assert run(session, "SELECT count(*) FROM heal.problems") == [(3,)]
            assert run(session, "SELECT current_setting('search_path')") == [("memory.main",)]  # as was chosen
            assert run(session, "USE heal; FROM num") == [(3,)]


def test_a_transaction_sees_one_state(workspace: Workspace, store: Store, table_row: Callable[..., Row]) -> None:
    with SqlSession(workspace) as session:
        with session.current():
            assert run(session, "BEGIN; SELECT count(*) FROM problems") == [(2,)]
        store.append("problems", [table_row("problems", problem_id="p2")])
        store.publish(force=True)
        with session.current():
            assert run(session, "SELECT count(*) FROM problems") == [(2,)]
            run(session, "COMMIT")
        with session.current():
            assert run(session, "SELECT count(*) FROM problems") == [(3,)]


def test_a_moved_workspace_finds_its_tokens(
    workspace: Workspace, store: Store, make_slot: Callable[..., Any], make_rows: Callable[..., list[Row]]
) -> None:
    store.append("trajectories", make_rows([make_slot(index=i) for i in range(3)]))
    store.publish(force=True)
    moved = Workspace(workspace.root.with_name("moved to"))
    shutil.copytree(workspace.root, moved.root)
    shutil.rmtree(workspace.parts / "trajectories")
    query = "SELECT count(*), bool_and(len(token_ids) = num_tokens) FROM tokens JOIN trajectories USING (trajectory_id)"
    assert ask(moved, query) == [(3, True)]
    assert ask(moved, query, write=True) == [(3, True)]


def test_tokens_of_another_store_are_its_own(
    workspace: Workspace, store: Store, make_slot: Callable[..., Any], make_rows: Callable[..., list[Row]]
) -> None:
    store.append("trajectories", make_rows([make_slot()]))
    store.publish(force=True)
    other = Workspace(workspace.root.with_name("other"))
    other.create()
    with Store(other) as second:
        second.append("trajectories", make_rows([make_slot(index=i) for i in (1, 2)]))
    query = (
        f"ATTACH '{other.database}' AS other (READ_ONLY);"
        "SELECT (SELECT count(*) FROM tokens), (SELECT count(*) FROM other.tokens)"
    )
    assert ask(workspace, query) == [(1, 2)]


def test_a_missing_store_is_told_and_nothing_is_made(tmp_path: Path) -> None:
    for write in (False, True):
        with pytest.raises(StoreError, match=r"no store at .*heal run"):
            SqlSession(Workspace(tmp_path / "none"), write)
    assert list(tmp_path.glob("none*")) == []


def test_a_damaged_copy_is_told_with_the_remedy(workspace: Workspace) -> None:
    workspace.database.write_bytes(b"no database" * 1000)
    with pytest.raises(StoreError, match=r"heal\.duckdb cannot be read .*`heal store rebuild`"):
        SqlSession(workspace)


def test_damaged_own_tables_do_not_hide_the_store(workspace: Workspace) -> None:
    (workspace.root / "my.duckdb").write_bytes(b"no database" * 1000)
    with SqlSession(workspace) as session, session.current() as notes:
        assert "my.duckdb is left out" in notes[0] and "not a valid DuckDB database" in notes[0]
        assert run(session, "SELECT count(*) FROM problems") == [(2,)]
    with pytest.raises(StoreError, match=r"my\.duckdb cannot be opened for writing"):
        SqlSession(workspace, write=True)
