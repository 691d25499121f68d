"""The set-level task that turns graded held-out samples into the table of arms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from heal_core.evaluation import GradedSample, summarise_arm, ungradable_problems
from heal_core.keys import content_key
from heal_core.records import FinishReason, VerdictLabel
from heal_core.store.reads import read_run_trajectories
from tasks.policy import decision_task
from tasks.session import Session

BASE, TEACHER, LATEST = "base", "teacher", "latest"


@decision_task("summarise evaluation")
def summarise_evaluation(session: Session, arms: Sequence[str]) -> int:
    """Return how many rows of the table were stored, over all arms and bands."""
    k = session.config.evaluation.num_generations
    samples = {arm: graded_samples(session, arm) for arm in arms}
    excluded = ungradable_problems(sample for rows in samples.values() for sample in rows)
    rows = [
        {"evaluation_id": content_key("evaluation", session.run_id, arm, result.band), "run_id": session.run_id}
        | asdict(result)
        for arm in arms
        for result in summarise_arm(arm, samples[arm], k, excluded)
    ]
    session.store.append_decided("evaluations", rows, {"run_id": session.run_id})
    return len(rows)


def graded_samples(session: Session, arm: str, phase: str = "evaluation") -> list[GradedSample]:
    """Return an arm's samples of the held-out problems; the teacher's are the first k of its rollouts."""
    bands = session.read_bands("held_out")
    source = ("rollouts", "") if arm == TEACHER else (phase, arm)
    frame = read_run_trajectories(session.store, session.run_id, *source)
    return [
        GradedSample(
            row["problem_id"],
            bands[row["problem_id"]],
            VerdictLabel(row["label"]),
            row["reason"],
            FinishReason.LENGTH if row["cut"] else FinishReason(row["finish_reason"]),
        )
        for row in frame.iter_rows(named=True)
        if row["problem_id"] in bands and row["sample_index"] < session.config.evaluation.num_generations
    ]
