"""`heal verify` as a person meets it; what is graded and told is tested in tests/heal_core/test_reverify.py."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from heal_core.store.store import Store
from heal_core.store.workspace import Workspace
from heal_core.verify.grade import verifier_identity

ROOT = Path(__file__).parents[2]
TOWER = "\\boxed{9^{9^{9^{9}}}}"  # math-verify hangs on it until it is killed

LATER_VERIFIER = """
from heal_core import keys
from heal_core.verify import grade

keys.STAGE_VERSIONS["verdict"] += 1
extract = grade.extract_answer
grade.extract_answer = lambda text: None if (extract(text) or "").startswith("1") else extract(text)
"""
"""A later version of HEAL's own verifier, in every Python process: it reads no answer that begins with a 1."""


@pytest.fixture
def workspace(finished_run: Any, tmp_path: Path) -> Path:
    """Return a copy of a finished run's workspace."""
    copy = tmp_path / "workspace"
    shutil.copytree(finished_run.workspace, copy, symlinks=True, ignore=shutil.ignore_patterns(".prefect", "cache"))
    return copy


@pytest.fixture
def later_heal(heal: Any, tmp_path: Path) -> Any:
    """Return the command `heal` with the later verifier."""
    folder = tmp_path / "later"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(LATER_VERIFIER)
    return dataclasses.replace(heal, environment={"PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])})


@pytest.fixture
def small(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that makes a workspace with one run and rollouts of one problem, whose answer is 5."""

    def make(texts: dict[str, str], label: str, reason: str | None, version: str) -> Path:
        workspace = Workspace(tmp_path / "small")
        workspace.create()
        now = datetime.now(UTC)
        rows = {
            "problems": [
                {"problem_id": "p", "question": "2 + 3?", "answer": "5", "source": "s", "uuid": "",
                 "problem_type": "math", "spec": None, "chunk_index": 0}
            ],
            "runs": [
                {"run_id": "run", "config": json.dumps(SETTINGS), "problems_digest": "d", "seed": 0,
                 "heal_version": "0", "git_revision": None, "started_at": now, "basis_id": "run", "attempt": 0,
                 "start_checkpoint_id": None, "purpose": "distillation"}
            ],
            "trajectories": [_trajectory(name, text, now) for name, text in texts.items()],
            "verdicts": [
                {"verdict_id": f"v{name}", "trajectory_id": name, "label": label, "extracted": None,
                 "reason": reason, "extraction": None,
                 "verifier": "math-verify", "verifier_version": version, "seconds": 5.0,
                 "limit_seconds": 5.0, "created_at": now}
                for name in texts
            ],
            "run_problems": [
                {"run_problem_id": "rp", "run_id": "run", "problem_id": "p", "split": "train", "cluster_id": "p",
                 "benchmark": None}
            ],
            "run_rows": [
                {"run_row_id": f"r{name}", "run_id": "run", "phase": "rollouts", "arm": "", "kind": "rollout",
                 "row_id": name, "cut": False, "verdict_id": f"v{name}"}
                for name in texts
            ],
        }  # fmt: skip
        with workspace.lock(), Store(workspace) as store:
            for table, table_rows in rows.items():
                store.append(table, table_rows)
        return workspace.root

    return make


SETTINGS = {
    "verify": {"timeout_seconds": 5.0, "num_workers": 1, "gone_since": True},
    "bands": {"hard_below": 0.5},
    "rollouts": {"num_generations": 19},
}


def _trajectory(name: str, text: str, now: datetime) -> dict[str, Any]:
    return {
        "trajectory_id": name, "slot_id": f"s{name}", "kind": "rollout", "problem_id": "p", "parent_id": None,
        "hint_id": None, "recipe_id": "r", "sample_index": 0, "limit_tokens": 9, "prefix": "", "text": text,
        "finish_reason": "stop", "num_prefix_tokens": 0, "num_tokens": 1, "num_prompt_tokens": 4,
        "num_cached_tokens": None, "entropy_source": "exact", "entropy_radii": None,
        "mean_entropy_nats": 0.5, "mean_logprob_nats": -0.5, "seconds": 0.1, "created_at": now,
        "token_ids": [1], "logprobs": [-0.5], "entropies": [0.5], "token_starts": [0],
    }  # fmt: skip


def told(heal: Any, workspace: Path, *arguments: str) -> dict[str, Any]:
    """Return what `heal verify --json` says."""
    done = heal("verify", *arguments, "-w", workspace, "--json")
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def values(heal: Any, workspace: Path, sql: str) -> list[dict[str, Any]]:
    done = heal("sql", sql, "-w", workspace, "--format", "json")
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout))


def assert_adds_up(counts: dict[str, int]) -> None:
    assert counts["all"] == sum(num for name, num in counts.items() if name != "all")


RATES = "SELECT run_id, problem_id, num_graded, num_correct FROM pass_rates WHERE run_id = '{}' ORDER BY ALL"


@pytest.mark.slow
def test_a_finished_run_is_verified_by_a_later_verifier_and_only_a_later_run_uses_it(
    heal: Any, later_heal: Any, workspace: Path
) -> None:
    run_id = json.loads(heal("status", "-w", workspace, "--json").stdout)["runs"][0]["run_id"]
    same = told(heal, workspace)
    assert (same["counts"]["pending"], same["labels"], same["num_newly_graded"]) == (0, [], 0)
    rates = values(heal, workspace, RATES.format(run_id))
    one = "count(*) FILTER (label = 'correct' AND starts_with(extracted, '1')) AS num"
    (expected,) = values(heal, workspace, f"SELECT count(*) AS graded, {one} FROM latest_verdicts")
    assert expected["num"] > 0

    planned = told(later_heal, workspace, "--dry-run")
    assert (planned["counts"]["pending"], planned["num_newly_graded"]) == (expected["graded"], 0)
    assert told(later_heal, workspace, "--dry-run")["counts"] == planned["counts"]
    found = told(later_heal, workspace)
    assert found["num_newly_graded"] == expected["graded"] == sum(row["num"] for row in found["labels"])
    assert found["num_flipped"] == expected["num"]
    flips = [row for row in found["labels"] if row["before_label"] != row["now_label"]]
    assert {(row["before_label"], row["now_label"]) for row in flips} == {("correct", "wrong")}
    assert sum(row["num"] for row in flips) == expected["num"]
    assert_adds_up(found["counts"])
    assert found["counts"]["hints"] > 0

    again = later_heal("verify", "-w", workspace)
    assert again.returncode == 0, again.stderr
    assert "0 graded now" in again.stdout and f"{expected['num']} flipped" in again.stdout
    example = found["examples"][0]["trajectory_id"]
    assert example in again.stdout
    assert "wrong (no_answer)" in later_heal("show", example, "-w", workspace).stdout

    assert values(heal, workspace, RATES.format(run_id)) == rates
    later = later_heal("run", heal.config(workspace), "--phase", "rollouts")
    assert later.returncode == 0, later.stderr
    assert "Nothing to do: phase rollouts had all that it needs." in later.stdout
    (new,) = values(heal, workspace, f"SELECT run_id FROM runs WHERE run_id <> '{run_id}'")
    (correct,) = values(
        heal,
        workspace,
        "SELECT count(*) FILTER (label = 'correct' AND NOT starts_with(extracted, '1')) AS kept, "
        f"count(*) FILTER (label = 'correct') AS num FROM run_trajectories WHERE run_id = '{run_id}' "
        "AND phase = 'rollouts'",
    )
    assert sum(row["num_correct"] for row in values(heal, workspace, RATES.format(new["run_id"]))) == correct["kept"]
    changed = found["problems"]["num_pass_rate_changed"]
    before = {row["problem_id"]: (row["num_graded"], row["num_correct"]) for row in rates}
    now = values(heal, workspace, RATES.format(new["run_id"]))
    assert sum(before[row["problem_id"]] != (row["num_graded"], row["num_correct"]) for row in now) == changed > 0


def test_what_ran_out_of_time_gets_more(heal: Any, small: Any) -> None:
    workspace = small({"a": "So \\boxed{5}."}, "unverifiable", "timeout", verifier_identity("math")[1])
    as_before = heal("verify", "-w", workspace)
    assert as_before.returncode == 0, as_before.stderr
    assert f"heal verify verify.timeout_seconds=20 -w {workspace}" in as_before.stdout
    longer = heal("verify", "verify.timeout_seconds=20", "-w", workspace)
    assert longer.returncode == 0, longer.stderr
    assert "1 trajectories: 1 graded now, 0 had such a verdict" in longer.stdout
    assert re.search(r"rollout +unverifiable +correct +1", longer.stdout)
    assert "`heal run CONFIG.yaml verify.timeout_seconds=20` uses these verdicts" in longer.stdout
    assert "1 of 1 would have another pass rate" in longer.stdout
    assert told(heal, workspace, "run", "verify.timeout_seconds=20")["num_newly_graded"] == 0


def test_a_workspace_in_use_and_mistakes_are_refused(heal: Any, small: Any, tmp_path: Path) -> None:
    workspace = small({"a": "So \\boxed{5}."}, "correct", None, "0")
    with Workspace(workspace).lock():
        busy = heal("verify", "-w", workspace)
    assert busy.returncode == 2
    assert f"is in use by process {os.getpid()}" in busy.stderr
    for arguments, message in (
        (["teacher.dtype=float32"], "only settings of `verify` are used here"),
        (["verify.timeout=3"], "did you mean 'timeout_seconds'?"),
        (["verify.num_workers=0"], "key 'verify.num_workers' has the value 0"),
        (["run", "last"], "one run, or none"),
        (["nope"], "no run has an id that begins with 'nope'"),
        (["--kind", "hint"], "expected one of rollout, guided, repair"),
    ):
        refused = heal("verify", *arguments, "-w", workspace)
        assert (refused.returncode, message in refused.stderr) == (2, True), refused.stderr
    nowhere = heal("verify", "-w", tmp_path / "mistyped")
    assert nowhere.returncode == 2 and not (tmp_path / "mistyped").exists()
    assert told(heal, workspace, "--dry-run")["counts"]["pending"] == 1


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_done_and_the_same_command_goes_on(heal: Any, small: Any) -> None:
    texts = {f"a{index}": "So \\boxed{5}." for index in range(10)} | {f"z{index}": TOWER for index in range(9)}
    workspace = small(texts, "wrong", "different", "0")
    command = heal._command(("verify", "verify.timeout_seconds=1", "-w", workspace))
    master, terminal = os.openpty()
    process = subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, "TERM": "xterm"}, stdout=terminal, stderr=terminal, start_new_session=True
    )
    os.close(terminal)
    shown = _read_until(master, r"verdicts: 1\d of 19")
    os.killpg(process.pid, signal.SIGINT)
    shown += _read_until(master, "interrupted: what is finished is stored")
    assert process.wait(30) == 130, shown
    os.close(master)
    done = told(heal, workspace, "verify.timeout_seconds=1", "--dry-run")["counts"]
    assert done["answered"] >= 10 and done["pending"] >= 1
    rest = told(heal, workspace, "verify.timeout_seconds=1")
    assert rest["num_newly_graded"] == done["pending"]
    assert {(row["now_label"], row["num"]) for row in rest["labels"]} == {("correct", 10), ("unverifiable", 9)}


def _read_until(descriptor: int, pattern: str, seconds: float = 120) -> str:
    """Return what a terminal shows up to a moment."""
    shown, deadline = "", time.monotonic() + seconds
    while not re.search(pattern, shown):
        assert time.monotonic() < deadline, f"the moment never came: {shown}"
        if select.select([descriptor], [], [], 1)[0]:
            shown += os.read(descriptor, 65536).decode(errors="replace")
    return shown
