"""What a run's evaluation came to, as part of its summary: scores of the arms, and their contrasts.

Everything is read back as it was stored. What does not belong here: how it is computed (`evaluation`,
`contrasts`).
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from heal_core.evaluation import ALL_BANDS, gap_closed
from heal_core.store.store import Store

_SCORES = (
    "avg_at_k", "standard_error", "pass_at_k", "pass_at", "k", "num_problems", "truncated_share", "no_answer_share"
)  # fmt: skip
_NAMES = {"num_problems": "problems"}


def summarise_scores(store: Store, run_id: str) -> dict[str, dict[str, Any]]:
    """Return each arm's scores over all held-out problems, with those of its parts in `bands` and `benchmarks`.

    `pass_at` has pass@k by k.
    """
    pass_at: dict[tuple[Any, ...], dict[int, float]] = defaultdict(dict)
    for row in store.rows("SELECT * FROM eval_pass_at WHERE run_id = ? ORDER BY k", [run_id]):
        pass_at[row["arm"], row["band"], row["benchmark"]][row["k"]] = row["pass_at_k"]
    arms: dict[str, dict[str, Any]] = {}
    for row in store.rows("SELECT * FROM evaluations WHERE run_id = ? ORDER BY arm, band, benchmark", [run_id]):
        row["pass_at"] = pass_at[row["arm"], row["band"], row["benchmark"]]
        scores = {_NAMES.get(name, name): row[name] for name in _SCORES}
        arm = arms.setdefault(row["arm"], {"bands": {}, "benchmarks": {}})
        if row["benchmark"] is not None:
            arm["benchmarks"][row["benchmark"]] = scores
        elif row["band"] != ALL_BANDS:
            arm["bands"][row["band"]] = scores
        else:
            arm.update(scores)
    if {"base", "teacher"} <= arms.keys():
        base, teacher = arms["base"]["avg_at_k"], arms["teacher"]["avg_at_k"]
        for arm in arms.values():
            arm["gap_closed"] = gap_closed(arm["avg_at_k"], base, teacher)
    return arms


def summarise_contrasts(store: Store, run_id: str) -> list[dict[str, Any]]:
    """Return the differences of arms, the primary one first; none of a run from before schema 0009."""
    return store.rows(
        "SELECT * EXCLUDE (eval_contrast_id, run_id, num_problems), num_problems AS problems FROM eval_contrasts "
        "WHERE run_id = ? ORDER BY is_primary DESC, rowid",
        [run_id],
    )


def summarise_lm_eval(store: Store, run_id: str) -> list[dict[str, Any]]:
    """Return what lm-evaluation-harness measured, by task, metric, filter and arm; none where it was not asked."""
    return store.rows(
        "SELECT * EXCLUDE (run_id) FROM lm_eval_summary WHERE run_id = ? ORDER BY task, metric, filter, arm", [run_id]
    )
