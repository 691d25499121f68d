"""What `heal verify` asks of the store: which texts have verdicts, and how today's differ from those before.

What does not belong here: which verdict counts today (`plan`), and grading (`grading`).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import polars as pl

from heal_core.store.store import Store

_SIDES = (("e", "before"), ("n", "now"))
_COLUMNS = ("label", "extracted", "reason", "verifier", "verifier_version", "limit_seconds")


def read_gradable(store: Store, run_id: str | None, kinds: Collection[str]) -> pl.DataFrame:
    """Return trajectory_id, kind and whether it has a verdict, of all trajectories or of those that a run uses."""
    return store.frame(
        "SELECT trajectory_id, kind, trajectory_id IN (SELECT trajectory_id FROM verdicts) AS has_verdict "
        "FROM trajectories WHERE kind IN (SELECT unnest($kinds)) "
        "AND ($run IS NULL OR trajectory_id IN (SELECT row_id FROM run_rows WHERE run_id = $run)) "
        "ORDER BY trajectory_id",
        {"run": run_id, "kinds": sorted(kinds)},
    )


def read_changes(store: Store, verdict_ids: Sequence[str]) -> pl.DataFrame:
    """Return, for each of these verdicts, what it says (`now_`) and what was stored last before it (`before_`).

    Columns besides: trajectory_id, kind, answer (the reference). What was before is None where it is the first.
    """
    sides = ", ".join(f"{side}.{column} AS {name}_{column}" for side, name in _SIDES for column in _COLUMNS)
    return store.frame_for(
        verdict_ids,
        "WITH numbered AS (SELECT rowid AS row, * FROM verdicts), "
        "now AS (FROM numbered SEMI JOIN wanted ON verdict_id = id), "
        "last AS (SELECT n.verdict_id, max(e.row) AS row FROM now n JOIN numbered e "
        "ON e.trajectory_id = n.trajectory_id AND e.row < n.row GROUP BY n.verdict_id) "
        f"SELECT n.trajectory_id, t.kind, p.answer, {sides} "
        "FROM now n JOIN trajectories t USING (trajectory_id) JOIN problems p USING (problem_id) "
        "LEFT JOIN last ON last.verdict_id = n.verdict_id LEFT JOIN numbered e ON e.row = last.row "
        "ORDER BY t.kind, n.trajectory_id",
    )


def read_regraded(store: Store, run_id: str, verdict_ids: Sequence[str]) -> list[dict[str, Any]]:
    """Return, for each problem of a run, its rollouts' counts as the run has them, and as these verdicts make them.

    A rollout that has none of these verdicts keeps that of the run.
    """
    frame = store.frame_for(
        verdict_ids,
        "WITH now AS (FROM verdicts SEMI JOIN wanted ON verdict_id = id), "
        "rollouts AS (SELECT t.problem_id, t.label AS before, "
        # as `run_trajectories` has it: a cut text is not correct, only the reference can make it ungradable
        "CASE WHEN n.label IS NULL THEN t.label WHEN t.cut AND n.reason IS DISTINCT FROM 'unparsable_gold' "
        "THEN 'wrong' ELSE n.label END AS now "
        "FROM run_trajectories t LEFT JOIN now n USING (trajectory_id) WHERE t.run_id = ? AND t.phase = 'rollouts') "
        "SELECT problem_id, "
        "count(*) FILTER (before IN ('correct', 'wrong')) AS before_graded, "
        "count(*) FILTER (before = 'correct') AS before_correct, "
        "count(*) FILTER (now IN ('correct', 'wrong')) AS now_graded, "
        "count(*) FILTER (now = 'correct') AS now_correct "
        "FROM rollouts GROUP BY problem_id ORDER BY problem_id",
        [run_id],
    )
    return frame.to_dicts()
