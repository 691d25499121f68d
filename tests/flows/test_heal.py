"""The whole method, run once as a user runs it: its tables must agree with each other and with the method."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

NUM_PROBLEMS, N, K = 36, 8, 2
ARMS = ["heal", "rejection_sampling", "equal_tokens"]
STAGES = ["I", "II", "III"]


def test_the_summary_counts_what_the_store_holds(finished_run: Any) -> None:
    summary = finished_run.summary
    named = {"problems", "rollouts", "bands", "repairs", "stages", "evaluation", "generated", "wall_seconds"}
    assert named <= summary.keys()
    assert summary["problems"] == NUM_PROBLEMS
    assert summary["rollouts"] == NUM_PROBLEMS * N
    bands, held_out = summary["bands"], summary["held_out_bands"]
    assert all(bands[band] for band in ("easy", "hard", "extremely_hard"))
    assert sum(bands.values()) + sum(held_out.values()) == NUM_PROBLEMS
    repairs = summary["repairs"]
    assert repairs["attempted"] > repairs["verified"] >= repairs["passed_gates"] >= repairs["kept"] > 0
    assert [stage["name"] for stage in summary["stages"]] == STAGES
    assert 0 < summary["wall_seconds"] < 600


def test_a_first_run_has_generated_everything(finished_run: Any) -> None:
    generated = finished_run.summary["generated"]
    kinds = finished_run.rows(
        "SELECT kind, count(*) AS num, sum(num_tokens)::BIGINT AS num_tokens FROM trajectories GROUP BY kind"
    )
    counts = {row["kind"]: row["num"] for row in kinds}
    assert generated["rollouts"] + generated["evaluation"] == counts["rollout"]
    assert generated["repairs"] == finished_run.summary["repairs"]["attempted"] == counts["repair"]
    assert (generated["hints"], generated["guided"]) == (counts["hint"], counts["guided"])
    assert generated["tokens"] == sum(row["num_tokens"] for row in kinds)


def test_the_outcomes_of_every_phase_add_up(finished_run: Any) -> None:
    done = finished_run.heal("sql", "SELECT * FROM funnel", "--format", "json", "-w", finished_run.workspace)
    outcomes: Counter[str] = Counter()
    totals = {}
    for row in json.loads(done.stdout):
        assert row["outcome"] not in (None, "undecided"), row
        outcomes[row["phase"]] += row["num"]
        totals[row["phase"]] = int(row["num_in_phase"])
    assert outcomes == totals
    assert outcomes["rows"] == outcomes["problems"] == NUM_PROBLEMS
    for phase in ("rollouts", "repairs", "guided"):
        assert outcomes[phase] == finished_run.one(f"SELECT count(*) FROM run_rows WHERE phase = '{phase}'") > 0


def decided(run: Any, phase: str, kind: str) -> dict[str, str]:
    """Return the decision on each trajectory of a kind in a phase."""
    rows = run.rows(
        "SELECT subject_id, decision FROM decisions JOIN trajectories ON trajectory_id = subject_id "
        f"WHERE phase = '{phase}' AND kind = '{kind}'"
    )
    return {row["subject_id"]: row["decision"] for row in rows}


def kept(decisions: dict[str, str]) -> set[str]:
    assert set(decisions.values()) <= {"kept", "dropped"}
    return {subject for subject, decision in decisions.items() if decision == "kept"}


def verified(run: Any, phase: str) -> set[str]:
    query = f"SELECT trajectory_id AS id FROM run_trajectories WHERE phase = '{phase}' AND label = 'correct'"
    return {row["id"] for row in run.rows(query)}


def stage_ids(run: Any, arm: str, stage: str) -> list[str]:
    query = (
        f"SELECT trajectory_id AS id FROM stage_examples WHERE arm = '{arm}' AND stage = '{stage}' ORDER BY position"
    )
    return [row["id"] for row in run.rows(query)]


def test_each_decision_takes_up_what_the_one_before_kept(finished_run: Any) -> None:
    gate, pure, cap = (decided(finished_run, phase, "repair") for phase in ("gate", "pure", "cap"))
    assert gate.keys() == verified(finished_run, "repairs")
    assert pure.keys() == kept(gate)
    assert cap.keys() == kept(pure)
    assert kept(cap)
    guided_gate, guided_cap = (decided(finished_run, phase, "guided") for phase in ("gate", "cap"))
    assert guided_gate.keys() == verified(finished_run, "guided")
    assert guided_cap.keys() == kept(guided_gate)
    base, guided, repairs = kept(decided(finished_run, "cap", "rollout")), kept(guided_cap), kept(cap)
    for stage, members in zip(STAGES, (base, base | guided, base | guided | repairs), strict=True):
        assert sorted(stage_ids(finished_run, "heal", stage)) == sorted(members)


def test_no_example_holds_a_hint_or_comes_from_a_held_out_problem(finished_run: Any) -> None:
    rows = finished_run.rows(
        "SELECT s.arm, t.prefix || t.text AS response, h.text AS hint, p.split, v.label FROM stage_examples s "
        "JOIN trajectories t USING (trajectory_id) JOIN run_problems p ON p.problem_id = s.problem_id "
        "LEFT JOIN latest_verdicts v USING (trajectory_id) LEFT JOIN trajectories h ON h.trajectory_id = t.hint_id"
    )
    assert {row["arm"] for row in rows} == set(ARMS)
    assert {row["split"] for row in rows} == {"train"}
    assert {row["label"] for row in rows} == {"correct"}
    hinted = [row for row in rows if row["hint"]]
    assert hinted
    assert not [row for row in hinted if row["hint"].strip() in row["response"]]


def test_b1_trains_on_stage_one_three_times(finished_run: Any) -> None:
    for stage in STAGES:
        assert stage_ids(finished_run, "rejection_sampling", stage) == stage_ids(finished_run, "heal", "I")


def test_arms_take_equal_steps_in_three_chained_stages(finished_run: Any) -> None:
    steps = {}
    for arm in ARMS:
        rows = finished_run.rows(
            "SELECT c.* FROM run_rows JOIN checkpoints c ON checkpoint_id = row_id "
            f"WHERE phase = 'training' AND arm = '{arm}' ORDER BY c.stage"
        )
        assert [row["stage"] for row in rows] == STAGES
        assert [row["parent_checkpoint_id"] for row in rows] == [None, *(row["checkpoint_id"] for row in rows[:2])]
        for row in rows:
            folder = finished_run.workspace / row["folder"]
            assert (folder / "model.safetensors").is_file()
            link = finished_run.workspace / "students" / arm / f"stage-{row['stage']}"
            assert link.resolve() == folder.resolve()
        steps[arm] = [row["num_optimizer_steps"] for row in rows]
    assert steps["heal"] == steps["rejection_sampling"] == steps["equal_tokens"]
    assert [stage["optimizer_steps"] for stage in finished_run.summary["stages"]] == steps["heal"]


def test_b2_spends_what_heal_spent_and_stops_there(finished_run: Any) -> None:
    rows = finished_run.rows(
        "WITH extra AS (SELECT problem_id, sum(num_tokens) AS budget FROM run_trajectories "
        "  WHERE phase IN ('hints', 'repairs', 'guided') GROUP BY problem_id), "
        "spent AS (SELECT problem_id, sum(num_tokens) AS tokens, min(sample_index) AS first, "
        "  max_by(num_tokens, sample_index) AS last FROM run_trajectories "
        "  WHERE phase = 'equal_tokens' GROUP BY problem_id) "
        "SELECT * FROM extra FULL JOIN spent USING (problem_id)"
    )
    assert len(rows) == finished_run.summary["bands"]["hard"] + finished_run.summary["bands"]["extremely_hard"]
    for row in rows:
        assert row["tokens"] >= row["budget"] > row["tokens"] - row["last"], row
        assert row["first"] == N  # the first N are the teacher's own rollouts


def test_every_arm_answers_every_held_out_problem_k_times(finished_run: Any) -> None:
    rows = finished_run.rows(
        "SELECT r.arm, r.problem_id, count(*) AS num FROM run_trajectories r JOIN run_problems USING (problem_id) "
        "WHERE r.phase = 'evaluation' AND split = 'held_out' GROUP BY ALL"
    )
    held_out = sum(finished_run.summary["held_out_bands"].values())
    assert Counter(row["arm"] for row in rows) == dict.fromkeys(["base", *ARMS], held_out)
    assert {row["num"] for row in rows} == {K}
    assert finished_run.one("SELECT count(*) FROM run_rows WHERE phase = 'evaluation'") == 4 * held_out * K


def test_every_arm_is_scored_over_the_same_problems(finished_run: Any) -> None:
    evaluation = finished_run.summary["evaluation"]
    assert evaluation.keys() == {"teacher", "base", *ARMS}
    held_out = sum(finished_run.summary["held_out_bands"].values())
    for scores in evaluation.values():
        assert (scores["k"], scores["problems"]) == (K, held_out)
        assert 0 <= scores["avg_at_k"] <= 1
        assert scores["standard_error"] >= 0
        assert sum(band["problems"] for band in scores["bands"].values()) == held_out


def test_the_differences_of_arms_are_stored_over_all_problems_and_per_band(finished_run: Any) -> None:
    evaluation, contrasts = finished_run.summary["evaluation"], finished_run.summary["contrasts"]
    bands = {"all", *evaluation["heal"]["bands"]}
    assert {(row["arm"], row["against"], row["band"]) for row in contrasts} == {
        ("heal", against, band) for against in ("equal_tokens", "rejection_sampling", "base") for band in bands
    }
    for row in contrasts:
        ours, theirs = (
            evaluation[arm]["benchmarks"][row["benchmark"]] if row["benchmark"]
            else evaluation[arm] if row["band"] == "all" else evaluation[arm]["bands"][row["band"]]
            for arm in (row["arm"], row["against"])
        )  # fmt: skip
        assert row["difference"] == pytest.approx(ours["avg_at_k"] - theirs["avg_at_k"])
        assert row["problems"] == ours["problems"]
        if row["low"] is not None:
            assert row["low"] <= row["difference"] <= row["high"]
    assert any(row["low"] is not None for row in contrasts)
    stored = finished_run.rows("SELECT against, band, difference FROM eval_contrasts")
    assert {(row["against"], row["band"], row["difference"]) for row in contrasts} == {
        (row["against"], row["band"], row["difference"]) for row in stored
    }


def test_the_teacher_is_scored_on_its_first_k_rollouts(finished_run: Any) -> None:
    share = finished_run.one(
        "SELECT avg((label = 'correct')::INT) FROM run_trajectories JOIN run_problems USING (run_id, problem_id) "
        f"WHERE phase = 'rollouts' AND split = 'held_out' AND sample_index < {K}"
    )
    assert finished_run.summary["evaluation"]["teacher"]["avg_at_k"] == pytest.approx(share) != 0


def test_a_second_run_does_nothing_and_says_so(finished_run: Any) -> None:
    def stored() -> Any:
        return finished_run.one("SELECT count(*) FROM trajectories"), finished_run.one(
            "SELECT count(*) FROM checkpoints"
        )

    before = stored()
    done = finished_run.heal("run", finished_run.config)
    assert done.returncode == 0, done.stderr
    assert "Nothing to do" in done.stdout
    assert "leaked" not in done.stderr
    summary = json.loads((finished_run.workspace / "summary.json").read_text())
    assert not any(summary["generated"].values())
    same = finished_run.summary.keys() - {"generated", "wall_seconds", "state", "title"}
    assert {key: summary[key] for key in same} == {key: finished_run.summary[key] for key in same}
    assert stored() == before


def test_raising_n_samples_only_what_is_missing(finished_run: Any, open_run: Any, tmp_path: Path) -> None:
    workspace = tmp_path / "raised"
    shutil.copytree(finished_run.workspace, workspace, symlinks=True)
    indices = f"sample_index BETWEEN {N} AND {N + 1}"
    # B2 went on from N with the same recipe, so that some of the demanded are there already
    spent = finished_run.one(f"SELECT count(*) FROM run_trajectories WHERE phase = 'equal_tokens' AND {indices}")
    drawn = finished_run.one(f"SELECT count(*) FROM trajectories WHERE kind = 'rollout' AND {indices}")
    assert 0 < spent <= drawn < 2 * NUM_PROBLEMS
    settings = [f"workspace={workspace}", f"rollouts.num_generations={N + 2}"]
    done = finished_run.heal("run", finished_run.config, *settings, "--phase", "rollouts")
    assert done.returncode == 0, done.stderr
    raised = open_run(finished_run.heal, finished_run.config, workspace)
    new = raised.one("SELECT count(*) FROM trajectories") - finished_run.one("SELECT count(*) FROM trajectories")
    assert new == 2 * NUM_PROBLEMS - drawn
    assert raised.one("SELECT count(*) FROM run_rows WHERE phase = 'rollouts'") == NUM_PROBLEMS * (2 * N + 2)
