from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heal_core import statistics
from heal_core.errors import HealError, ShapeError
from heal_core.statistics import (
    Interval,
    avg_at_k,
    bootstrap_p_value,
    holm,
    minimum_detectable_difference,
    paired_bootstrap,
    pass_at_k,
    standard_error,
    t_interval,
    t_quantile,
)


def test_avg_at_k_and_standard_error_of_a_worked_example() -> None:
    correct = np.array([[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 1]], dtype=bool)
    # Means 0.5, 0.25, 1 -> avg 1.75/3; deviations -1/12, -4/12, 5/12: squares (1 + 16 + 25)/144 = 42/144,
    # variance 21/144, SE = sqrt(21/144 / 3) = sqrt(7)/12.
    assert avg_at_k(correct) == pytest.approx(1.75 / 3)
    assert standard_error(correct.mean(axis=1)) == pytest.approx(math.sqrt(7) / 12)


def test_a_single_problem_has_no_standard_error() -> None:
    assert standard_error(np.array([0.5])) is None


@pytest.mark.parametrize("call", [lambda: avg_at_k(np.empty((0, 4))), lambda: standard_error(np.empty(0))])
def test_nothing_to_average_is_refused(call) -> None:
    with pytest.raises(ShapeError):
        call()


@settings(deadline=None)  # machines are busy
@given(st.integers(1, 9), st.data())
def test_pass_at_k_is_the_share_of_subsets_with_a_correct_sample(n: int, data: st.DataObject) -> None:
    c, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    subsets = list(combinations(range(n), k))  # samples 0..c-1 are the correct ones
    expected = sum(any(i < c for i in subset) for subset in subsets) / len(subsets)
    assert pass_at_k(n, c, k) == pytest.approx(expected, abs=1e-12)


def test_pass_at_k_is_stable_where_binomials_are_astronomic() -> None:
    # One correct among n: exactly k/n. A float holds no C(20000, 10000).
    assert pass_at_k(20_000, 1, 10_000) == pytest.approx(0.5, rel=1e-12)
    assert pass_at_k(10**6, 1, 1) == pytest.approx(1e-6, rel=1e-12)


@pytest.mark.parametrize(("n", "c", "k"), [(3, 1, 4), (3, 1, 0), (3, 4, 1), (3, -1, 1)])
def test_pass_at_k_refuses_what_has_no_unbiased_estimate(n: int, c: int, k: int) -> None:
    with pytest.raises(ShapeError) as caught:
        pass_at_k(n, c, k)
    assert isinstance(caught.value, HealError) and isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    ("probability", "degrees", "expected"),
    [  # as printed in the usual tables of Student's t
        (0.975, 1, 12.706),
        (0.975, 2, 4.303),
        (0.975, 3, 3.182),
        (0.975, 4, 2.776),
        (0.975, 9, 2.262),
        (0.975, 30, 2.042),
        (0.995, 4, 4.604),
        (0.95, 5, 2.015),
        (0.975, 1000, 1.962),
    ],
)
def test_t_quantiles_agree_with_tables(probability: float, degrees: int, expected: float) -> None:
    assert t_quantile(probability, degrees) == pytest.approx(expected, abs=6e-4)


def test_t_quantile_has_its_closed_forms() -> None:
    # One degree: tan(pi (p - 1/2)). Two degrees: a sqrt(2 / (1 - a^2)) with a = 2p - 1.
    assert t_quantile(0.9, 1) == pytest.approx(math.tan(math.pi * 0.4), rel=1e-12)
    assert t_quantile(0.9, 2) == pytest.approx(0.8 * math.sqrt(2 / (1 - 0.64)), rel=1e-12)


@pytest.mark.parametrize(("probability", "degrees"), [(0.5, 3), (1.0, 3), (0.9, 0)])
def test_t_quantile_refuses_what_is_out_of_range(probability: float, degrees: int) -> None:
    with pytest.raises(ShapeError):
        t_quantile(probability, degrees)


def test_t_interval_of_a_worked_example() -> None:
    # Mean 3, sd sqrt(10/4) = sqrt(2.5), SE = sqrt(2.5/5) = sqrt(0.5); t(0.975, 4) = 2.7764.
    interval = t_interval(np.array([1.0, 2.0, 3.0, 4.0, 5.0]))
    reach = 2.7764451 * math.sqrt(0.5)
    assert interval is not None
    assert (interval.mean, interval.low, interval.high) == pytest.approx((3, 3 - reach, 3 + reach), abs=1e-6)
    assert interval.excludes_zero
    assert t_interval(np.array([1.0])) is None


def test_an_interval_excludes_zero_only_on_one_side() -> None:
    assert Interval(-2, -3, -1).excludes_zero
    assert not Interval(0.5, -1, 2).excludes_zero
    assert not Interval(1, 0, 2).excludes_zero


def test_the_bootstrap_finds_a_clear_difference_and_no_absent_one() -> None:
    noise = np.random.default_rng(1).normal(size=(5, 80))
    noise -= noise.mean()
    clear, absent = paired_bootstrap(noise + 2), paired_bootstrap(noise)
    assert clear.mean == pytest.approx(2) and clear.excludes_zero
    assert not absent.excludes_zero
    assert bootstrap_p_value(noise + 2) == pytest.approx(2 / 10_001)
    assert bootstrap_p_value(noise) > 0.5


def test_the_bootstrap_of_two_problems_has_a_known_distribution() -> None:
    # One seed, differences 0 and 1: resampled means 0, 1/2, 1 with probabilities 1/4, 1/2, 1/4.
    differences = np.array([[0.0, 1.0]])
    interval = paired_bootstrap(differences, confidence=0.95)
    assert (interval.mean, interval.low, interval.high) == (0.5, 0.0, 1.0)
    inner = paired_bootstrap(differences, confidence=0.4)
    assert (inner.low, inner.high) == (0.5, 0.5)
    # P(mean <= 0) = 1/4 is the smaller side, so p is near 1/2.
    assert bootstrap_p_value(differences) == pytest.approx(0.5, abs=0.03)


def test_the_bootstrap_resamples_seeds_as_well_as_problems() -> None:
    # Every problem agrees, two seeds disagree: only drawing seeds can move the mean.
    differences = np.repeat([[0.0], [1.0]], 50, axis=1)
    interval = paired_bootstrap(differences)
    assert (interval.low, interval.high) == (0.0, 1.0)


def test_the_bootstrap_resamples_problems_as_whole_columns() -> None:
    # Cells drawn independently would have half this spread: 4 seeds are copies of one another.
    column = np.random.default_rng(3).normal(size=40)
    single, copied = paired_bootstrap(column[None, :]), paired_bootstrap(np.tile(column, (4, 1)))
    assert copied.high - copied.low == pytest.approx(single.high - single.low, rel=0.1)


def test_the_bootstrap_is_decided_by_its_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    differences = np.random.default_rng(2).normal(size=(3, 10))
    assert paired_bootstrap(differences, seed=7) == paired_bootstrap(differences, seed=7)
    assert paired_bootstrap(differences, seed=7) != paired_bootstrap(differences, seed=8)
    monkeypatch.setattr(statistics, "_RESAMPLES_AT_ONCE_CELLS", 1000)  # 100 chunks instead of one
    chunked = paired_bootstrap(differences, seed=7)
    assert chunked.low == pytest.approx(paired_bootstrap(differences, seed=8).low, abs=0.1)


@pytest.mark.parametrize("differences", [np.zeros(3), np.zeros((0, 3)), np.array([[0.0, np.nan]])])
def test_differences_that_cannot_be_resampled_are_refused(differences: np.ndarray) -> None:
    for call in (paired_bootstrap, bootstrap_p_value, minimum_detectable_difference):
        with pytest.raises(ShapeError):
            call(differences)


def test_no_difference_at_all_has_p_value_one() -> None:
    assert bootstrap_p_value(np.zeros((2, 5))) == 1.0


def test_holm_of_a_worked_example() -> None:
    # Sorted 0.01, 0.03, 0.04 times 3, 2, 1: 0.03, 0.06, 0.04 -> running maximum 0.03, 0.06, 0.06.
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([]) == []
    with pytest.raises(ShapeError):
        holm([0.5, 1.5])
    with pytest.raises(ShapeError):
        holm([math.nan])


def test_a_contrast_that_could_not_be_tested_counts_in_the_family() -> None:
    # three were planned: 0.01 times 3, then 0.03 times 2
    assert holm([0.01, None, 0.03]) == [pytest.approx(0.03), None, pytest.approx(0.06)]
    assert holm([None]) == [None]


@settings(deadline=None)  # machines are busy
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_only_raises_keeps_order_and_stays_below_bonferroni(p_values: list[float]) -> None:
    adjusted = np.array(holm(p_values))
    raw = np.array(p_values)
    assert np.all(adjusted >= raw) and np.all(adjusted <= 1)
    assert np.all(adjusted <= np.minimum(1, raw * raw.size) + 1e-15)
    assert np.all(np.diff(adjusted[np.argsort(raw, kind="stable")]) >= 0)


def test_minimum_detectable_difference_of_a_worked_example() -> None:
    # Problem means 0, 1, 0, 1: variance 1/3, over 4 problems 1/12; seed means agree: SE = sqrt(1/12).
    # z(0.975) + z(0.8) = 1.959964 + 0.841621 = 2.801585.
    differences = np.tile([0.0, 1.0], (3, 2))
    assert minimum_detectable_difference(differences) == pytest.approx(2.801585 * math.sqrt(1 / 12), rel=1e-6)
    # Seed means 0 and 2 add variance 2 over 2 seeds: SE^2 = 1/12 + 1.
    shifted = np.tile([-0.5, 0.5], (2, 2)) + np.array([[0.0], [2.0]])
    assert minimum_detectable_difference(shifted) == pytest.approx(2.801585 * math.sqrt(13 / 12), rel=1e-6)
    assert minimum_detectable_difference(np.ones((3, 1))) is None


def test_a_problem_that_does_not_count_with_a_seed_is_left_out_there() -> None:
    nan = float("nan")
    differences = np.array([[1.0, nan, 0.0], [1.0, 0.5, nan]])
    # (1 + 0 + 1 + 0.5) / 4
    interval = paired_bootstrap(differences)
    assert interval.mean == pytest.approx(0.625)
    assert 0 <= interval.low <= 0.625 <= interval.high <= 1


def test_an_interval_without_gaps_is_that_of_before_gaps_were_allowed() -> None:
    rng = np.random.default_rng(3)
    full = rng.normal(size=(3, 20))
    gap = np.concatenate([full, np.full((3, 1), np.nan)], axis=1)
    gap[0, -1] = full.mean()
    assert paired_bootstrap(full).mean == pytest.approx(full.mean())
    assert paired_bootstrap(gap).mean == pytest.approx((full.sum() + full.mean()) / 61)


@pytest.mark.parametrize("where", [(slice(None), 0), (0, slice(None))])
def test_a_seed_or_a_problem_without_any_number_is_refused(where: tuple[object, object]) -> None:
    differences = np.ones((2, 3))
    differences[where] = np.nan
    with pytest.raises(ShapeError, match="a number for each seed and each problem"):
        paired_bootstrap(differences)
