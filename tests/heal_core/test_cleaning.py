"""Cleaning rows of all sources: who is refused for whom, and what is told of it."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from heal_core.cleaning import Cleaned, EvaluationSet, EvaluationText, TakenRow, clean
from heal_core.keys import content_key
from heal_core.records import Problem
from heal_core.sources.config import ProblemsConfig

SHEEP = "A farmer has seventeen sheep in the meadow and all but nine of them run away before noon. How many are left?"
BAKER = "A baker sells four loaves in the morning and three times as many after lunch. How many loaves is that in all?"
GOATS = "Three goats eat a bale of hay in two days. How long does the same bale last for a single goat of theirs?"


def taken(question: str, line: int) -> TakenRow:
    problem_id = content_key("problem", question)
    return TakenRow(Problem(problem_id, question, "1", "s", "", "math", problem_id, "train"), "t.jsonl", line, "{}")


def clean_all(held_out: list[str], training: list[str], benchmark: list[str], **config: Any) -> Cleaned:
    rows = [taken(question, line) for line, question in enumerate([*held_out, *training], start=1)]
    wanted = ["held_out"] * len(held_out) + ["train"] * len(training)
    texts = tuple(EvaluationText("b.jsonl", line, question) for line, question in enumerate(benchmark, start=1))
    sets = [EvaluationSet("b.jsonl", texts)] if texts else []
    return clean(rows, wanted, sets, ProblemsConfig(path="t.jsonl", **config))


def said(cleaned: Cleaned) -> list[str]:
    return [outcome.split if isinstance(outcome, Problem) else outcome.reason for outcome in cleaned.outcomes]


def test_a_training_problem_that_holds_a_held_out_one_is_contaminated() -> None:
    # too long to be a near-duplicate of it
    longer = f"{BAKER} Before you answer that, answer this. {SHEEP}"
    cleaned = clean_all([SHEEP], [longer, GOATS], [])
    # 22 words: 15 8-grams
    assert said(cleaned) == ["held_out", "contaminated: holds 15 of the 15 8-grams of t.jsonl, line 1", "train"]
    (match,) = cleaned.matches
    assert (match.source, match.line, match.question) == ("t.jsonl", 2, longer)
    assert (match.evaluation_set, match.evaluation_line, match.evaluation_question) == ("held_out", 1, SHEEP)
    assert match.passage.startswith("a farmer has seventeen") and match.passage.endswith("how many are left")
    assert [(count.source, count.num_problems, count.num_contaminated) for count in cleaned.sets] == [
        ("held_out", 1, 1)
    ]


def test_a_benchmark_takes_from_training_only() -> None:
    cleaned = clean_all([SHEEP], [BAKER, GOATS], [SHEEP, BAKER, "B. " + BAKER])
    assert said(cleaned) == [
        "held_out", "contaminated: holds 15 of the 15 8-grams of b.jsonl, line 2, and matches 1 more", "train"
    ]  # fmt: skip
    assert [(match.evaluation_set, match.evaluation_line) for match in cleaned.matches] == [
        ("b.jsonl", 2), ("b.jsonl", 3)
    ]  # fmt: skip
    # one row for training, though it matches two problems of the set
    assert [count.num_contaminated for count in cleaned.sets] == [0, 1]
    assert cleaned.describe() == (
        "cleaning: 1 contaminated taken out of training; compared with 1 of held_out, 3 of b.jsonl"
    )


def test_a_near_duplicate_of_a_held_out_problem_is_told_as_that() -> None:
    cleaned = clean_all([SHEEP], [SHEEP + " Say."], [])
    assert said(cleaned)[1].startswith("near_duplicate_of_held_out: ")
    assert cleaned.matches == ()


def test_the_share_decides_how_strict_it_is() -> None:
    # the first sentence of another problem: 18 words, 11 of 15 8-grams
    other = SHEEP.partition(".")[0] + ". Which share is that in percent of the sheep he had?"
    assert said(clean_all([], [other], [SHEEP])) == ["train"]
    assert said(clean_all([], [other], [SHEEP], contamination_share=0))[0].startswith(
        "contaminated: holds 11 of the 15"
    )
    assert said(clean_all([], [other], [SHEEP], contamination_share=0, contamination_words=19)) == ["train"]


def test_one_problem_per_cluster_is_asked_for() -> None:
    training = [BAKER, GOATS, BAKER + " Say.", BAKER + " Tell."]
    assert said(clean_all([], training, [])) == ["train"] * 4
    smallest = min((0, 2, 3), key=lambda index: content_key("problem", training[index]))
    cleaned = clean_all([], training, [], one_per_cluster=True)
    expected = [f"near_duplicate: of t.jsonl, line {smallest + 1}"] * 4
    expected[1] = expected[smallest] = "train"
    assert said(cleaned) == expected
    assert "2 near-duplicates of another training problem" in cleaned.describe()


def test_the_one_that_stays_of_a_cluster_is_none_that_is_refused() -> None:
    training = [BAKER, BAKER + " Say.", BAKER + " Tell."]
    smallest = min(training, key=lambda question: content_key("problem", question))
    # a benchmark that only the smallest one holds whole
    cleaned = clean_all([], training, [smallest], one_per_cluster=True, contamination_share=1.0)
    kept = [outcome for outcome in cleaned.outcomes if isinstance(outcome, Problem)]
    assert len(kept) == 1
    assert smallest not in [problem.question for problem in kept]


questions = st.lists(st.lists(st.sampled_from("abcd"), max_size=14).map(" ".join), max_size=8, unique=True)


@settings(deadline=None, max_examples=100)
@given(questions, questions, st.booleans(), st.sampled_from([0.0, 0.5, 1.0]), st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_nothing(
    rows: list[str], benchmark: list[str], one_per_cluster: bool, share: float, rng: random.Random
) -> None:
    def outcomes(order: list[str]) -> dict[str, str]:
        taken_rows = [taken(question, line) for line, question in enumerate(order, start=1)]
        sets = [EvaluationSet("b", tuple(EvaluationText("b", 1, question) for question in benchmark))]
        config = ProblemsConfig(
            path="t", held_out_fraction=0.4, one_per_cluster=one_per_cluster,
            contamination_share=share, contamination_words=4,
        )  # fmt: skip
        cleaned = clean(taken_rows, ["hash"] * len(order), sets, config)
        assert len(cleaned.outcomes) == len(order)
        told = {match.line for match in cleaned.matches}
        refused = {line for line, reason in enumerate(said(cleaned), start=1) if reason.startswith("contaminated")}
        assert told == refused  # every refusal has its match, and every match its refusal
        return {question: reason.partition(":")[0] for question, reason in zip(order, said(cleaned), strict=True)}

    assert outcomes(rows) == outcomes(rng.sample(rows, len(rows)))
