"""Texts of a run through PURE's scorer, shard by shard. What is scored, and what its scores decide, the phases say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flows.rollouts import into_shards
from tasks.scores import ScoreWork, score_chunk
from tasks.session import Session
from tasks.shards import run_shard


def score_rows(
    session: Session,
    rows: Sequence[Mapping[str, Any]],
    work_type: type[ScoreWork],
    recipe_id: str,
    name: str,
    unit: str,
) -> dict[str, bool]:
    """Return the ids of the rows' scores, none of which counts as cut.

    Args:
        rows: Of `read_run_trajectories`; those of problems that are out have no score.
        name: Of the work, in log and progress.
        unit: What the rows are called there.
    """
    session.enter_work(name)  # which takes out what failed in it before
    rows = [row for row in rows if row["problem_id"] not in session.quarantine]
    session.progress.begin(session.run_id, session.phase_name, name, unit, len(rows))
    used: dict[str, bool] = {}
    for chunks, shard in into_shards(session, rows, lambda row: int(row["chunk_index"])):
        work = work_type(chunks, shard, recipe_id, session.scorer, session.store.epoch)
        for score_ids in run_shard(session, score_chunk, work):
            used |= dict.fromkeys(score_ids, False)
        session.progress.advance(len(shard))
    session.finish_work()
    return used
