"""The cookbook's queries are run on a finished run, and their answers are looked at.

Beside the finished run stands a second one, made from its rows with one other setting, so
that questions about two runs have an answer; and what a good demo lacks: refused rows, two
verdicts that differ, two problems that are near-duplicates.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from heal_core.prompts import student_prompt
from heal_core.store.query import SqlSession
from heal_core.store.store import Store
from heal_core.store.workspace import Workspace

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^#+ (?P<heading>[^\n]+)$|^```(?P<language>\w+)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)
SHARE = re.compile(r"(^|_)(share|rate|at_k|place)$")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS = [
    (page.name, query) for page in PAGES for query in re.findall(r'^[^`\n]*heal sql "([^"]+)"', page.read_text(), re.M)
]

OWN_TABLES = "How do I note something about a row?"
ELSEWHERE = "How do I compare runs of two workspaces?"

WITHOUT_ROWS = {
    ("What became of everything?", 1),  # phases of the funnel that do not add up
    (OWN_TABLES, 0),  # CREATE TABLE
}
"""Blocks (question, number) whose answer must be empty."""
MAYBE_WITHOUT_ROWS = {
    "Which problems failed, at what, and why?",
    "Which training problems are still never solved?",
    "Which held-out problems does only HEAL's student solve?",
    "Which reference answers look wrong?",
    "What was given up early, and what did that save?",  # tests/heal_core/store/test_views.py has some
    "Which rollouts were imported, and from where?",  # tests/flows/test_cli_import.py has some
    "What did people say of the repairs that PURE judged?",  # tests/flows/test_cli_audit.py has some
    "What did lm-evaluation-harness measure?",  # tests/flows/test_cli_eval.py has some
    "Do PURE's scores tell shortcuts from reasoning?",  # tests/flows/test_cli_validity.py has some
    "How does each arm do on each benchmark?",  # there is one; tests/flows/test_cli_eval.py has two
    "How many breakpoints are certain?",  # all are, of exact entropies; tests/tasks/test_rescoring.py has others
}
"""Questions to which a small run may have no answer."""
MAYBE_NULL = {
    "Which runs are there, and how far did they get?": {"git_revision"},  # outside a working tree
    "Which rollouts were imported, and from where?": {"source"},  # of sampled ones
    "How good is an arm with k tries?": {"benchmark"},  # there is one only
    "Is HEAL's lead over the baselines more than noise?": {"benchmark"},
    # G2, G8 and G10 measure nothing, G6 judges nothing
    "How often does a gate refuse an innocent text?": {"rollouts_mean", "repairs_mean", "guided_share"},
    "What did a gate see?": {"value"},
    "What does it cost in money?": {"num_cached_tokens"},  # the engine hf caches nothing from sample to sample
    "What was decided about one text, and in which runs?": {"reason"},  # the text is one that was kept
    "Which repairs did PURE drop, and why?": {"reason"},  # few candidates may all be kept
}
"""Columns that may have no value at all."""


@dataclass(frozen=True)
class Block:
    """A fenced block of the page, under its question."""

    question: str
    language: str
    text: str


def read_blocks() -> list[Block]:
    question, blocks = "", []
    for found in BLOCK.finditer((ROOT / "docs/sql.md").read_text()):
        question = found["heading"] or question
        if found["text"]:
            blocks.append(Block(question, found["language"], found["text"]))
    return blocks


BLOCKS = read_blocks()
QUESTIONS = list(dict.fromkeys(block.question for block in BLOCKS if block.language == "sql"))

Rows = list[dict[str, Any]]


def answers(workspace: Path, question: str, values: dict[str, Any], write: bool = False) -> list[Rows]:
    """Return the rows of each SQL block of a question, as `heal sql` gives them."""
    found = []
    with SqlSession(Workspace(workspace), write) as session, session.current():
        for block in (block for block in BLOCKS if block.question == question and block.language == "sql"):
            for statement in session.split(block.text):
                result = session.run(statement, values)
                rows = [dict(zip(result.columns, row, strict=True)) for row in result.rows]
                assert len(set(result.columns)) == len(result.columns)
            found.append(rows)
    return found


# ---- without rows


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the workspaces `demo` and `demo2`, whose stores hold no rows."""
    folder = tmp_path_factory.mktemp("empty")
    for name in ("demo", "demo2"):
        workspace = Workspace(folder / name)
        workspace.create()
        Store(workspace).close()
    return folder


def test_documents_hold_queries() -> None:
    assert len(QUESTIONS) >= 25
    assert any(page == "README.md" for page, _ in COMMANDS)
    named = {question for question, _ in WITHOUT_ROWS} | MAYBE_WITHOUT_ROWS | MAYBE_NULL.keys() | {OWN_TABLES}
    assert named <= set(QUESTIONS)


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_question_can_be_asked_of_a_store_without_rows(
    empty: Path, question: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(empty)
    values = dict.fromkeys(("run", "run_a", "run_b", "trajectory"), "nothing")
    assert answers(Path("demo"), question, values, write=question == OWN_TABLES)


@pytest.mark.parametrize(("page", "query"), [pytest.param(*command, id=command[1][:60]) for command in COMMANDS])
def test_command_in_a_document_runs(empty: Path, page: str, query: str) -> None:
    with SqlSession(Workspace(empty / "demo")) as session, session.current():
        for statement in session.split(query):
            list(session.run(statement, {}).rows)


def test_links_to_questions_lead_to_one() -> None:
    page = (ROOT / "docs/sql.md").read_text()
    anchors = {re.sub(r"[^\w -]", "", name.lower()).replace(" ", "-") for name in re.findall(r"^#+ (.+)$", page, re.M)}
    links = re.findall(r"\]\(#([^)]+)\)", page)
    assert links and [link for link in links if link not in anchors] == []


# ---- on a finished run


@dataclass(frozen=True)
class Demo:
    """A folder with two workspaces, and values for the parameters of the page."""

    folder: Path
    values: dict[str, str]

    def ask(self, question: str) -> list[Rows]:
        """Return the rows of each block; `demo2` has the finished run only."""
        values = self.values | ({"run_a": "second", "run_b": self.values["run"]} if question == ELSEWHERE else {})
        return answers(Path("demo"), question, values, write=question == OWN_TABLES)


@pytest.fixture(scope="module")
def two_runs(finished_run: Any, tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """The finished run twice: alone in `demo2`, with a second run and with faults in `demo`."""
    folder = tmp_path_factory.mktemp("cookbook")
    shutil.copytree(finished_run.workspace, folder / "demo", symlinks=True)
    (folder / "demo2").symlink_to(finished_run.workspace)
    with Store(Workspace(folder / "demo")) as store:
        (run,) = store.rows("SELECT run_id FROM runs")
        add_second_run(store)
        add_prices(store)
        add_faults(store)
        (example,) = store.rows(
            "SELECT trajectory_id FROM example_lineage WHERE kind = 'repair' AND stage = 'III' AND run_id = ? "
            "ORDER BY position LIMIT 1",
            [run["run_id"]],
        )
    values = {"run": run["run_id"], "run_a": run["run_id"], "run_b": "second", "trajectory": example["trajectory_id"]}
    return Demo(folder, values)


@pytest.fixture
def demo(two_runs: Demo, monkeypatch: pytest.MonkeyPatch) -> Demo:
    """The same, with its folder as the current one: the page names workspaces as they are seen from there."""
    monkeypatch.chdir(two_runs.folder)
    return two_runs


def add_second_run(store: Store) -> None:
    """Store the run `second`, a day later: it uses and decides what the first does, with one other setting.

    Only, it takes two training problems for near-duplicates.
    """
    for table in store.tables:
        key, *columns = [row["column_name"] for row in store.rows(f"DESCRIBE {table}")]
        if table == "runs":
            (run,) = store.rows("SELECT * FROM runs")
            config = json.loads(run["config"])
            config["pure"]["drop_fraction"] = 0.3
            started_at = run["started_at"] + timedelta(days=1)
            store.append(table, [run | {"run_id": "second", "config": json.dumps(config), "started_at": started_at}])
        elif "run_id" in columns:
            rows = store.rows(f"SELECT * FROM {table} ORDER BY ALL")
            if table == "run_problems":
                one, other = [row for row in rows if row["split"] == "train"][:2]
                other["cluster_id"] = one["cluster_id"]
            store.append(table, [row | {key: f"second {row[key]}", "run_id": "second"} for row in rows])


def add_prices(store: Store) -> None:
    """Note prices for the run `second`, as its start would have done with them in the config."""
    price = {"currency": "USD", "prompt": 0.1, "cached_prompt": None, "completion": 0.4, "hour": 2.0}
    event = {
        "event_id": "price",
        "run_id": "second",
        "event": "priced",
        "phase": None,
        "happened_at": datetime.now(UTC),
    }
    prices = dict.fromkeys(("teacher", "scorer", "student"), price)
    store.append("run_events", [event | {"detail": json.dumps({"prices": prices})}])


def add_faults(store: Store) -> None:
    """Store what a good demo lacks: refused rows, one of them contaminated, and a verdict that differs."""
    refused = {"quarantine_id": "q", "run_id": "second", "source": "problems.jsonl", "line": 7, "reason": "no_answer"}
    refused |= dict.fromkeys(("problem_id", "phase", "work", "quarantined_at"))
    store.append("quarantine", [refused | {"raw": '{"question": "1 + 1?"}'}])
    contaminated = refused | {
        "quarantine_id": "c",
        "line": 8,
        "reason": "contaminated: holds 3 of the 3 8-grams of e, line 2",
    }
    store.append("quarantine", [contaminated | {"raw": "{}"}])
    match = {"contamination_id": "c", "run_id": "second", "source": "problems.jsonl", "line": 8, "problem_id": "gone"}
    match |= {"evaluation_set": "e", "evaluation_source": "e", "evaluation_line": 2, "num_shared": 3, "num_ngrams": 3}
    texts = dict.fromkeys(
        ("question", "evaluation_question", "passage"), "how many sides has a square with four corners"
    )
    store.append("contamination", [match | texts])
    (verdict,) = store.rows("SELECT * FROM verdicts WHERE label = 'correct' ORDER BY verdict_id LIMIT 1")
    changes = {"verdict_id": "newer", "verifier_version": "99", "label": "wrong", "reason": "different"}
    store.append("verdicts", [verdict | changes])


@pytest.mark.slow
@pytest.mark.parametrize("question", QUESTIONS)
def test_the_answer_to_a_question_is_plausible(demo: Demo, question: str) -> None:
    for number, rows in enumerate(demo.ask(question)):
        if (question, number) in WITHOUT_ROWS:
            assert rows == []
            continue
        assert rows or question in MAYBE_WITHOUT_ROWS
        for name in rows[0] if rows else ():
            check_column(name, [row[name] for row in rows], MAYBE_NULL.get(question, set()))


def check_column(name: str, values: list[Any], maybe_null: set[str]) -> None:
    """Refuse a column without any value, shares outside [0, 1], numbers that are none, and negative counts."""
    known = [value for value in values if value is not None]
    assert known or name in maybe_null, f"column {name} has no value"
    numbers = [float(value) for value in known if isinstance(value, int | float) or hasattr(value, "as_tuple")]
    assert all(math.isfinite(number) for number in numbers), name
    if SHARE.search(name):
        assert all(0 <= number <= 1 for number in numbers), name
    if name.startswith(("num_", "problems")):
        assert all(number >= 0 for number in numbers), name


@pytest.mark.slow
def test_pass_at_1_is_the_mean_pass_rate_and_more_samples_solve_no_less(demo: Demo, finished_run: Any) -> None:
    (rows,) = demo.ask("How much would more rollouts solve?")
    curve = {row["k"]: row["pass_at_k"] for row in rows if row["run_id"] == "second" and row["split"] == "train"}
    mean = finished_run.one("SELECT avg(pass_rate) FROM pass_rates WHERE split = 'train'")
    assert curve[1] == pytest.approx(mean)
    assert list(curve.values()) == sorted(curve.values())
    # the reduced demo has 8 rollouts; with all of them the share is that of the problems with a correct one
    solved = finished_run.one("SELECT avg((num_correct > 0)::INT) FROM pass_rates WHERE split = 'train'")
    assert curve[8] == pytest.approx(solved)


@pytest.mark.slow
def test_entropy_rises_at_the_breakpoint(demo: Demo) -> None:
    # a breakpoint is where the mean entropy of a step rises most
    (rows,) = demo.ask("How does the entropy of steps run around the breakpoint?")
    steps = {row["step_from_break"]: row["mean_entropy_nats"] for row in rows if row["run_id"] == "second"}
    assert steps[0] > steps[-1]
    (tokens,) = demo.ask("How does the entropy of tokens run around the breakpoint?")
    assert {row["token_from_break"] for row in tokens} == set(range(-10, 11))


@pytest.mark.slow
def test_token_pieces_join_to_the_text(demo: Demo, finished_run: Any) -> None:
    block = next(block for block in BLOCKS if block.question == "Which words is the teacher unsure of?")
    pieces = re.search(r"unnest\((\[t\.text.*?\])\) AS piece", block.text, re.DOTALL)
    assert pieces
    joined = f"array_to_string({pieces[1]}, '') AS joined"
    rows = finished_run.rows(f"SELECT t.text, {joined} FROM trajectories t JOIN tokens k USING (trajectory_id)")
    assert rows and all(row["joined"] == row["text"] for row in rows)


@pytest.mark.slow
def test_messages_are_what_the_student_is_trained_on(demo: Demo, finished_run: Any) -> None:
    (rows,) = demo.ask("How do I get training examples as chat messages?")
    expected = finished_run.rows(
        "SELECT p.question, t.prefix || t.text AS response FROM stage_examples e "
        "JOIN trajectories t USING (trajectory_id) JOIN problems p ON p.problem_id = e.problem_id "
        "WHERE e.arm = 'heal' AND e.stage = 'III' ORDER BY e.position"
    )
    assert [[message["content"] for message in row["messages"]] for row in rows] == [
        [student_prompt(row["question"]), row["response"]] for row in expected
    ]


@pytest.mark.slow
def test_two_runs_differ_in_what_was_made_to_differ(demo: Demo) -> None:
    assert demo.ask("What was set differently?") == [
        [{"setting": "pure.drop_fraction", "run_a": "0.2", "run_b": "0.3"}]
    ]
    for question in ("What came out differently?", ELSEWHERE):
        (rows,) = demo.ask(question)
        only = [row for row in rows if row["difference"] != pytest.approx(0, abs=1e-9)]
        assert [(row["item"], row["metric"]) for row in only] == [
            ("rows", "quarantined: contaminated"), ("rows", "quarantined: no_answer")
        ]  # fmt: skip
        assert len(rows) > 100


@pytest.mark.slow
def test_verdicts_that_differ_are_found(demo: Demo) -> None:
    (rows,) = demo.ask("On which texts do verifiers disagree?")
    assert [(row["differs_in"], row["earlier_label"], row["later_label"]) for row in rows] == [
        ("version", "correct", "wrong")
    ]


@pytest.mark.slow
def test_examples_in_python_print_something(demo: Demo) -> None:
    scripts = [block.text for block in BLOCKS if block.language == "python"]
    assert len(scripts) >= 2
    for script in scripts:
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("shape: (") >= 1


@pytest.mark.slow
def test_commands_of_the_shell_write_what_they_say(demo: Demo) -> None:
    commands = [block.text for block in BLOCKS if block.language == "sh" and block.text.startswith("heal ")]
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    for script in commands:
        done = subprocess.run(["bash", "-ec", script], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    tokens, scores = pl.read_parquet("tokens.parquet"), pl.read_parquet("scores.parquet")
    assert (tokens["entropies"].list.len() == tokens["num_tokens"]).all() and not tokens.is_empty()
    assert scores["rule"].is_in(["problem", "pooled", "rejected"]).all() and not scores.is_empty()
    assert pl.read_csv("evaluation.csv")["avg_at_k"].is_between(0, 1).all()
