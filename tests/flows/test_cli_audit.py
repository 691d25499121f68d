"""`heal audit` as a person uses it: in a terminal and through a pipe, left in the middle, by several people."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from flows.cli.main import app
from heal_core.errors import InputError, WorkspaceBusyError
from heal_core.store.inspect import fetch_rows, open_store
from heal_core.store.store import Store
from heal_core.store.workspace import Workspace
from tests.conftest import ENVIRONMENT, ROOT

NOW = datetime(2026, 1, 1, tzinfo=UTC)
COMMAND = [sys.executable, "-m", "flows.cli.main", "audit"]


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A workspace with a run that kept three repairs and dropped two; another one was rejected without a score."""
    decided = [("kept", None)] * 3 + [("dropped", "shortcut")] * 2 + [("dropped", "answer_in_problem")]
    hint = _trajectory("hint", kind="hint", text="Hint: Mind the rows.")
    repairs = [
        _trajectory(f"t{n}", kind="repair", text=f"So \x1b[31mtext {n} is [bold]41[/] + 1.", prefix="Kept first.\n\n")
        for n in range(len(decided))
    ]
    tables: dict[str, list[dict[str, Any]]] = {
        "problems": [
            {"problem_id": "p", "question": "How many?", "answer": "42", "source": "s", "uuid": "",
             "problem_type": "math", "spec": None, "chunk_index": 0}
        ],
        "runs": [
            {"run_id": "run", "config": "{}", "problems_digest": "d", "seed": 0, "heal_version": "0",
             "git_revision": None, "started_at": NOW, "basis_id": "run", "attempt": 0, "start_checkpoint_id": None,
             "purpose": "distillation"}
        ],
        "trajectories": [hint, *(row | {"hint_id": "hint"} for row in repairs)],
        "decisions": [
            {"decision_id": f"d{n}", "run_id": "run", "phase": "pure", "subject_id": f"t{n}", "problem_id": "p",
             "decision": decision, "reason": reason, "value": None if reason == "answer_in_problem" else n / 10,
             "arm": None}
            for n, (decision, reason) in enumerate(decided)
        ],
    }  # fmt: skip
    place = Workspace(tmp_path / "ws")
    place.create()
    with place.lock(), Store(place) as store:
        for table, rows in tables.items():
            store.append(table, rows)
    return place.root


def _trajectory(name: str, **changes: Any) -> dict[str, Any]:
    return {
        "trajectory_id": name, "slot_id": f"s{name}", "kind": "repair", "problem_id": "p", "parent_id": None,
        "hint_id": None, "recipe_id": "r", "sample_index": 0, "limit_tokens": 9, "prefix": "", "text": "",
        "finish_reason": "stop", "num_prefix_tokens": 0, "num_tokens": 1, "num_prompt_tokens": 1,
        "num_cached_tokens": None, "entropy_source": None, "entropy_radii": None, "mean_entropy_nats": 0.5,
        "mean_logprob_nats": -0.5, "seconds": 0.1, "created_at": NOW, "token_ids": [1], "logprobs": [-0.5],
        "entropies": [0.5], "token_starts": [0],
    } | changes  # fmt: skip


@pytest.fixture
def audit(workspace: Path) -> Callable[..., Result]:
    """Return a function that runs the command with lines for its input, which then end."""

    def run(*lines: str, auditor: str = "ann", options: tuple[str, ...] = ()) -> Result:
        command = ["audit", "-w", str(workspace), "--auditor", auditor, *options]
        return CliRunner(env={"COLUMNS": "100"}).invoke(app, command, input="".join(f"{line}\n" for line in lines))

    return run


def labels(workspace: Path, table: str = "audits") -> list[dict[str, Any]]:
    with open_store(workspace) as store:
        return fetch_rows(store, f"SELECT * FROM {table} ORDER BY labelled_at")


def test_a_hint_that_was_seen_stays_seen_when_the_label_is_changed(audit: Any, workspace: Path) -> None:
    done = audit("h", "u", "b", "g", "q")
    assert done.exit_code == 0, done.exception
    assert [(row["label"], row["hint_shown"]) for row in labels(workspace)] == [("genuine", True)]


def test_left_in_the_middle_it_goes_on_with_what_has_no_label(audit: Any, workspace: Path) -> None:
    first = audit("g", "s it falls from the sky", "q")
    assert first.exit_code == 0, first.exception
    assert "3 that PURE kept and 2 that it dropped are read" in " ".join(first.stdout.split())
    assert "2 of 5 are labelled, all of it is stored; the same command asks for the other 3" in " ".join(
        first.stdout.split()
    )
    stored = labels(workspace)
    assert [(row["label"], row["note"], row["hint_shown"]) for row in stored] == [
        ("genuine", None, False), ("shortcut", "it falls from the sky", False),
    ]  # fmt: skip
    second = audit("u", "g", "g")
    assert second.exit_code == 0, second.exception
    assert "5 of 5 are labelled" in second.stdout
    asked = [row["trajectory_id"] for row in labels(workspace)]
    # no text twice, each that has a score once; the end of the input ends it too
    assert sorted(asked) == [f"t{n}" for n in range(5)]
    assert "text 1 of 5" in first.stdout and "text 1 of 5" not in second.stdout


def test_back_changes_a_label_and_skip_leaves_a_text_for_the_next_time(audit: Any, workspace: Path) -> None:
    done = audit("g", "k", "b", "b", "s", "k", "q")
    assert done.exit_code == 0, done.exception
    assert "so far you called it genuine" in done.stdout
    # both are kept, the last one counts
    assert [row["label"] for row in labels(workspace, "audit_labels")] == ["genuine", "shortcut"]
    (changed,) = labels(workspace)
    assert changed["label"] == "shortcut"
    assert "4" in audit("q").stdout.split("the other")[1]


def test_nothing_that_is_shown_tells_what_pure_decided_or_steers_the_terminal(audit: Any, workspace: Path) -> None:
    done = audit("?", "nonsense", "h", "g", *["g"] * 4)
    shown = done.stdout.split("text 1 of 5")[1]
    for word in ("dropped", "kept by", "shortcut]", "0.1", "0.3"):
        assert word not in shown
    assert "\x1b[31m" not in shown and "\\x1b[31mtext" in shown and "[bold]41[/]" in shown
    for word in ("How many?", "Kept first.", "42"):
        assert word in shown
    # the hint only where it was asked for, which is noted; without its label
    assert shown.count("Mind the rows.") == 1
    assert [row["hint_shown"] for row in labels(workspace)] == [True, False, False, False, False]


def test_in_a_terminal(workspace: Path) -> None:
    controller, terminal = pty.openpty()
    command = [*COMMAND, "-w", str(workspace), "--auditor", "ann"]
    process = subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal, env=ENVIRONMENT, cwd=ROOT)
    os.close(terminal)
    shown = b""
    for keys in (b"g\n", b"u\n", b"q\n", b""):
        prompts = shown.count(b"? help: ")
        while shown.count(b"? help: ") == prompts or not keys:
            try:
                read = os.read(controller, 4096)
            except OSError:  # how the end of the other side is told
                break
            shown += read
            if not read:
                break
        if keys:
            os.write(controller, keys)
    assert process.wait(60) == 0
    os.close(controller)
    assert b"2 of 5 are labelled" in shown and b"\x1b[31mtext" not in shown
    assert [row["label"] for row in labels(workspace)] == ["genuine", "unsure"]


def test_auditors_are_kept_apart_and_the_report_compares_them(audit: Any) -> None:
    assert "nobody has read repairs" in audit(options=("--report",)).stdout
    audit("g", "g", "s", "s", "g")
    audit("g", "s", "s", "u", "q", auditor="ben")
    report = json.loads(audit(options=("--json",)).stdout)
    assert report["run_id"] == "run"
    by_judges = {(row["one"], row["other"]): row for row in report["agreement"]}
    # of four texts that both read ben is unsure of one; they differ on the second
    assert by_judges["ann", "ben"]["num_texts"] == 3
    assert by_judges["ann", "ben"]["agreed_share"] == pytest.approx(2 / 3)
    assert by_judges["ann", "PURE"]["num_texts"] == 5
    printed = audit(options=("--report",)).stdout
    assert "ann and ben" in printed and "67 %" in printed


def test_it_does_not_write_beside_a_run_but_reports_then(audit: Any, workspace: Path) -> None:
    audit("g", "q")
    with Workspace(workspace).lock():
        assert isinstance(audit("g").exception, WorkspaceBusyError)
        assert audit(options=("--report",)).exit_code == 0
    assert len(labels(workspace)) == 1


def test_a_run_without_decisions_of_pure_and_a_name_that_is_pures_are_refused(audit: Any, workspace: Path) -> None:
    refused = audit(auditor="PURE").exception
    assert isinstance(refused, InputError) and "is not PURE" in str(refused)
    place = Workspace(workspace)
    with place.lock(), Store(place) as store:
        row = store.rows("SELECT * FROM runs")[0]
        store.append("runs", [row | {"run_id": "early"}])
    refused = audit(options=("early",)).exception
    assert isinstance(refused, InputError) and "no repairs that PURE decided on" in str(refused)
