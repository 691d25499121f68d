"""What a published store knows of a trained stage and how it came to be: the facts of a model card.

What does not belong here: the card's words (`heal_core/export/card.py`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from heal_core.store.inspect import Connection, fetch_rows, find_run, schema_name


@dataclass(frozen=True)
class TrainingFacts:
    """A stage of an arm of a run. Rows are dictionaries as the tables and views have them.

    Attributes:
        config: The run's resolved settings.
        stages: The checkpoints up to this one, in order; `result` is the child's report as a dictionary.
        parents: Checkpoints before the first of them; none where training began with the base student.
        examples: Per stage, kind and band: how many.
        problems: Per split and source: how many.
        problem_types: Those of its training problems.
        evaluation: Per arm and band, and per benchmark where there are several: scores on the held-out problems. Empty
            where nothing is evaluated so far.
    """

    run: dict[str, Any]
    config: dict[str, Any]
    arm: str
    stages: list[dict[str, Any]]
    parents: list[str]
    examples: list[dict[str, Any]]
    problems: list[dict[str, Any]]
    problem_types: list[str]
    evaluation: list[dict[str, Any]]


def read_training_facts(store: Connection, run_id: str, arm: str, stage: str) -> TrainingFacts:
    """Return what is known of a stage that is trained.

    Raises:
        InputError: If there is no such run.
    """
    run = find_run(store, run_id)
    stages = fetch_rows(
        store,
        "SELECT c.* FROM run_rows r JOIN checkpoints c ON c.checkpoint_id = r.row_id "
        "WHERE r.run_id = ? AND r.phase = 'training' AND r.arm = ? AND c.stage <= ? ORDER BY c.stage",
        run_id, arm, stage,
    )  # fmt: skip
    first = stages[0]["parent_checkpoint_id"] if stages else None
    return TrainingFacts(
        run={key: value for key, value in run.items() if key != "config"},
        config=json.loads(run["config"]),
        arm=arm,
        stages=[{**row, "result": json.loads(row["result"])} for row in stages],
        parents=[first] if first else [],
        examples=fetch_rows(
            store,
            "SELECT stage, kind, band, sum(num_examples)::INTEGER AS num_examples FROM stage_mix "
            "WHERE run_id = ? AND arm = ? AND stage <= ? GROUP BY ALL ORDER BY ALL",
            run_id, arm, stage,
        ),
        problems=fetch_rows(
            store,
            "SELECT r.split, p.source, count(*)::INTEGER AS num_problems FROM run_problems r "
            "JOIN problems p USING (problem_id) WHERE r.run_id = ? GROUP BY ALL ORDER BY r.split DESC, p.source",
            run_id,
        ),
        problem_types=[
            row["problem_type"]
            for row in fetch_rows(
                store,
                "SELECT DISTINCT problem_type FROM run_problems JOIN problems USING (problem_id) "
                "WHERE run_id = ? AND split = 'train' ORDER BY ALL",
                run_id,
            )
        ],
        evaluation=_read_evaluation(store, run_id),
    )  # fmt: skip


def _read_evaluation(store: Connection, run_id: str) -> list[dict[str, Any]]:
    columns = "k, num_problems, avg_at_k, standard_error, pass_at_k, truncated_share, no_answer_share"
    rows = fetch_rows(
        store, f"SELECT arm, band, NULL AS benchmark, {columns} FROM eval_summary WHERE run_id = ? ORDER BY ALL", run_id
    )
    if schema_name(store) < "0009":
        return rows
    return rows + fetch_rows(
        store,
        f"SELECT arm, 'all' AS band, benchmark, {columns} FROM eval_benchmarks WHERE run_id = ? ORDER BY ALL",
        run_id,
    )
