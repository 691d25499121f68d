"""Which wrong rollouts of a run are to be continued. What does not belong here: where they are cut (`repairs`)."""

from __future__ import annotations

from typing import Any

from heal_core.records import Band, VerdictLabel
from heal_core.repair import WrongPath, choose_paths
from heal_core.store.reads import read_run_trajectories
from tasks.session import Session


def choose_wrong_rows(
    session: Session, band: Band = Band.EXTREMELY_HARD, max_paths: int | None = None
) -> dict[str, dict[str, Any]]:
    """Return wrong rollouts of a band's training problems, by id; by default those to repair.

    Args:
        max_paths: How many of each problem; by default as many as are repaired.
    """
    most = session.config.repair.max_paths if max_paths is None else max_paths
    bands = session.read_bands("train")
    rows = {
        row["trajectory_id"]: row
        for row in read_run_trajectories(session.store, session.run_id, "rollouts").iter_rows(named=True)
        if bands.get(row["problem_id"]) == band and row["label"] == VerdictLabel.WRONG
    }
    by_problem: dict[str, list[WrongPath]] = {}
    for row_id, row in rows.items():
        path = WrongPath(row_id, row["problem_id"], row["sample_index"], row["cut"])
        by_problem.setdefault(row["problem_id"], []).append(path)
    chosen = [path for paths in by_problem.values() for path in choose_paths(paths, most)]
    return {path.trajectory_id: rows[path.trajectory_id] for path in chosen}
