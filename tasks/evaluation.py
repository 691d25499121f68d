"""The set-level task that turns graded held-out samples into the tables of arms and their contrasts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import Any

from heal_core.contrasts import contrast_arms
from heal_core.evaluation import GradedSample, estimate_pass_at, summarise_arm, ungradable_problems
from heal_core.keys import content_key
from heal_core.records import FinishReason, VerdictLabel
from heal_core.store.reads import read_benchmarks, read_run_trajectories
from tasks.policy import decision_task
from tasks.session import Session

BASE, TEACHER, LATEST, GIVEN = "base", "teacher", "latest", "given"


@decision_task("summarise evaluation")
def summarise_evaluation(session: Session, arms: Sequence[str]) -> int:
    """Return how many rows of scores were stored, over all arms, bands and benchmarks; with pass@k and contrasts."""
    config = session.config.evaluation
    k = config.num_generations
    samples = {arm: graded_samples(session, arm) for arm in arms}
    excluded = ungradable_problems(sample for rows in samples.values() for sample in rows)
    scores = [row for arm in arms for row in summarise_arm(arm, samples[arm], k, excluded)]
    pass_at = [row for arm in arms for row in estimate_pass_at(arm, samples[arm], k, config.pass_ks, excluded)]
    # without a benchmark the key is what it was before there were any
    _store(
        session, "evaluations", "evaluation", scores, lambda row: [row.arm, row.band, *filter(None, [row.benchmark])]
    )
    _store(session, "eval_pass_at", "eval_pass_at", pass_at, lambda row: [row.arm, row.band, row.benchmark, row.k])
    _store(
        session,
        "eval_contrasts",
        "eval_contrast",
        contrast_arms(samples, k, excluded),
        lambda row: [row.arm, row.against, row.band, row.benchmark],
    )
    return len(scores)


def _store(session: Session, table: str, kind: str, rows: Iterable[Any], key: Callable[[Any], list[Any]]) -> None:
    """Store a run's decided rows; `key` says what tells them apart."""
    run_id = session.run_id
    named = [{f"{kind}_id": content_key(kind, run_id, *key(row)), "run_id": run_id} | asdict(row) for row in rows]
    session.store.append_decided(table, named, {"run_id": run_id})


def graded_samples(session: Session, arm: str, phase: str = "evaluation") -> list[GradedSample]:
    """Return an arm's samples of the held-out problems; the teacher's are the first k of its rollouts."""
    bands = session.read_bands("held_out")
    benchmarks = read_benchmarks(session.store, session.run_id)
    source = ("rollouts", "") if arm == TEACHER else (phase, arm)
    frame = read_run_trajectories(session.store, session.run_id, *source)
    return [
        GradedSample(
            row["problem_id"],
            bands[row["problem_id"]],
            VerdictLabel(row["label"]),
            row["reason"],
            FinishReason.LENGTH if row["cut"] else FinishReason(row["finish_reason"]),
            benchmarks[row["problem_id"]],
        )
        for row in frame.iter_rows(named=True)
        if row["problem_id"] in bands and row["sample_index"] < session.config.evaluation.num_generations
    ]
