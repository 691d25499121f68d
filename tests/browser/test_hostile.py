"""The hostile workspace is what it says: complete, consistent, and hostile in every text."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from heal_core.store.inspect import fetch_rows, open_store
from tests.browser.hostile import ATTACKS, GIANT_LINE, GIANT_TOKEN

pytestmark = pytest.mark.slow

TEXTS = [
    ("problems", "question"),
    ("problems", "answer"),
    ("problems", "source"),
    ("trajectories", "text"),
    ("trajectories", "nullif(prefix, '')"),
    ("verdicts", "extracted"),
    ("verdicts", "reason"),
    ("verdicts", "verifier"),
    ("recipes", "model_name_or_path"),
    ("runs", "config ->> '$.workspace'"),
    ("runs", "config ->> '$.teacher.model_name_or_path'"),
    ("run_events", "detail ->> '$.first_example.with_loss'"),
    ("checkpoints", "result ->> '$.versions.torch'"),
    ("checkpoints", "folder"),
    ("decisions", "nullif(reason, 'ratio')"),
    ("gate_results", "unnest(details)"),
    ("quarantine", "raw"),
    ("audit_labels", "note"),
    ("contamination", "passage"),
    ("run_problems", "benchmark"),
    ("run_sources", "source"),
]


@pytest.mark.parametrize(("table", "text"), TEXTS)
def test_no_text_is_as_the_run_left_it(finished_run: Any, hostile_workspace: Path, table: str, text: str) -> None:
    query = f"SELECT DISTINCT text FROM (SELECT {text} AS text FROM {table}) WHERE text IS NOT NULL"
    with open_store(hostile_workspace) as store:
        texts = {row["text"] for row in fetch_rows(store, query)}
    assert texts
    assert not texts & {row["text"] for row in finished_run.rows(query)}


def test_no_row_is_lost(finished_run: Any, hostile_workspace: Path) -> None:
    query = "SELECT table_name, sum(num_rows)::INTEGER AS num FROM parts GROUP BY ALL"
    with open_store(hostile_workspace) as store:
        stored = {row["table_name"]: row["num"] for row in fetch_rows(store, query)}
    expected = {row["table_name"]: row["num"] for row in finished_run.rows(query)}
    further = {"run_events": 1} | dict.fromkeys(("quarantine", "contamination", "audit_labels"), len(ATTACKS))
    assert stored == {table: expected.get(table, 0) + further.get(table, 0) for table in expected | further}


def test_every_attack_is_somewhere_as_it_was_written(hostile_workspace: Path) -> None:
    with open_store(hostile_workspace) as store:
        texts = [row["text"] for row in fetch_rows(store, "SELECT text FROM trajectories")]
    everything = "\n".join(texts)
    assert [attack for attack in ATTACKS if attack not in everything] == []
    assert GIANT_TOKEN in everything
    assert GIANT_LINE in everything


def test_tokens_and_steps_are_where_they_were(finished_run: Any, hostile_workspace: Path) -> None:
    query = (
        "SELECT trajectory_id, text, token_starts, step_start_chars FROM trajectories "
        "JOIN tokens USING (trajectory_id) JOIN profiles USING (trajectory_id) "
        "WHERE num_tokens > 20 ORDER BY trajectory_id LIMIT 5"
    )
    with open_store(hostile_workspace) as store:
        hostile = fetch_rows(store, query)
    for row, made in zip(finished_run.rows(query), hostile, strict=True):
        tokens = _cut(row["text"], row["token_starts"])
        assert all(
            new.startswith(old) for old, new in zip(tokens, _cut(made["text"], made["token_starts"]), strict=True)
        )
        first = [row["text"][place] for place in row["step_start_chars"]]
        assert [made["text"][place] for place in made["step_start_chars"]] == first


def _cut(text: str, starts: list[int]) -> list[str]:
    return [text[start:end] for start, end in pairwise([*starts, len(text)])]
