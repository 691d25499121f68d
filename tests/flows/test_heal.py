"""The whole method, run once as a user runs it: its tables must agree with each other and with the method."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

pytestmark = pytest.mark.slow

ARMS = ["heal", "rejection_sampling", "equal_tokens"]
K = 2


def test_summary_names_and_counts(finished_run: Any) -> None:
    summary = finished_run.summary
    assert {
        "problems", "rollouts", "bands", "repairs", "stages", "evaluation", "generated", "wall_seconds"
    } <= summary.keys()  # fmt: skip
    assert summary["problems"] == 36
    assert summary["rollouts"] == summary["generated"]["rollouts"] - num_rows(finished_run, "equal_tokens") == 36 * 8
    assert sum(summary["bands"].values()) + sum(summary["held_out_bands"].values()) == 36
    assert all(summary["bands"][band] for band in ("easy", "hard", "extremely_hard"))
    repairs = summary["repairs"]
    assert repairs["attempted"] >= repairs["verified"] >= repairs["passed_gates"] >= repairs["kept"] > 0
    assert repairs["attempted"] == summary["generated"]["repairs"] == num_rows(finished_run, "repairs")
    assert [stage["name"] for stage in summary["stages"]] == ["I", "II", "III"]
    assert summary["generated"]["tokens"] == finished_run.one("SELECT sum(num_tokens)::BIGINT FROM trajectories")


def num_rows(run: Any, phase: str) -> int:
    return int(run.one(f"SELECT count(*) FROM run_rows WHERE phase = '{phase}'"))


def test_summary_evaluates_every_arm_on_the_same_problems(finished_run: Any) -> None:
    evaluation = finished_run.summary["evaluation"]
    assert evaluation.keys() == {"teacher", "base", *ARMS}
    held_out = sum(finished_run.summary["held_out_bands"].values())
    for scores in evaluation.values():
        assert (scores["k"], scores["problems"]) == (K, held_out)
        assert 0 <= scores["avg_at_k"] <= 1 and scores["standard_error"] >= 0
        assert sum(band["problems"] for band in scores["bands"].values()) == held_out
    assert evaluation["teacher"]["avg_at_k"] > evaluation["base"]["avg_at_k"]


def test_outcomes_of_every_phase_add_up(finished_run: Any) -> None:
    done = finished_run.heal("sql", "SELECT * FROM funnel", "--format", "json", "-w", finished_run.workspace)
    outcomes: Counter[str] = Counter()
    totals = {}
    for row in json.loads(done.stdout):
        outcomes[row["phase"]] += row["num"]
        totals[row["phase"]] = row["num_in_phase"]
        assert row["outcome"] not in (None, "undecided"), row
    assert outcomes == totals
    assert outcomes["rows"] == outcomes["problems"] == 36
    assert outcomes["rollouts"] == 36 * 8
    assert outcomes["repairs"] == num_rows(finished_run, "repairs")
    assert outcomes["guided"] == num_rows(finished_run, "guided")


def decided(run: Any, phase: str, kind: str) -> dict[str, str]:
    rows = run.rows(
        "SELECT subject_id, decision FROM decisions JOIN trajectories ON trajectory_id = subject_id "
        f"WHERE phase = '{phase}' AND kind = '{kind}'"
    )
    return {row["subject_id"]: row["decision"] for row in rows}


def kept(decisions: dict[str, str]) -> set[str]:
    return {subject for subject, decision in decisions.items() if decision == "kept"}


def verified(run: Any, phase: str) -> set[str]:
    query = f"SELECT trajectory_id FROM run_trajectories WHERE phase = '{phase}' AND label = 'correct'"
    return {row["trajectory_id"] for row in run.rows(query)}


def test_each_decision_takes_what_the_one_before_kept(finished_run: Any) -> None:
    gate, pure, cap = (decided(finished_run, phase, "repair") for phase in ("gate", "pure", "cap"))
    assert gate.keys() == verified(finished_run, "repairs") != set()
    assert pure.keys() == kept(gate) != set()
    assert cap.keys() == kept(pure) != set()
    guided_gate, guided_cap = (decided(finished_run, phase, "guided") for phase in ("gate", "cap"))
    assert guided_gate.keys() == verified(finished_run, "guided")
    assert guided_cap.keys() == kept(guided_gate)
    repaired = finished_run.rows("SELECT trajectory_id FROM stage_mix_rows") if False else None
    assert repaired is None


def stage_rows(run: Any, arm: str, stage: str) -> list[dict[str, Any]]:
    return list(
        run.rows(
            "SELECT s.trajectory_id, s.problem_id, t.kind, t.prefix || t.text AS response, h.text AS hint, r.split "
            "FROM stage_examples s JOIN trajectories t USING (trajectory_id) "
            "JOIN run_problems r ON r.problem_id = s.problem_id "
            "LEFT JOIN trajectories h ON h.trajectory_id = t.hint_id "
            f"WHERE arm = '{arm}' AND stage = '{stage}' ORDER BY position"
        )
    )
