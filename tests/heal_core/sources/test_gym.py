"""Generators of reasoning-gym as sources, from the child that makes their entries."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from heal_core.errors import InputError
from heal_core.gradable import find_ungradable
from heal_core.problems import load_problems
from heal_core.records import VerdictLabel
from heal_core.reference import Reference
from heal_core.sources.config import ProblemsConfig, SourceConfig
from heal_core.sources.read import Tally, read_source
from heal_core.sources.row import Refusal, SourceRow
from heal_core.verify.config import VerifyConfig
from heal_core.verify.grade import grade
from heal_core.verify.pool import VerifierPool

pytestmark = [pytest.mark.usefixtures("reasoning_gym"), pytest.mark.slow]

Read = Callable[..., list[SourceRow]]


def test_entries_are_rows_with_what_their_scorer_needs(read: Read) -> None:
    rows = read(reasoning_gym={"dataset": "chain_sum", "size": 3, "seed": 5, "config": {"max_terms": 2}})
    assert [(row.place, row.line, row.name) for row in rows] == [
        ("reasoning-gym:chain_sum:5", line, "reasoning-gym:chain_sum") for line in (1, 2, 3)
    ]
    for index, row in enumerate(rows):
        content = row.content
        assert not isinstance(content, Refusal)
        terms = content["question"].removeprefix("State the final answer to the following arithmetic problem: ")
        assert content["answer"] == str(eval(terms.removesuffix("=")))
        assert content["uuid"].startswith("reasoning-gym-") and content["uuid"].endswith(f":chain_sum:5:{index}")
        reference = Reference(content["answer"], content["problem_type"], content["spec"])
        assert grade(f"\\boxed{{{content['answer']}}}", reference).label is VerdictLabel.CORRECT
        assert grade(f"\\boxed{{{content['answer']}1}}", reference).label is VerdictLabel.WRONG


@pytest.mark.parametrize("dataset", ["ransom_note", "list_functions"])
def test_a_seed_gives_the_same_rows_in_another_process(read: Read, dataset: str) -> None:
    """The first goes through sets, the second through the global random numbers: in this process both differ."""
    asked = {"dataset": dataset, "size": 30, "seed": 0}
    assert [row.content for row in read(reasoning_gym=asked)] == [row.content for row in read(reasoning_gym=asked)]


def test_reading_stops_where_nobody_asks() -> None:
    source = SourceConfig(reasoning_gym={"dataset": "gcd", "size": 10**6})  # type: ignore[arg-type]
    tally = Tally()
    rows = read_source(source, tally)
    assert [next(rows).line for _ in range(3)] == [1, 2, 3]
    rows.close()  # type: ignore[attr-defined]
    assert tally.num_read == 3


def test_an_answer_that_its_own_scorer_refuses_makes_no_problem() -> None:
    source = {"reasoning_gym": {"dataset": "intermediate_integration", "size": 10, "seed": 1}}
    config = ProblemsConfig(sources=[source])  # type: ignore[list-item]
    with VerifierPool(VerifyConfig(timeout_seconds=60, num_workers=1)) as pool:
        loaded = load_problems(config, lambda problems: find_ungradable(problems, pool))
    # an Integral that sympy left as it was
    assert {row.reason for row in loaded.quarantined} == {"unverifiable: its own answer is wrong (different)"}
    assert len(loaded.problems) > 5


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"dataset": "gdc"}, "no generator 'gdc'. Is gcd"),
        ({"dataset": "gcd", "config": {"terms": 3}}, "unknown terms. Expected: min_numbers: 2"),
        ({"dataset": "gcd", "curriculum": {"value": 9}}, r"value \(0 to 3\)"),
    ],
)
def test_a_mistake_stops_the_run(read: Read, asked: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(reasoning_gym=asked)


def test_a_generator_that_is_killed_within_a_line_is_told(
    monkeypatch: pytest.MonkeyPatch, read: Read, tmp_path: Path
) -> None:
    killed = tmp_path / "python"
    killed.write_text('#!/bin/sh\nprintf \'{"row": {"quest\'\nkill -9 $$\n')
    killed.chmod(0o755)
    monkeypatch.setattr("heal_core.sources.gym.sys.executable", str(killed))
    with pytest.raises(InputError, match=r"broke off after 0 entries \(exit code -9\)"):
        read(reasoning_gym={"dataset": "gcd"})


def test_a_generator_that_breaks_off_is_told(monkeypatch: pytest.MonkeyPatch, read: Read) -> None:
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    monkeypatch.setattr("heal_core.sources.gym.sys.executable", "/bin/false")
    with pytest.raises(InputError, match=r"broke off after 0 entries \(exit code 1\)"):
        read(reasoning_gym={"dataset": "gcd"})


def test_they_are_problems_beside_others_with_filter_and_limit() -> None:
    config = ProblemsConfig.model_validate(
        {
            "sources": [
                {"reasoning_gym": {"dataset": "gcd", "size": 20}, "limit": 5, "split": "train"},
                {"reasoning_gym": {"dataset": "lcm", "size": 20}, "filter": "question LIKE '%1%'", "split": "held_out"},
            ]
        }
    )
    loaded = load_problems(config)
    first, second = loaded.counts
    assert (first.num_read, first.num_problems) == (5, 5)
    assert second.num_read == 20 and 0 < second.num_problems == 20 - second.num_filtered_out < 20
    assert {problem.problem_type for problem in loaded.problems} == {"reasoning_gym"}
    assert all('"generator":' in problem.spec for problem in loaded.problems)
    assert loaded.problems == load_problems(config).problems


def test_a_file_cannot_claim_the_type_without_the_spec(tmp_path: Any) -> None:
    path = tmp_path / "problems.jsonl"
    path.write_text(
        '{"problem": "1+1?", "answer": "2", "problem_type": "reasoning_gym"}\n'
        '{"problem": "1+2?", "answer": "3", "problem_type": "reasoning_gym", "spec": "{\\"answer\\": 3}"}\n'
        '{"problem": "1+3?", "answer": "4"}\n'
    )
    reasons = [row.reason for row in load_problems(ProblemsConfig(path=str(path))).quarantined]
    assert len(reasons) == 2 and all(reason.startswith("bad_spec") for reason in reasons)


def test_other_sources_keep_the_form_of_their_settings() -> None:
    """A run's id is made of its settings: one without generators keeps the id that it had before there were any."""
    assert "reasoning_gym" not in SourceConfig(path="a.jsonl").model_dump()
    asked = {"dataset": "gcd", "config": {"min_value": 3, "max_value": 9}}
    other = {"dataset": "gcd", "config": {"max_value": 9, "min_value": 3}}
    dumped = [SourceConfig.model_validate({"reasoning_gym": gym}).model_dump_json() for gym in (asked, other)]
    assert dumped[0] == dumped[1] and '"config":{"max_value":9,"min_value":3}' in dumped[0]


def test_settings_are_what_json_has() -> None:
    with pytest.raises(ValueError, match="config"):
        SourceConfig.model_validate({"reasoning_gym": {"dataset": "gcd", "config": {"day": object()}}})
    with pytest.raises(ValueError, match="path and reasoning_gym of path, dataset, function and reasoning_gym"):
        SourceConfig.model_validate({"path": "a", "reasoning_gym": {"dataset": "gcd"}})
