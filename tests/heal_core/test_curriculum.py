from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from heal_core.curriculum import CapCandidate, CurriculumConfig, build_stages, cap_candidates
from heal_core.errors import InputError, ShapeError

CONFIG = CurriculumConfig()


def candidate(row_id: str, score: float, tokens, path_id: str | None = None, problem_id: str = "p") -> CapCandidate:
    return CapCandidate(row_id, problem_id, path_id or row_id, score, np.array(tokens))


def distinct(i: int) -> range:
    """A text that shares no token with that of another i."""
    return range(1000 * i, 1000 * i + 40)


def test_at_most_m_of_a_problem_are_kept_lowest_score_first() -> None:
    config = CurriculumConfig(max_per_problem=2)
    rows = [candidate(f"r{i}", score, distinct(i)) for i, score in enumerate([3.0, 1.0, 2.0])]
    other = candidate("other", 9.0, distinct(9), problem_id="q")
    result = cap_candidates([*rows, other], config)
    assert result.kept == ("r1", "r2", "other")
    assert result.reasons == {"r0": "over_cap"}


def test_a_wrong_path_gives_one_repair() -> None:
    rows = [candidate("a", 2.0, distinct(1), "path"), candidate("b", 1.0, distinct(2), "path")]
    result = cap_candidates(rows, CONFIG)
    assert result.kept == ("b",) and result.reasons == {"a": "same_path"}


def test_ties_go_to_the_smaller_row_id() -> None:
    rows = [candidate("b", 1.0, distinct(1), "path"), candidate("a", 1.0, distinct(2), "path")]
    assert cap_candidates(rows, CONFIG).kept == ("a",)


def test_near_duplicates_at_the_limit_of_jaccard() -> None:
    # 20-grams of 29 tokens: 10 of them. Sharing the first 28 tokens: 9 shared of 11, 0.818 >= 0.8;
    # sharing 27: 8 of 12, 0.667.
    base = list(range(29))
    close, apart = [*base[:28], 99], [*base[:27], 98, 97]
    result = cap_candidates([candidate("a", 0, base), candidate("b", 1, close), candidate("c", 2, apart)], CONFIG)
    assert result.kept == ("a", "c") and result.reasons == {"b": "near_duplicate"}


def test_exactly_the_limit_is_a_near_duplicate() -> None:
    # Single tokens as grams: {0..8} and {0..7, 9} share 8 of 10, 0.8 exactly.
    config = CurriculumConfig(ngram_tokens=1)
    rows = [candidate("a", 0, range(9)), candidate("b", 1, [*range(8), 9])]
    assert cap_candidates(rows, config).reasons == {"b": "near_duplicate"}


def test_copies_in_different_problems_do_not_compete() -> None:
    rows = [candidate("a", 0, distinct(1)), candidate("b", 0, distinct(1), problem_id="q")]
    assert cap_candidates(rows, CONFIG).kept == ("a", "b")


def test_texts_shorter_than_a_gram_are_compared_whole() -> None:
    rows = [candidate("a", 0, [1, 2]), candidate("b", 1, [1, 2]), candidate("c", 2, [1, 2, 3])]
    result = cap_candidates(rows, CONFIG)
    assert result.kept == ("a", "c") and result.reasons == {"b": "near_duplicate"}


def test_the_width_of_the_integers_does_not_hide_a_copy() -> None:
    rows = [
        CapCandidate("a", "p", "a", 0.0, np.arange(40, dtype=np.int32)),
        CapCandidate("b", "p", "b", 1.0, np.arange(40, dtype=np.int64)),
    ]
    assert cap_candidates(rows, CONFIG).reasons == {"b": "near_duplicate"}


def test_a_dropped_row_neither_blocks_its_path_nor_its_text() -> None:
    # "b" is a copy of "a" and goes; "c" has b's path and text unlike a's, so it stays.
    rows = [
        candidate("a", 0, distinct(1), "x"),
        candidate("b", 1, distinct(1), "y"),
        candidate("c", 2, distinct(2), "y"),
    ]
    assert cap_candidates(rows, CONFIG).kept == ("a", "c")


candidates = st.lists(
    st.tuples(
        st.sampled_from("pq"),
        st.sampled_from(["x", "y", "z", None]),
        st.integers(0, 3),
        st.lists(st.integers(0, 2), min_size=0, max_size=6),
    ),
    max_size=14,
)


@settings(deadline=None)  # machines are busy
@given(candidates, st.randoms(use_true_random=False))
def test_the_cap_accounts_for_every_row_and_ignores_the_order(drawn, rng: random.Random) -> None:
    config = CurriculumConfig(max_per_problem=2, ngram_tokens=3)
    rows = [
        candidate(f"r{i:02}", score, tokens, path and f"{problem}{path}", problem)
        for i, (problem, path, score, tokens) in enumerate(drawn)
    ]
    result = cap_candidates(rows, config)
    by_id = {row.row_id: row for row in rows}
    assert sorted([*result.kept, *result.reasons]) == sorted(by_id)
    for problem in "pq":
        kept = [by_id[row_id] for row_id in result.kept if by_id[row_id].problem_id == problem]
        assert len(kept) <= 2
        assert len({row.path_id for row in kept}) == len(kept)
        assert [row.score for row in kept] == sorted(row.score for row in kept)
    shuffled = rows.copy()
    rng.shuffle(shuffled)
    assert cap_candidates(shuffled, config) == result


def test_a_row_given_twice_is_refused() -> None:
    with pytest.raises(ShapeError, match="row a stands twice"):
        cap_candidates([candidate("a", 0, distinct(1)), candidate("a", 1, distinct(2))], CONFIG)
    with pytest.raises(ShapeError, match="row g stands twice"):
        build_stages(["g"], ["g"], [], CONFIG)


@settings(deadline=None)  # machines are busy
@given(
    st.sets(st.integers(), min_size=1, max_size=8),
    st.sets(st.integers(), max_size=8),
    st.sets(st.integers(), max_size=8),
    st.integers(0, 5),
)
def test_stages_grow_and_what_is_new_partitions_the_examples(
    base: set[int], guided: set[int], repairs: set[int], seed: int
) -> None:
    ids = [[f"{kind}{i}" for i in group] for kind, group in zip("bgr", (base, guided, repairs), strict=True)]
    stages = build_stages(*ids, CONFIG, seed)
    assert [stage.name for stage in stages] == ["I", "II", "III"]
    assert [stage.epochs for stage in stages] == [2, 1, 2]
    assert [stage.num_new for stage in stages] == [len(group) for group in ids]
    assert [sorted(stage.row_ids) for stage in stages] == [
        sorted(ids[0]),
        sorted(ids[0] + ids[1]),
        sorted(ids[0] + ids[1] + ids[2]),
    ]
    reordered = build_stages(*[group[::-1] for group in ids], CONFIG, seed)
    assert reordered == stages


def test_the_seed_decides_the_order_and_stages_mix_old_and_new() -> None:
    base, repairs = [f"b{i}" for i in range(20)], [f"r{i}" for i in range(20)]
    first, second, third = build_stages(base, [], repairs, CONFIG, seed=0)
    assert first.row_ids != build_stages(base, [], repairs, CONFIG, seed=1)[0].row_ids
    assert first.row_ids != tuple(sorted(base))
    assert second.num_new == 0 and second.row_ids != first.row_ids and set(second.row_ids) == set(base)
    assert {row_id[0] for row_id in third.row_ids[:20]} == {"b", "r"}


def test_an_empty_first_stage_is_an_error_with_a_remedy() -> None:
    with pytest.raises(InputError, match="num_generations"):
        build_stages([], ["g"], ["r"], CONFIG)


@pytest.mark.parametrize(
    "setting",
    [{"max_per_problem": 0}, {"max_jaccard": 0}, {"epochs": (2, 1)}, {"epochs": (2, 0, 2)}, {"caps": 4}],
)
def test_the_config_refuses_what_cannot_be_meant(setting: dict) -> None:
    with pytest.raises(ValidationError):
        CurriculumConfig(**setting)
