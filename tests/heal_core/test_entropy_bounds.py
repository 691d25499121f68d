"""Entropy from the most probable tokens: the true one lies in the interval, whatever the distribution."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from heal_core.entropy_bounds import entropy_interval, middle_and_radius
from heal_core.errors import ShapeError

LN2 = math.log(2)


@st.composite
def distributions(draw):
    """Return log-probabilities, largest first, shape [V]: flat, peaked, with ties and with impossible tokens."""
    num = draw(st.integers(2, 40))
    logits = draw(arrays(np.float64, num, elements=st.floats(-30, 30) | st.sampled_from([0.0, 1.0, -np.inf])))
    if np.isneginf(logits).all():
        logits[0] = 0.0
    logprobs = logits - np.logaddexp.reduce(logits)
    return np.minimum(np.sort(logprobs)[::-1], 0.0)


def entropy(logprobs):
    finite = logprobs[np.isfinite(logprobs)]
    return float(-np.sum(np.exp(finite) * finite))


def interval(logprobs, vocabulary_size):
    low, high = entropy_interval(np.array([logprobs]), vocabulary_size)
    return float(low[0]), float(high[0])


def test_halves_of_which_one_is_given():
    # p = 1/2 given, 1/2 missing over 2 tokens, none above 1/2: known = 1/2 ln 2.
    # Least: all of it on one token, 1/2 ln 2 more, ln 2. Most: 1/4 and 1/4, 1/2 ln 4 more, 3/2 ln 2.
    low, high = interval([math.log(0.5)], 3)
    assert (low, high) == (pytest.approx(LN2, abs=1e-5), pytest.approx(1.5 * LN2, abs=1e-5))
    assert low < LN2 and high > 1.5 * LN2  # rounding is on the safe side


def test_two_of_four_and_a_filler():
    # 1/2 and 1/4 given, 1/4 missing over 2 tokens: known = 1/2 ln 2 + 1/4 ln 4 = ln 2.
    # Least: 1/4 ln 4 more, 3/2 ln 2. Most: 1/4 ln 8 more, 7/4 ln 2. The filler is no token.
    given_two = [math.log(0.25), -np.inf, math.log(0.5)]
    low, high = interval(given_two, 4)
    assert (low, high) == (pytest.approx(1.5 * LN2, abs=1e-5), pytest.approx(1.75 * LN2, abs=1e-5))
    # A vocabulary that is said to be twice as large only widens it: 6 missing, 1/4 ln 24 more.
    assert interval(given_two, 8) == (low, pytest.approx(LN2 + 0.25 * math.log(24), abs=1e-5))


def test_more_mass_missing_than_where_its_spread_is_greatest():
    # One missing token: r ln(1/r) has its top at 1/e. Of r = 0.45, allowed by rounding to be a bit more or less,
    # the greatest is at the lower end, and the interval must not end below it.
    low, high = interval([math.log(0.55)], 2)
    assert low < entropy(np.log([0.55, 0.45])) < high


def test_nothing_missing_is_nearly_exact():
    low, high = interval([0.0], 1000)
    assert low == 0.0
    assert 0 < high < 1e-4  # what rounding may hide: about 1e-6 * ln(1000 / 1e-6)


@settings(deadline=None)  # machines are busy
@given(logprobs=distributions(), data=st.data(), is_float32=st.booleans())
def test_the_true_entropy_lies_in_the_interval(logprobs, data, is_float32):
    num = data.draw(st.integers(1, np.isfinite(logprobs).sum()))
    given_ones = logprobs[:num].astype(np.float32) if is_float32 else logprobs[:num]
    order = data.draw(st.permutations(range(num)))
    low, high = interval(given_ones[order], len(logprobs))
    true = entropy(logprobs)
    slack = 1e-5 if num == len(logprobs) else 1e-12  # where all are given nothing is added for their rounding
    assert 0 <= low <= high <= math.log(len(logprobs))
    assert low - slack <= true <= high + slack
    if num == len(logprobs):
        assert low == high


@settings(deadline=None)
@given(logprobs=distributions())
def test_more_tokens_never_widen_the_interval(logprobs):
    widths = []
    for num in range(1, np.isfinite(logprobs).sum() + 1):
        low, high = interval(logprobs[:num], len(logprobs))
        widths.append(high - low)
    assert all(after <= before + 1e-4 for before, after in itertools.pairwise(widths))


@settings(deadline=None)
@given(logprobs=distributions(), data=st.data())
def test_what_is_stored_holds_the_interval(logprobs, data):
    num = data.draw(st.integers(1, np.isfinite(logprobs).sum()))
    low, high = entropy_interval(logprobs[None, :num], len(logprobs))
    middle, radius = middle_and_radius(low, high)
    assert middle.dtype == radius.dtype == np.float32
    lower, upper = middle.astype(np.float64) - radius, middle.astype(np.float64) + radius
    if num < len(logprobs):
        assert (lower <= low).all() and (high <= upper).all()
    else:
        assert radius.tolist() == [0.0]


def test_rows_are_apart():
    low, high = entropy_interval(np.log([[0.5, 0.25], [0.9, 0.05]]), 4)
    assert [(low[0], high[0]), (low[1], high[1])] == [
        interval(np.log([0.5, 0.25]), 4),
        interval(np.log([0.9, 0.05]), 4),
    ]


def test_no_tokens_have_no_intervals():
    low, high = entropy_interval(np.empty((0, 20)), 100)
    assert low.shape == high.shape == (0,)


@pytest.mark.parametrize(
    ("logprobs", "vocabulary_size"),
    [
        (np.zeros(3), 10),
        (np.zeros((2, 0)), 10),
        (np.array([[np.nan, -1.0]]), 10),
        (np.array([[0.5, -1.0]]), 10),
        (np.array([[-np.inf, -np.inf]]), 10),
        (np.log([[0.7, 0.7]]), 10),  # adds up to 1.4
        (np.log([[0.4, 0.3, 0.3]]), 2),  # three of two tokens
        (np.log([[0.01]]), 50),  # 0.99 missing, and 49 tokens of at most 0.01 each
    ],
)
def test_what_is_no_part_of_a_distribution_is_refused(logprobs, vocabulary_size):
    with pytest.raises(ShapeError):
        entropy_interval(logprobs, vocabulary_size)


def test_where_there_may_be_gaps_nothing_is_said_of_what_is_missing() -> None:
    # 0.5 is told and 0.3 is not, though it is more probable than the 0.1 that is; V = 4
    distribution = np.array([0.5, 0.3, 0.1, 0.1])
    told = np.log(np.array([[0.5, 0.1]]))
    exact = -(distribution * np.log(distribution)).sum()
    low, high = entropy_interval(told, 4, np.array([True]))
    assert low[0] <= exact <= high[0]
    assert low[0] == pytest.approx(-(0.5 * np.log(0.5) + 0.1 * np.log(0.1)), abs=1e-5)
    with pytest.raises(ShapeError):  # as if they were the most probable ones
        entropy_interval(told, 4)
