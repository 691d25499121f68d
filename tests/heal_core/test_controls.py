"""What the controls do at random, and what they keep of HEAL."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from heal_core.arms import ARMS, CONTINUED, CONTROLS
from heal_core.controls import (
    ControlsConfig,
    drop_at_random,
    mismatch_hints,
    random_rank,
    random_step,
    shuffle_exposures,
)
from heal_core.curriculum import CurriculumConfig, build_stages

PATHS = st.dictionaries(st.text("abcdef", min_size=1, max_size=4), st.sampled_from("PQRS"), max_size=20)


def test_what_is_off_is_not_in_the_settings_of_a_run() -> None:
    assert ControlsConfig().model_dump() == {"rejection_sampling": True, "equal_tokens": True}
    assert ControlsConfig(unhinted=True, ceiling_samples=200).model_dump() == {
        "rejection_sampling": True,
        "equal_tokens": True,
        "unhinted": True,
        "ceiling_samples": 200,
    }


def test_arms_are_heal_and_the_controls_in_their_order() -> None:
    assert ControlsConfig().arms == ("heal", "rejection_sampling", "equal_tokens")
    every = ControlsConfig(**dict.fromkeys(CONTROLS, True))
    assert every.arms == ("heal", *CONTROLS)
    assert every.continued == CONTINUED
    assert [ARMS[arm].short for arm in CONTROLS] == [*(f"B{n}" for n in range(1, 9)), "answer"]


def test_every_control_is_a_setting() -> None:
    assert set(CONTROLS) | {"ceiling_samples"} == set(ControlsConfig.model_fields)


@given(st.text(max_size=8), st.integers(1, 9), st.integers(0, 3))
def test_a_random_step_is_one_of_the_window(path: str, window_size: int, seed: int) -> None:
    # surge i of the window, counted from 0, is that of step i + 1
    assert 1 <= random_step(path, window_size, seed) <= window_size


def test_random_steps_fall_on_all_of_a_window_alike() -> None:
    counts = Counter(random_step(f"path {i}", 4, 0) for i in range(4000))
    # 1,000 each, with a standard deviation of 27
    assert set(counts) == {1, 2, 3, 4}
    assert all(abs(num - 1000) < 150 for num in counts.values())


@given(PATHS, st.integers(0, 3))
def test_a_mismatched_hint_is_another_problems_and_given_once(problem_of: dict[str, str], seed: int) -> None:
    given_hints = mismatch_hints(problem_of, seed)
    assert all(problem_of[path] != problem_of[other] for path, other in given_hints.items())
    assert len(set(given_hints.values())) == len(given_hints)
    largest = max(Counter(problem_of.values()).values(), default=0)
    if 2 * largest <= len(problem_of):
        assert given_hints.keys() == problem_of.keys()


def test_a_single_problem_has_no_other_hint() -> None:
    assert mismatch_hints({"a": "P", "b": "P"}, 0) == {}


@given(PATHS, st.dictionaries(st.sampled_from("PQRS"), st.integers(0, 30)), st.integers(0, 3))
def test_as_many_are_dropped_as_pure_dropped(candidates: dict[str, str], num: dict[str, int], seed: int) -> None:
    dropped = drop_at_random(candidates, num, seed)
    assert dropped <= candidates.keys()
    for problem, total in Counter(candidates.values()).items():
        assert sum(candidates[row] == problem for row in dropped) == min(total, num.get(problem, 0))


def test_what_is_dropped_depends_on_the_seed() -> None:
    candidates = {f"row {i}": "P" for i in range(20)}
    first, second = (drop_at_random(candidates, {"P": 10}, seed) for seed in (0, 1))
    assert first != second


def test_ranks_are_shares_that_depend_on_row_and_seed() -> None:
    ranks = {(row, seed): random_rank(row, seed) for row in "abc" for seed in (0, 1)}
    assert len(set(ranks.values())) == 6
    assert all(0 <= rank < 1 for rank in ranks.values())


def test_shuffled_exposures_are_those_of_the_curriculum() -> None:
    stages = build_stages(["a", "b", "c"], ["d"], ["e", "f"], CurriculumConfig())
    shown = shuffle_exposures(stages, seed=0)
    # I twice 3, II once 4, III twice 6
    assert {name: len(rows) for name, rows in shown.items()} == {"I": 6, "II": 4, "III": 12}
    counts = Counter(row for rows in shown.values() for row in rows)
    assert counts == {"a": 5, "b": 5, "c": 5, "d": 3, "e": 2, "f": 2}
    # what is of the frontier is seen before the last stage now
    assert {"e", "f"} & set(shown["I"] + shown["II"])
    assert shown != shuffle_exposures(stages, seed=1)
