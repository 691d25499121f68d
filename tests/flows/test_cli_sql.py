"""`heal sql` as a person meets it: where the SQL comes from, what comes out, and the prompt.

What a session refuses, and what it attaches, is tested in tests/heal_core/store.
"""

from __future__ import annotations

import json
import os
import pty
import select
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from flows.cli.sql import parse_parameters, sql
from flows.cli.sql_output import Format
from heal_core.errors import InputError
from heal_core.store.store import Store
from heal_core.store.workspace import Workspace

ROOT = Path(__file__).parents[2]
FIVE = "FROM range(5) t(n)"
FAILING = "SELECT CASE WHEN n = 90000 THEN error('broken') ELSE n END AS n FROM range(100000) t(n)"


def problem(name: str) -> dict[str, Any]:
    return {
        "problem_id": name, "question": f"{name}?", "answer": "1", "source": "s", "uuid": "",
        "problem_type": "math", "spec": None, "chunk_index": 0,
    }  # fmt: skip


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace whose store has three problems."""
    workspace = Workspace(tmp_path_factory.mktemp("asked") / "workspace")
    workspace.create()
    with Store(workspace) as store:
        store.append("problems", [problem(name) for name in "abc"])
    return workspace.root


@pytest.fixture
def ask(workspace: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Return a function that runs `heal sql` in this process and returns what it printed."""

    def ask(query: str | None = None, form: str | None = None, **options: Any) -> str:
        sql(query, workspace, form=Format(form) if form else None, **options)
        return capsys.readouterr().out

    return ask


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "flows.cli.main", "sql", *map(str, arguments)]


# ---- where the SQL and its values come from


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("n=3", 3),
        ("n=-0.5", -0.5),
        ("n=true", True),
        ("n=null", None),
        ("n=hard", "hard"),
        ('n="123"', "123"),
        ("n=", ""),
        ("n=a=b", "a=b"),
        ("n=[1]", "[1]"),
        ("n=NaN", "NaN"),
        ("n=3e1234567890", "3e1234567890"),  # an id, and no infinity
        ("n=two\nlines", "two\nlines"),
    ],
)
def test_a_value_is_a_json_scalar_or_text(text: str, value: Any) -> None:
    assert parse_parameters([text]) == {"n": value}


@pytest.mark.parametrize("texts", [["n"], ["=1"], ["n=1", "n=2"]])
def test_what_is_no_parameter_is_refused(texts: list[str]) -> None:
    with pytest.raises(InputError, match="--param"):
        parse_parameters(texts)


def test_parameters_reach_every_statement(ask: Callable[..., str], tmp_path: Path) -> None:
    file = tmp_path / "two.sql"
    file.write_text(
        "CREATE TEMP TABLE chosen AS SELECT $name AS name; -- a comment;\nSELECT name, $n + 1 AS m FROM chosen"
    )
    assert json.loads(ask(file=file, param=["name=it's", "n=4"], form="json")) == [{"name": "it's", "m": 5}]


@pytest.mark.parametrize(
    ("query", "param", "words"),
    [
        ("SELECT $a", [], r"\$a, which has no value: add --param a=VALUE"),
        ("SELECT $a", ["a=1", "b=2"], r"no \$b; it has \$a"),
        ("SELECT 1", ["b=2"], r"no \$b; it has no parameters"),
        ("SELECT 1; SELECT $a", [], r"\$a, which has no value"),
    ],
)
def test_parameters_and_query_must_fit(ask: Callable[..., str], query: str, param: list[str], words: str) -> None:
    with pytest.raises(InputError, match=words):
        ask(query, param=param)


def test_a_query_and_a_file_are_too_much_and_a_missing_file_is_named(ask: Callable[..., str], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not both"):
        ask("SELECT 1", file=tmp_path / "x.sql")
    with pytest.raises(InputError, match=r"x\.sql cannot be read"):
        ask(file=tmp_path / "x.sql")


@pytest.mark.slow
def test_statements_come_from_a_pipe(workspace: Path) -> None:
    done = subprocess.run(
        command("-w", workspace, "-f", "csv"),
        cwd=ROOT,
        input="SELECT 1 AS a;\nSELECT 2 AS b;\n",
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "b\n2\n", "")


# ---- what comes out


def test_json_has_what_json_can_hold(ask: Callable[..., str]) -> None:
    row = (
        "SELECT TIMESTAMPTZ '2026-01-02 03:04:05.5+00' AS t, DATE '2026-01-02' AS d, 1.50::DECIMAL(9, 2) AS price, "
        "12345678901234567890::HUGEINT AS large, 'nan'::DOUBLE AS nan, [1.5, 'inf'::DOUBLE] AS list, "
        "{'a': NULL, 'b': 'é'} AS struct, MAP {1: 'x'} AS map, '\\xAB'::BLOB AS bytes, '{\"k\": [1]}'::JSON AS json, "
        "1 AS n, 2 AS n"
    )
    (got,) = json.loads(ask(f"SET TimeZone = 'UTC'; {row}", form="json"))
    assert got == {
        "t": "2026-01-02T03:04:05.500000+00:00", "d": "2026-01-02", "price": 1.5, "large": 12345678901234567890,
        "nan": None, "list": [1.5, None], "struct": {"a": None, "b": "é"}, "map": {"1": "x"}, "bytes": "ab",
        "json": {"k": [1]}, "n": 1, "n_1": 2,
    }  # fmt: skip
    assert json.loads(ask("SELECT 1 WHERE false", form="json")) == []


def test_files_have_the_format_of_their_name(ask: Callable[..., str], tmp_path: Path) -> None:
    query = "SELECT problem_id, 3::UTINYINT AS n, [0.5::FLOAT] AS list FROM problems ORDER BY ALL"
    rows = {"problem_id": ["a", "b", "c"], "n": [3, 3, 3], "list": [[0.5]] * 3}
    for name in ("rows.parquet", "rows.csv", "rows.json", "rows.txt"):
        assert ask(query, output=tmp_path / name) == ""
    typed = pl.read_parquet(tmp_path / "rows.parquet")
    assert typed.to_dict(as_series=False) == rows
    assert typed.schema == {"problem_id": pl.String, "n": pl.UInt8, "list": pl.List(pl.Float32)}
    assert pl.read_csv(tmp_path / "rows.csv")["problem_id"].to_list() == ["a", "b", "c"]
    assert [row["list"] for row in json.loads((tmp_path / "rows.json").read_text())] == rows["list"]
    assert "3 rows" in (tmp_path / "rows.txt").read_text()


def test_a_semicolon_in_an_escaped_text_does_not_end_the_query(ask: Callable[..., str], tmp_path: Path) -> None:
    ask(r"SELECT E'it\'s; ok' AS x", output=tmp_path / "rows.csv")
    assert (tmp_path / "rows.csv").read_text() == "x\nit's; ok\n"


@pytest.mark.parametrize("name", ["rows.parquet", "rows.csv", "rows.json", "rows.txt"])
def test_a_file_is_written_whole_or_not_at_all(ask: Callable[..., str], tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("as it was")
    with pytest.raises(InputError, match="broken"):
        ask(FAILING, output=tmp_path / name)
    assert (tmp_path / name).read_text() == "as it was"
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.slow
def test_a_failing_query_never_hangs_while_a_file_is_written(workspace: Path, tmp_path: Path) -> None:
    """DuckDB 2.0.0 did, in one of some dozens of times, for CSV."""
    script = (
        "import sys; from pathlib import Path; from heal_core.errors import InputError\n"
        "from heal_core.store.query import SqlSession; from heal_core.store.workspace import Workspace\n"
        f"failing = {FAILING!r}\n"
        "with SqlSession(Workspace(sys.argv[1])) as session, session.current():\n"
        "    (statement,) = session.split(failing)\n"
        "    for _ in range(300):\n"
        "        try:\n            session.copy(statement, {}, sys.argv[2], 'csv')\n"
        "        except InputError:\n            pass\n"
        "        else:\n            sys.exit('it did not fail')\n"
    )
    command = [sys.executable, "-c", script, str(workspace), str(tmp_path / "rows")]
    subprocess.run(command, cwd=ROOT, check=True, timeout=120)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"output": Path("none/rows.csv")}, "there is no folder"),
        ({"output": Path("rows.xlsx")}, r"rows\.xlsx names no format"),
        ({"output": Path("rows")}, "names no format"),
        ({"output": Path("/dev/null"), "form": "csv"}, "a folder or a device"),
        ({"form": "json", "limit": 3}, "--limit is for tables; json is always complete. Write LIMIT 3"),
        ({"output": Path("/proc/rows.csv")}, r"/proc/rows\.csv cannot be written"),
    ],
)
def test_results_that_cannot_go_there_are_refused(ask: Callable[..., str], options: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        ask(FIVE, **options)


def test_a_table_says_how_many_rows_it_leaves_out(ask: Callable[..., str]) -> None:
    assert "2 of 5 rows; --limit 0 shows all" in ask(FIVE, limit=2)
    assert "5 rows" in ask(FIVE)  # not a terminal: all of them
    assert "1 row\n" in ask("SELECT 'x'")


def test_text_of_a_model_does_not_steer_the_terminal(ask: Callable[..., str]) -> None:
    shown = ask("SELECT chr(27) || '[2J[bold]' || chr(7) AS text")
    assert "\x1b" not in shown and "\x07" not in shown
    assert "\\x1b[2J[bold]\\x07" in shown


def test_a_statement_without_rows_says_that_it_is_done(ask: Callable[..., str], workspace: Path) -> None:
    assert ask("CREATE TABLE mine (a INT)", write=True) == "done\n"
    assert "0 rows" in ask("FROM mine")
    assert ask("DROP TABLE mine", write=True) == "done\n"


def test_a_transaction_left_open_is_told_and_undone(ask: Callable[..., str]) -> None:
    with pytest.raises(InputError, match="without a COMMIT"):
        ask("BEGIN; CREATE TABLE lost AS SELECT 1 AS a", write=True)
    with pytest.raises(InputError, match="lost does not exist"):
        ask("FROM lost")


@pytest.mark.slow
def test_rows_can_be_appended_piped_and_cut_off(workspace: Path, tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    log.write_text("before\n")
    with log.open("a") as stream:
        subprocess.run(command("SELECT 1 AS a", "-w", workspace, "-f", "csv"), cwd=ROOT, stdout=stream, check=True)
    assert log.read_text() == "before\na\n1\n"
    parquet = subprocess.run(command(FIVE, "-w", workspace, "-f", "parquet"), cwd=ROOT, capture_output=True, check=True)
    assert pl.read_parquet(parquet.stdout)["n"].to_list() == [0, 1, 2, 3, 4]
    for form in ("csv", "json"):
        line = shlex.join(command("FROM range(3000000) t(n)", "-w", workspace, "-f", form))
        cut = subprocess.run(["bash", "-c", f"{line} | head -c 100"], cwd=ROOT, capture_output=True, timeout=60)
        assert (len(cut.stdout), cut.stderr) == (100, b"")


# ---- the prompt


class Terminal:
    """`heal sql` at a terminal, and what it shows."""

    def __init__(self, workspace: Path, state: Path, *options: str) -> None:
        own, theirs = pty.openpty()
        environment = {**os.environ, "TERM": "dumb", "COLUMNS": "100", "XDG_STATE_HOME": str(state)}
        self.process = subprocess.Popen(
            command("-w", workspace, *options), cwd=ROOT, env=environment,
            stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True, close_fds=True,
            preexec_fn=_take_terminal,
        )  # fmt: skip
        os.close(theirs)
        self._terminal = own
        self._unread = ""

    def type(self, text: str) -> None:
        os.write(self._terminal, text.encode())

    def wait_for(self, text: str, seconds: float = 30) -> str:
        """Return what was shown up to and including `text`."""
        deadline = time.monotonic() + seconds
        while text not in self._unread:
            assert time.monotonic() < deadline, f"{text!r} was not shown: {self._unread!r}"
            if select.select([self._terminal], [], [], 0.2)[0]:
                self._unread += os.read(self._terminal, 65536).decode(errors="replace")
        shown, _, self._unread = self._unread.partition(text)
        return shown + text

    def answer(self, text: str) -> str:
        """Return what is shown until the next prompt."""
        self.type(text)
        return self.wait_for("heal> ")

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)
        os.close(self._terminal)


def _take_terminal() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@pytest.fixture
def terminal(workspace: Path, tmp_path: Path) -> Iterator[Callable[..., Terminal]]:
    opened: list[Terminal] = []

    def open_terminal(*options: str) -> Terminal:
        opened.append(Terminal(workspace, tmp_path, *options))
        opened[-1].wait_for("heal> ")
        return opened[-1]

    yield open_terminal
    for one in opened:
        one.close()


@pytest.mark.slow
def test_the_prompt_answers_until_the_user_ends_it(terminal: Callable[..., Terminal], tmp_path: Path) -> None:
    prompt = terminal("-p", "n=41")
    assert "42" in prompt.answer("SELECT\n$n + 1 AS m;\n")
    assert "1 row" in prompt.answer("SELECT 'not; here\n';\n")
    assert "1 row" in prompt.answer("SELECT E'it\\'s; there' AS x;\n")
    assert {"quarantine", "funnel"} <= set(prompt.answer(".tables\n").split())
    assert "question" in prompt.answer(".schema problems\n")
    assert "there is no table or view 'nowhere'" in prompt.answer(".schema nowhere\n")
    assert "there is no command .x" in prompt.answer(".x\n")
    assert "LINE 1: FROM nowhere" in prompt.answer("FROM nowhere;\n")
    prompt.type("\x04")
    assert prompt.process.wait(10) == 0
    history = (tmp_path / "heal" / "sql_history").read_text()
    assert "$n + 1 AS m;" in history
    assert (tmp_path / "heal").stat().st_mode & 0o077 == 0


@pytest.mark.slow
def test_ctrl_c_stops_a_query_and_drops_what_was_typed(terminal: Callable[..., Terminal]) -> None:
    prompt = terminal()
    prompt.type("SELECT sum(a.n * b.n) FROM range(10000000) a(n), range(10000000) b(n);\n")
    time.sleep(1.5)
    started = time.monotonic()
    os.killpg(prompt.process.pid, signal.SIGINT)
    prompt.wait_for("stopped")
    assert time.monotonic() - started < 5
    prompt.wait_for("heal> ")
    prompt.type("SELECT half a statement\n")
    prompt.wait_for("...>")
    time.sleep(0.5)  # Python's readline overlooks a signal that comes just before it waits for a key
    os.killpg(prompt.process.pid, signal.SIGINT)
    prompt.wait_for("heal> ")
    assert "7" in prompt.answer("SELECT 3 + 4 AS n;\n")
    prompt.type(".quit\n")
    assert prompt.process.wait(10) == 0


@pytest.mark.slow
def test_the_prompt_sees_what_is_published_meanwhile(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "growing")
    workspace.create()
    with Store(workspace) as store:
        store.append("problems", [problem("a")])
        store.publish(force=True)
        prompt = Terminal(workspace.root, tmp_path / "state")
        try:
            prompt.wait_for("heal> ")
            assert "'num': 1" in prompt.answer("SELECT {'num': count(*)} AS n FROM problems;\n")
            store.append("problems", [problem("b")])
            store.publish(force=True)
            assert "'num': 2" in prompt.answer("SELECT {'num': count(*)} AS n FROM problems;\n")
        finally:
            prompt.close()
