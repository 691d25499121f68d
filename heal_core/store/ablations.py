"""What an ablation reads of its runs, and what is read back of an ablation.

What does not belong here: the comparison itself (`heal_core.ablation`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from heal_core.ablation import AblationConfig, PathYield
from heal_core.errors import InputError
from heal_core.store.reading import Readable


def read_path_yields(store: Readable, run_id: str) -> list[PathYield]:
    """Return how the continuations of each wrong path of a run fared, HEAL's and the controls'."""
    rows = store.rows(
        "SELECT arm, parent_id AS path_id, problem_id, num_verified, num_continued, is_compared FROM path_yields "
        "WHERE run_id = ? ORDER BY ALL",
        [run_id],
    )
    return [PathYield(**row) for row in rows]


def summarise_ablation(store: Readable, ablation_id: str) -> dict[str, Any]:
    """Return an ablation as one dictionary: settings, runs, scores, contrasts, yields, cost of the arms, the ceiling.

    Raises:
        InputError: If there is no such ablation.
    """
    found = store.rows("SELECT * FROM ablations WHERE ablation_id = ?", [ablation_id])
    if not found:
        raise InputError(f"there is no ablation {ablation_id}; heal sql 'FROM ablations' lists those that there are.")
    runs = store.rows("SELECT seed, run_id FROM ablation_runs WHERE ablation_id = ? ORDER BY position", [ablation_id])
    contrasts = store.rows(
        "SELECT * EXCLUDE (ablation_contrast_id, ablation_id) FROM ablation_contrasts WHERE ablation_id = ? "
        "ORDER BY measure, is_primary DESC, rowid",
        [ablation_id],
    )
    run_ids = [row["run_id"] for row in runs]
    settings = json.loads(found[0]["settings"])
    return {
        "ablation_id": ablation_id,
        "settings": settings,
        "runs": runs,
        "scores": store.rows(
            "SELECT * EXCLUDE (ablation_score_id, ablation_id) FROM ablation_scores WHERE ablation_id = ? "
            "ORDER BY rowid",
            [ablation_id],
        ),
        "contrasts": [row for row in contrasts if row["measure"] == "avg@k"],
        "yields": [row for row in contrasts if row["measure"] == "verified"],
        "costs": _mean_costs(store, run_ids),
        "ceiling": _ceiling(store, AblationConfig(**settings).runs_with_own_texts(run_ids)),
    }


def _mean_costs(store: Readable, run_ids: Sequence[str]) -> list[dict[str, Any]]:
    """Return per arm the distinct examples and the teacher's completion tokens on training problems, mean over runs."""
    return store.rows(
        "SELECT arm, avg(num_examples) AS num_examples, avg(num_tokens) AS num_tokens FROM example_cost "
        "WHERE kind = 'all' AND list_contains(?, run_id) GROUP BY arm ORDER BY arm",
        [list(run_ids)],
    )


def _ceiling(store: Readable, run_ids: Sequence[str]) -> dict[str, Any]:
    """Return what plain samples left unsolved of the extremely hard training problems, sums over the runs."""
    (row,) = store.rows(
        "SELECT count(*) AS num_problems, min(num_samples) AS min_samples, max(num_samples) AS max_samples, "
        "count(*) FILTER (is_unsolved) AS num_unsolved, count(*) FILTER (is_repaired) AS num_repaired, "
        "count(*) FILTER (is_unsolved AND is_repaired) AS num_unsolved_repaired "
        "FROM ceilings WHERE list_contains(?, run_id)",
        [list(run_ids)],
    )
    return row
