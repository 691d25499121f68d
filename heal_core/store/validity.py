"""What is asked of PURE's validity tests: the score that a run chose, and a test as one dictionary."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from heal_core.errors import StoreError
from heal_core.store.reading import Readable


def read_chosen_score(store: Readable, run_id: str) -> str:
    """Return the score that a run with `pure.score: auto` took.

    Raises:
        StoreError: If its validity test has not come to an end.
    """
    rows = store.rows("SELECT reason FROM decisions WHERE run_id = ? AND phase = 'pure_score'", [run_id])
    if not rows:
        raise StoreError(f"run {run_id} has not chosen a PURE score; its phase selection does, which comes first.")
    return str(rows[0]["reason"])


def read_score_rows(store: Readable, score_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return scores by their id."""
    frame = store.frame_for(sorted(set(score_ids)), "SELECT * FROM scores SEMI JOIN wanted ON score_id = id")
    return {row["score_id"]: row for row in frame.iter_rows(named=True)}


def read_test(store: Readable, run_id: str, validity_id: str) -> dict[str, Any]:
    """Return a test: its counts and verdict, `texts` by kind and outcome, `aurocs`, and what it spent.

    Raises:
        StoreError: If there is no such test.
    """
    this = {"run": run_id, "test": validity_id}
    where = "WHERE run_id = $run AND validity_id = $test"
    rows = store.rows(f"SELECT * EXCLUDE (validity_test_id) FROM validity_tests {where}", this)
    if not rows:
        raise StoreError(f"run {run_id} has no validity test {validity_id}. `heal validate-pure CONFIG` makes one.")
    spent = store.rows(
        "SELECT coalesce(sum(num_tokens) FILTER (kind <> 'shortcut'), 0)::BIGINT AS num_tokens, "
        "coalesce(sum(num_prompt_tokens), 0)::BIGINT AS num_prompt_tokens FROM token_spend "
        "WHERE run_id = $run AND arm = $test AND starts_with(phase, 'validity')",
        this,
    )
    scored = store.rows(
        "SELECT coalesce(sum(s.num_scored_tokens), 0)::BIGINT AS num "
        "FROM run_rows r JOIN scores s ON s.score_id = r.row_id "
        "WHERE r.run_id = $run AND r.arm = $test AND r.kind = 'validity_score'",
        this,
    )
    return {
        **rows[0],
        "settings": json.loads(rows[0]["settings"]),
        "texts": store.rows(
            "SELECT kind, outcome, reason, count(*) AS num, count(gate) AS num_refused_by_gates FROM validity_texts "
            f"{where} GROUP BY ALL ORDER BY ALL",
            this,
        ),
        "aurocs": store.rows(
            "SELECT * EXCLUDE (validity_auroc_id, run_id, validity_id, position) FROM validity_aurocs "
            f"{where} ORDER BY position",
            this,
        ),
        "spent": {**spent[0], "num_scored_tokens": scored[0]["num"]},
    }
