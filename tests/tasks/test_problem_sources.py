"""Taking problems in from several sources: what became of every row is in the store."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from heal_core.config import load_config
from heal_core.verify.pool import VerifierPool
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


def test_what_cleaning_takes_out_is_in_the_store_with_its_reasons(
    heal: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    goats = "Three goats eat a bale of hay in two days. How long does it last for one of them?"
    baker = "A baker sells four loaves at dawn and eight more after lunch. How many loaves does he sell in all?"
    train = [
        {"problem": goats, "answer": 6},
        {"problem": baker, "answer": 12},
        {"problem": baker + " Say.", "answer": 12},
        {"problem": f"First read: {goats} And then: what is 1 + 1?", "answer": 2},
        {"problem": "What is 3 * 3?", "answer": 9},
    ]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, train)))
    (tmp_path / "held_out.jsonl").write_text(json.dumps({"problem": "What is 7 * 7?", "answer": 49}))
    (tmp_path / "exam.csv").write_text(f'question\n"{goats}"\nWhat else?\n')
    problems = {
        "problems__path": str(tmp_path / "train.jsonl"),
        "problems__limit": None,
        "problems__evaluation_path": str(tmp_path / "held_out.jsonl"),
        "problems__duplicate_jaccard": 0.8,
        "problems__one_per_cluster": True,
        "problems__decontaminate": [{"path": str(tmp_path / "exam.csv")}],
    }
    config = load_config(heal.config(tmp_path / "workspace", **problems))
    with Session.open(config) as session, caplog.at_level(logging.INFO):
        run_id = take_in_problems.fn(session)
        assert take_in_problems.fn(session) == run_id  # again: nothing is stored twice
        rows = session.store.rows("SELECT line, split_part(reason, ':', 1) AS code FROM quarantine ORDER BY line")
        assert [row["line"] for row in rows if row["code"] == "contaminated"] == [1, 4]
        assert [row["line"] in (2, 3) for row in rows if row["code"] == "near_duplicate"] == [True]
        (counts,) = session.store.rows("FROM run_sources WHERE split = 'train'")
        assert (counts["num_read"], counts["num_quarantined"], counts["num_problems"]) == (5, 3, 2)
        funnel = session.store.rows("SELECT outcome, reason, num, num_in_phase FROM funnel WHERE phase = 'rows'")
        assert {(row["outcome"], row["reason"]): row["num"] for row in funnel} == {
            ("quarantined", "contaminated"): 2,
            ("quarantined", "near_duplicate"): 1,
            ("train", None): 2,
            ("held_out", None): 1,
        }
        matches = session.store.rows(
            "SELECT c.line, c.evaluation_set, c.evaluation_line, c.num_shared, c.num_ngrams, c.passage, q.reason "
            "FROM contamination c JOIN quarantine q USING (run_id, source, line) WHERE c.run_id = ? ORDER BY line",
            [run_id],
        )
        assert [(row["line"], row["evaluation_line"]) for row in matches] == [(1, 2), (4, 2)]
        # 19 words: 12 8-grams
        assert {(row["num_shared"], row["num_ngrams"]) for row in matches} == {(12, 12)}
        assert all(row["passage"].startswith("three goats eat") for row in matches)
        assert all("holds 12 of the 12 8-grams of" in row["reason"] for row in matches)
        sets = session.store.rows(
            "SELECT source, num_problems, num_contaminated FROM run_evaluation_sets ORDER BY position"
        )
        assert [tuple(row.values()) for row in sets] == [("held_out", 1, 0), (str(tmp_path / "exam.csv"), 2, 2)]
    assert (
        "cleaning: 2 contaminated, 1 near-duplicates of another training problem taken out of training" in caplog.text
    )


def test_what_cannot_be_graded_is_refused_before_the_run_and_each_reference_is_tried_once(
    heal: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"problem": f"What is {n} + {n}?", "answer": 2 * n} for n in range(20)]
    rows += [
        {"problem": "Which set?", "answer": "{1, 2"},
        {"problem": "Which city?", "answer": "Q", "options": "[1, 2]"},
    ]
    (tmp_path / "problems.jsonl").write_text("\n".join(map(json.dumps, rows)))
    settings = {"problems__path": str(tmp_path / "problems.jsonl"), "problems__limit": None}
    config = load_config(heal.config(tmp_path / "workspace", **settings))
    tried: list[int] = []
    grade_all = VerifierPool.grade_all
    monkeypatch.setattr(
        VerifierPool, "grade_all", lambda pool, items: (tried.append(len(items)), grade_all(pool, items))[1]
    )
    with Session.open(config) as session:
        take_in_problems.fn(session)
        reasons = session.store.rows("SELECT line, reason FROM quarantine ORDER BY line")
        assert [(row["line"], row["reason"].partition(":")[0]) for row in reasons] == [
            (21, "unverifiable"),
            (22, "bad_choice"),
        ]
        (counts,) = session.store.rows("SELECT num_read, num_quarantined, num_problems FROM run_sources")
        assert tuple(counts.values()) == (22, 2, 20)
    with Session.open(config) as session:
        take_in_problems.fn(session)
    assert tried == [21, 1]  # what is in the store was gradable
