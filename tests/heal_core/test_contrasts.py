from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heal_core.contrasts import Contrast, contrast_arms
from heal_core.evaluation import GradedSample
from heal_core.records import Band, FinishReason, VerdictLabel
from heal_core.statistics import holm, paired_bootstrap

K = 4
HARD, EXTREME = str(Band.HARD), str(Band.EXTREMELY_HARD)


def answers(num_correct: Sequence[int], band: str = EXTREME, benchmark: str = "") -> list[GradedSample]:
    """K samples of each problem, of which so many are correct; problems are named after band, benchmark and place."""
    return [
        GradedSample(
            f"{band} {benchmark} {place}",
            band,
            VerdictLabel.CORRECT if index < correct else VerdictLabel.WRONG,
            None if index < correct else "different",
            FinishReason.STOP,
            benchmark,
        )
        for place, correct in enumerate(num_correct)
        for index in range(K)
    ]


def by_group(contrasts: Sequence[Contrast]) -> Mapping[tuple[str, str, str | None], Contrast]:
    return {(one.against, one.band, one.benchmark): one for one in contrasts}


def test_a_difference_is_paired_and_has_the_bootstraps_interval() -> None:
    heal, plain = answers([4, 3, 2, 0, 1, 4]), answers([2, 2, 2, 1, 0, 4])
    (every, extreme) = contrast_arms({"heal": heal, "equal_tokens": plain}, K)
    # differences 2/4, 1/4, 0, -1/4, 1/4, 0: mean 3/4 / 6
    assert every.difference == pytest.approx(0.125)
    expected = paired_bootstrap(np.array([[0.5, 0.25, 0, -0.25, 0.25, 0]]))
    assert (every.low, every.high) == (expected.low, expected.high)
    assert every.num_problems == 6
    assert replace(extreme, band="all", is_primary=False, p_adjusted=every.p_adjusted) == every


def test_the_power_is_that_of_the_difference_seen() -> None:
    plain = answers([0] * 8)
    # differences 1/4 and 0, four of each: mean 0.125, sd sqrt(8 * 0.125^2 / 7), SE sd / sqrt(8) = 0.0472,
    # and (1.960 + 0.842) * 0.0472 = 0.1324 is more than was seen
    (weak, _) = contrast_arms({"heal": answers([1, 0] * 4), "base": plain}, K)
    assert weak.minimum_detectable_difference == pytest.approx(0.1324, abs=1e-4)
    assert weak.difference == 0.125 and not weak.is_powered
    # twice as many of each: SE 0.0323, 0.0904
    (strong, _) = contrast_arms({"heal": answers([1, 0] * 8), "base": answers([0] * 16)}, K)
    assert strong.minimum_detectable_difference == pytest.approx(0.0904, abs=1e-4)
    assert strong.is_powered


@pytest.mark.parametrize("correct", [[3], [4, 4, 4], [0, 0, 0]])
def test_where_resampling_says_nothing_there_is_no_certainty(correct: list[int]) -> None:
    # one problem, or all that differ alike: the bootstrap would give an interval without width and a tiny p
    base = answers([0] * len(correct))
    for one in contrast_arms({"heal": answers(correct), "base": base, "equal_tokens": base}, K):
        assert one.difference == correct[0] / K
        assert (one.low, one.high, one.p_value, one.p_adjusted) == (None, None, None, None)
        assert one.minimum_detectable_difference is None and not one.is_powered


def test_all_but_the_primary_contrast_are_adjusted() -> None:
    rng = np.random.default_rng(5)
    arms = {
        arm: answers(rng.integers(0, 5, 12).tolist()) + answers(rng.integers(0, 5, 12).tolist(), HARD)
        for arm in ("heal", "base", "rejection_sampling", "equal_tokens")
    }
    found = by_group(contrast_arms(arms, K))
    assert len(found) == 9
    primary = found["equal_tokens", EXTREME, None]
    assert primary.is_primary and primary.p_adjusted == primary.p_value
    others = [one for one in found.values() if not one.is_primary]
    assert len(others) == 8
    assert [one.p_adjusted for one in others] == holm([one.p_value for one in others])
    assert any(one.p_adjusted != one.p_value for one in others)


def test_benchmarks_have_contrasts_of_their_own_where_there_are_two() -> None:
    def arm(first: list[int], second: list[int]) -> list[GradedSample]:
        return answers(first, HARD, "one") + answers(second, HARD, "two")

    found = by_group(contrast_arms({"heal": arm([4, 2], [0, 1]), "base": arm([0, 0], [0, 0])}, K))
    assert found.keys() == {("base", "all", None), ("base", HARD, None), ("base", "all", "one"), ("base", "all", "two")}
    assert found["base", "all", "one"].difference == 0.75
    assert found["base", "all", "two"].difference == 0.125
    alone = contrast_arms({"heal": answers([4, 2], HARD, "one"), "base": answers([0, 0], HARD, "one")}, K)
    assert {one.benchmark for one in alone} == {None}


def test_a_problem_that_no_arm_can_be_graded_on_is_left_out() -> None:
    heal, base = answers([4, 2, 0]), answers([0, 0, 0])
    (every, _) = contrast_arms({"heal": heal, "base": base}, K, frozenset([heal[0].problem_id]))
    assert (every.num_problems, every.difference) == (2, 0.25)


def test_a_promoted_or_given_student_is_compared_with_the_untrained_one_only() -> None:
    arms = {"teacher": answers([4]), "base": answers([0]), "given": answers([2])}
    assert {(one.arm, one.against) for one in contrast_arms(arms, K)} == {("given", "base")}
    assert contrast_arms({"teacher": answers([4]), "base": answers([0])}, K) == ()


@settings(deadline=None, max_examples=20)  # machines are busy
@given(st.lists(st.tuples(st.integers(0, K), st.integers(0, K)), min_size=2, max_size=12))
def test_arms_in_each_others_place_turn_the_sign(counts: list[tuple[int, int]]) -> None:
    one, other = answers([a for a, _ in counts]), answers([b for _, b in counts])
    (there, _) = contrast_arms({"heal": one, "base": other}, K)
    (back, _) = contrast_arms({"heal": other, "base": one}, K)
    assert there.difference == pytest.approx(-back.difference)
    assert there.is_powered == back.is_powered
    if there.low is not None and there.high is not None:
        assert there.low <= there.difference <= there.high
        # the resamples are the same ones
        assert (back.low, back.high) == pytest.approx((-there.high, -there.low))
        assert there.p_value == pytest.approx(back.p_value)


def test_a_contrast_that_could_not_be_tested_stays_in_the_family() -> None:
    # HEAL and B1 agree on every problem: of the four contrasts, over all and within the band, two have no p-value
    ours = answers([4, 3, 4, 1, 4, 2, 4, 3])
    found = contrast_arms({"heal": ours, "rejection_sampling": ours, "base": answers([0] * 8)}, K)
    tested = [one for one in found if one.p_value is not None]
    assert (len(found), len(tested)) == (4, 2)
    for one in tested:
        assert one.p_adjusted == pytest.approx(4 * one.p_value)
