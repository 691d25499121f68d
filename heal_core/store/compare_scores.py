"""How the arms of two runs score on the held-out problems that both evaluated, with the interval of each difference.

Part of `compare`, which says what a run has not come to.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from heal_core.evaluation import ALL_BANDS
from heal_core.records import Band
from heal_core.statistics import paired_bootstrap
from heal_core.store.inspect import Connection, fetch_rows

NUM_EXAMPLES = 5
"""How many problems are named, at most, where some are counted."""

BANDS = (ALL_BANDS, *map(str, reversed(Band)))

Row = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """An arm's k answers to one held-out problem, and the share of them that is correct."""

    trajectory_ids: tuple[str, ...]
    correct_share: float


@dataclass(frozen=True)
class Answers:
    """What a run's arms answered, by arm and problem; without arms as long as it has no evaluation."""

    k: int | None
    arms: dict[str, dict[str, Answer]]
    ungradable: frozenset[str]

    @property
    def problem_ids(self) -> frozenset[str]:
        """Return the problems that every arm answered."""
        return frozenset.intersection(*map(frozenset, self.arms.values())) if self.arms else frozenset()


def compare_scores(store: Connection, runs: dict[str, Row]) -> dict[str, Any]:
    """Return avg@k by arm and band, on the held-out problems that both runs evaluated.

    A problem's band is that of run B's teacher, so that a band means the same problems in both;
    `num_changed_band` says to how many of them run A's teacher gave another. Problems whose
    reference answer cannot be parsed are left out of both. The two k may differ. The interval is
    the paired bootstrap's of the difference, 95 %, over problems; None for a single problem.

    Source: definition D12 (docs/method.md).
    """
    a, b = (_answers(store, run["run_id"]) for run in runs.values())
    bands_a, bands_b = (_held_out_bands(store, run["run_id"]) for run in runs.values())
    arms = [arm for arm in b.arms if arm in a.arms]
    shared = a.problem_ids & b.problem_ids if arms else frozenset()
    ungradable = shared & (a.ungradable | b.ungradable)
    compared = sorted(shared - ungradable)
    changed = [one for one in compared if bands_a.get(one) != bands_b.get(one)]
    return {
        "why_empty": None if compared else _why_empty(runs, a, b),
        "k_a": a.k,
        "k_b": b.k,
        "only_a": [arm for arm in a.arms if arm not in b.arms],
        "only_b": [arm for arm in b.arms if arm not in a.arms],
        "num_problems": len(compared),
        "num_ungradable": len(ungradable),
        "num_changed_band": len(changed),
        "changed_band": [
            {"problem_id": one, "a": bands_a.get(one), "b": bands_b.get(one)} for one in changed[:NUM_EXAMPLES]
        ],
        "scores": [
            {"arm": arm, "band": band} | _contrast(a.arms[arm], b.arms[arm], within)
            for arm in arms
            for band in BANDS
            if (within := [one for one in compared if band in (ALL_BANDS, bands_b.get(one))])
        ],
    }


def _contrast(arm_a: dict[str, Answer], arm_b: dict[str, Answer], problem_ids: list[str]) -> Row:
    a, b = (np.array([arm[one].correct_share for one in problem_ids]) for arm in (arm_a, arm_b))
    interval = paired_bootstrap((b - a)[np.newaxis])
    return {
        "num_problems": len(problem_ids),
        "num_same_answers": sum(arm_a[one].trajectory_ids == arm_b[one].trajectory_ids for one in problem_ids),
        "a": float(a.mean()),
        "b": float(b.mean()),
        "difference": interval.mean,
        # of one problem it would have no width, and read as certainty
        "interval": [interval.low, interval.high] if len(problem_ids) > 1 else None,
    }


def _why_empty(runs: dict[str, Row], a: Answers, b: Answers) -> str:
    unevaluated = [
        f"run {side.upper()} ({run['run_id']}) has no evaluation"
        + (f": the last phase that it closed is {run['last_phase']}" if run["last_phase"] else ": it closed no phase")
        for (side, run), answers in zip(runs.items(), (a, b), strict=True)
        if not answers.arms
    ]
    if unevaluated:
        return "; ".join(unevaluated)
    if not a.arms.keys() & b.arms.keys():
        return f"the runs share no arm: A has {', '.join(a.arms)}; B has {', '.join(b.arms)}"
    return "the runs share no held-out problem that both evaluated and that can be graded"


def _answers(store: Connection, run_id: str) -> Answers:
    """Return what a run evaluated, nothing as long as its evaluation is not closed.

    The teacher's answers are the first k of its rollouts. A problem that lacks an answer of some
    arm, because its work failed, is in none, as in the run's own table.
    """
    arms = fetch_rows(
        store,
        "SELECT arm, any_value(k) AS k FROM evaluations WHERE run_id = $run GROUP BY arm ORDER BY min(rowid)",
        run=run_id,
    )
    if not arms:
        return Answers(None, {}, frozenset())
    k = arms[0]["k"]
    rows = fetch_rows(
        store,
        "SELECT arm, problem_id, count(*) FILTER (label = 'correct') / count(*) AS correct_share, "
        "bool_or(reason IS NOT DISTINCT FROM 'unparsable_gold') AS is_ungradable, "
        "list(trajectory_id ORDER BY sample_index) AS ids "
        "FROM (SELECT CASE phase WHEN 'rollouts' THEN 'teacher' ELSE arm END AS arm, * EXCLUDE (arm) "
        "      FROM run_trajectories WHERE run_id = $run AND phase IN ('rollouts', 'evaluation')) "
        "JOIN (FROM run_problems WHERE run_id = $run AND split = 'held_out') USING (problem_id) "
        "WHERE sample_index < $k GROUP BY arm, problem_id HAVING count(*) = $k",
        run=run_id,
        k=k,
    )
    found: dict[str, dict[str, Answer]] = {row["arm"]: {} for row in arms}
    for row in rows:
        if row["arm"] in found:
            found[row["arm"]][row["problem_id"]] = Answer(tuple(row["ids"]), row["correct_share"])
    return Answers(k, found, frozenset(row["problem_id"] for row in rows if row["is_ungradable"]))


def _held_out_bands(store: Connection, run_id: str) -> dict[str, str]:
    sql = "SELECT problem_id, band FROM bands WHERE run_id = $run AND split = 'held_out'"
    return {row["problem_id"]: row["band"] for row in fetch_rows(store, sql, run=run_id)}
