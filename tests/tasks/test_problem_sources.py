"""Taking problems in from several sources: what became of every row is in the store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from heal_core.config import load_config
from tasks.problems import take_in_problems
from tasks.session import Session


def test_every_row_of_every_source_is_accounted_for_and_a_night_takes_in_what_is_new(heal: Any, tmp_path: Path) -> None:
    rows = [json.dumps({"problem": f"What is {n} + {n}?", "answer": 2 * n, "level": n % 4}) for n in range(40)]
    (tmp_path / "night-1.jsonl").write_text("\n".join([*rows, "broken"]))
    (tmp_path / "held_out.csv").write_text("task,result\nHow many sides has a square?,4\nno answer,\n")
    pattern = str(tmp_path / "night-*.jsonl")
    sources = [
        {"path": pattern, "filter": "level = 0", "split": "train"},
        {"path": pattern, "filter": "level <> 0", "sample": 12, "split": "train"},
        {
            "path": str(tmp_path / "held_out.csv"),
            "columns": {"task": "problem", "result": "answer"},
            "split": "held_out",
        },
    ]
    settings = {"problems__path": None, "problems__limit": None, "problems__sources": sources}
    config = load_config(heal.config(tmp_path / "workspace", **settings))

    with Session.open(config) as session:
        run_id = take_in_problems.fn(session)
        counts = session.store.rows(
            "SELECT num_read, num_filtered_out, num_not_sampled, num_quarantined, num_problems FROM run_sources "
            "WHERE run_id = ? ORDER BY position",
            [run_id],
        )
        # 41 rows: a quarter of 40 has level 0, one is broken; the held-out file has one without an answer
        assert [tuple(row.values()) for row in counts] == [(41, 30, 0, 1, 10), (41, 10, 18, 1, 12), (2, 0, 0, 1, 1)]
        quarantined = session.store.rows("SELECT source, line, reason FROM quarantine ORDER BY line, source")
        assert [(Path(row["source"]).name, row["line"]) for row in quarantined] == [
            ("held_out.csv", 3),
            ("night-1.jsonl", 41),
            ("night-1.jsonl", 41),  # by each of the two sources that read it
        ]
        funnel = session.store.rows("SELECT outcome, reason, num, num_in_phase FROM funnel WHERE phase = 'rows'")
        assert {row["num_in_phase"] for row in funnel} == {41 + 41 + 2}
        assert {(row["outcome"], row["reason"]): row["num"] for row in funnel if row["outcome"] != "quarantined"} == {
            ("filtered_out", pattern): 30 + 10,
            ("not_sampled", pattern): 18,
            ("train", None): 10 + 12,
            ("held_out", None): 1,
        }

    with Session.open(config) as session:  # again, with nothing new
        assert take_in_problems.fn(session) == run_id
        assert len(session.store.rows("FROM run_sources")) == 3
        assert len(session.store.rows("FROM quarantine")) == 3

    (tmp_path / "night-2.jsonl").write_text(json.dumps({"problem": "What is 7 * 7?", "answer": 49, "level": 0}))
    with Session.open(config) as session:
        later = take_in_problems.fn(session)
        assert later != run_id
        new = session.store.rows(
            "SELECT question FROM run_problems JOIN problems USING (problem_id) WHERE run_id = ? AND problem_id NOT IN "
            "(SELECT problem_id FROM run_problems WHERE run_id = ?)",
            [later, run_id],
        )
        assert new == [{"question": "What is 7 * 7?"}]
