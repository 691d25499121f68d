"""Near-duplicates stay together, and which side a problem is on depends on nothing else (definition D1)."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from heal_core.duplicates import SHINGLE_WORDS, cluster_labels
from heal_core.records import Problem
from heal_core.split import hash_split, with_clusters

WORDS = [f"word{index}" for index in range(400)]


def problem(problem_id: str, question: str) -> Problem:
    return Problem(problem_id, question, "1", "s", "", "math", problem_id, "train")


def text(seed: int, num_words: int = 20) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=num_words))


def partition(labels: list[int]) -> list[list[int]]:
    return sorted([index for index, other in enumerate(labels) if other == label] for label in set(labels))


def test_the_threshold_is_exact() -> None:
    # 24 words have 20 shingles. Changing the last word changes one of them: the two sets share
    # 19 of 21, 0.905. Changing a middle word changes five: 15 of 25, 0.6.
    words = text(0, 24).split()
    last, middle = " ".join([*words[:-1], "x"]), " ".join([*words[:12], "x", *words[13:]])
    original = " ".join(words)
    assert cluster_labels([original, last], 19 / 21) == [0, 0]
    assert cluster_labels([original, last], 19 / 21 + 1e-6) == [0, 1]
    assert cluster_labels([original, middle], 0.6) == [0, 0]
    assert cluster_labels([original, middle], 0.8) == [0, 1]


def test_clusters_are_chains() -> None:
    # Dropping two words at the front drops 2 of 20 shingles: 18/20 = 0.9 between neighbours,
    # 16/20 = 0.8 and 14/20 = 0.7 along the chain.
    words = text(1, 24).split()
    chain = [" ".join(words[start:]) for start in (0, 2, 4, 6)]
    assert cluster_labels([chain[0], chain[3]], 0.85) == [0, 1]
    assert cluster_labels(chain, 0.85) == [0, 0, 0, 0]


def test_the_cluster_id_is_the_smallest_problem_id_in_it() -> None:
    question = text(2)
    problems = [problem("b", question), problem("c", text(3)), problem("a", question.upper())]
    assert [clustered.cluster_id for clustered in with_clusters(problems, 0.8)] == ["a", "c", "a"]
    assert with_clusters([], 0.8) == []


@settings(deadline=None, max_examples=60)
@given(st.lists(st.lists(st.sampled_from("abcdef"), max_size=12).map(" ".join), max_size=12), st.floats(0.05, 1))
def test_the_index_finds_what_comparing_every_pair_finds(
    ngrams_of: Callable[[str, int], frozenset[str]], texts: list[str], min_jaccard: float
) -> None:
    sets = [ngrams_of(question, SHINGLE_WORDS) for question in texts]
    labels = list(range(len(texts)))
    for first, left in enumerate(sets):
        for second, right in enumerate(sets):
            if len(left & right) / len(left | right) >= min_jaccard - 1e-9:
                labels = [labels[first] if label == labels[second] else label for label in labels]
    assert partition(cluster_labels(texts, min_jaccard)) == partition(labels)


@given(st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=20)
def test_neither_order_nor_unrelated_problems_move_anyone(rng: random.Random) -> None:
    known = [problem(f"{seed:032x}", text(seed)) for seed in range(10)]
    known += [replace(known[0], problem_id="f" * 32, question=known[0].question + " indeed")]
    before = {p.problem_id: p.cluster_id for p in with_clusters(known, 0.8)}
    crowd = [*known, *(problem(f"{seed:032x}", text(seed)) for seed in range(100, 120))]
    rng.shuffle(crowd)
    after = {p.problem_id: p.cluster_id for p in with_clusters(crowd, 0.8)}
    assert {problem_id: after[problem_id] for problem_id in before} == before
    assert before["f" * 32] == before["0" * 32]


def test_the_hash_holds_out_about_the_fraction() -> None:
    sides = [hash_split(f"cluster {index}", 0.2) for index in range(10_000)]
    # Binomial: sd = sqrt(10000 * 0.2 * 0.8) = 40, so 160 is four of them.
    assert abs(sides.count("held_out") - 2000) < 160
    assert set(sides) == {"held_out", "train"}


@given(st.text(), st.floats(0.01, 0.99), st.floats(0.01, 0.99))
def test_a_larger_fraction_only_adds_to_the_held_out(cluster_id: str, one: float, other: float) -> None:
    small, large = sorted((one, other))
    assert hash_split(cluster_id, small) == "train" or hash_split(cluster_id, large) == "held_out"


def test_membership_is_pinned() -> None:
    """A change here would move problems of existing workspaces from held-out into train."""
    held_out = [index for index in range(40) if hash_split(f"cluster {index}", 0.2) == "held_out"]
    assert held_out == [0, 20, 22, 23, 29, 37]
