"""What `heal export` asks of a published store: the examples of a stage, and the samples of each problem.

Rows come one after the other: a large run's texts do not fit into memory. What does not belong here: the layouts in
which they are written (`heal_core/export`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from heal_core.errors import InputError
from heal_core.store.inspect import Connection, fetch_rows

_ROWS_AT_A_TIME = 256


def check_stage(store: Connection, run_id: str, arm: str, stage: str) -> None:
    """Check that a run has examples of an arm's stage.

    Raises:
        InputError: If it has none; it says which there are.
    """
    found = fetch_rows(store, "SELECT DISTINCT arm, stage FROM stage_examples WHERE run_id = ? ORDER BY ALL", run_id)
    if {"arm": arm, "stage": stage} in found:
        return
    if not found:
        raise InputError(
            f"run {run_id} has no training examples so far: its phase selection is not published. "
            "`heal status` says how far it is."
        )
    stages = ", ".join(f"{row['arm']} {row['stage']}" for row in found)
    raise InputError(f"run {run_id} has no examples of arm {arm!r}, stage {stage!r}. It has: {stages}.")


def read_stage_rows(store: Connection, run_id: str, arm: str, stage: str) -> Iterator[dict[str, Any]]:
    """Yield the examples of a stage in training order: the problem's columns, `trajectory_id`, `kind`, `response`,
    and the problem's `band`.
    """
    return _stream(
        store,
        "SELECT p.*, s.trajectory_id, t.kind, t.prefix || t.text AS response, d.decision AS band "
        "FROM stage_examples s JOIN trajectories t USING (trajectory_id) "
        "JOIN problems p ON p.problem_id = s.problem_id "
        "LEFT JOIN decisions d ON d.run_id = s.run_id AND d.subject_id = s.problem_id AND d.phase = 'band' "
        "WHERE s.run_id = ? AND s.arm = ? AND s.stage = ? ORDER BY s.position",
        [run_id, arm, stage],
    )


def read_trained_stage(store: Connection, run_id: str, arm: str, stage: str) -> dict[str, Any] | None:
    """Return the checkpoint of a stage of a run, as the table has it; None where it is not trained so far."""
    rows = fetch_rows(
        store,
        "SELECT c.* FROM run_rows r JOIN checkpoints c ON c.checkpoint_id = r.row_id "
        "WHERE r.run_id = ? AND r.phase = 'training' AND r.arm = ? AND c.stage = ?",
        run_id, arm, stage,
    )  # fmt: skip
    return rows[0] if rows else None


def read_problem_samples(
    store: Connection, run_id: str, kept_phases: Sequence[str] = (), held_out: bool = False
) -> Iterator[dict[str, Any]]:
    """Yield the teacher's samples of a run, those of a problem together: its rollouts, then what was kept beside them.

    Args:
        kept_phases: Of `guided` and `repairs`, from which the kept samples follow the rollouts.
        held_out: Whether problems that are held out come too.

    Yields:
        The problem's columns with `split` and `band`, and `trajectory_id`, `kind`, `response`, `finish_reason`,
        `cut` and `label` of a sample.
    """
    return _stream(
        store,
        "SELECT p.*, q.split, d.decision AS band, t.trajectory_id, t.kind, t.prefix || t.text AS response, "
        "t.finish_reason, t.cut, t.label "
        "FROM run_trajectories t JOIN problems p USING (problem_id) "
        "JOIN run_problems q ON q.run_id = t.run_id AND q.problem_id = t.problem_id "
        "LEFT JOIN decisions d ON d.run_id = t.run_id AND d.subject_id = t.problem_id AND d.phase = 'band' "
        "WHERE t.run_id = $run AND ($held_out OR q.split = 'train') AND (t.phase = 'rollouts' OR t.phase IN $kept "
        "AND t.trajectory_id IN (SELECT trajectory_id FROM kept_examples WHERE run_id = $run)) "
        "ORDER BY p.chunk_index, p.problem_id, t.phase <> 'rollouts', t.kind, t.parent_id, t.sample_index, "
        "t.trajectory_id",
        {"run": run_id, "held_out": held_out, "kept": list(kept_phases)},
    )


def count_problems(store: Connection, run_id: str) -> dict[str, int]:
    """Return how many problems a run has, by split."""
    rows = fetch_rows(
        store, "SELECT split, count(*)::INTEGER AS num FROM run_problems WHERE run_id = ? GROUP BY split", run_id
    )
    return {row["split"]: row["num"] for row in rows}


def _stream(store: Connection, sql: str, parameters: Any) -> Iterator[dict[str, Any]]:
    cursor = store.cursor()  # of its own, so that other questions do not end it
    try:
        cursor.execute(sql, parameters)
        names = [column[0] for column in cursor.description or []]
        while rows := cursor.fetchmany(_ROWS_AT_A_TIME):
            for row in rows:
                yield dict(zip(names, row, strict=True))
    finally:
        cursor.close()
