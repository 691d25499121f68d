"""Breakpoints: the largest surge of the window, by the arithmetic of definition D5."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from heal_core.breakpoints import BreakpointConfig, find_breakpoint, is_certain
from heal_core.errors import ShapeError

DEFAULT = BreakpointConfig()
entropies = arrays(np.float64, st.integers(0, 40), elements=st.floats(0, 12))


def test_the_largest_surge_of_the_first_third():
    # K = 9, window = steps 2..3 (from 1), surges 0.5 and 0.7; the later 5.0 is outside.
    found = find_breakpoint(np.array([1.0, 1.5, 2.2, 0, 0, 5.0, 0, 0, 0]), DEFAULT)
    assert found is not None
    assert (found.step_index, found.window_size, found.flat) == (2, 2, False)
    assert found.surge == pytest.approx(0.7)
    assert found.z_score is None  # fewer than three surges


def test_z_score_over_the_window():
    # K = 12, window = steps 2..4, surges 1, 3, -1: mean 1, sd sqrt((0 + 4 + 4) / 3); z = 2 / 1.633.
    found = find_breakpoint(np.array([0.0, 1, 4, 3] + [3.0] * 8), DEFAULT)
    assert found is not None
    assert (found.step_index, found.window_size) == (2, 3)
    assert found.z_score == pytest.approx(2 / math.sqrt(8 / 3))


def test_the_first_wins_on_ties():
    # K = 12, surges of the window 2, 0, 2.
    found = find_breakpoint(np.array([0.0, 2, 2, 4] + [0.0] * 8), DEFAULT)
    assert found is not None
    assert found.step_index == 1


def test_no_rise_is_flagged_and_placed_by_convention():
    # K = 18: b = max(2, ceil(18 / 6)) = 3, index 2; its surge is -2, the window's others -1.
    steps = np.array([20.0, 19, 17, 16, 15, 14] + [30.0] * 12)
    found = find_breakpoint(steps, DEFAULT)
    assert found is not None
    assert (found.step_index, found.surge, found.window_size, found.flat) == (2, -2.0, 5, True)


def test_equal_surges_have_no_z_score():
    found = find_breakpoint(0.1 * np.arange(12), DEFAULT)  # differences of 0.1 up to rounding
    assert found is not None
    assert found.z_score is None


@pytest.mark.parametrize("num_steps", [2, 3, 6, 7, 9, 12, 13, 18, 19, 99, 100, 2997, 3000])
def test_the_window_is_exact(num_steps):
    found = find_breakpoint(np.zeros(num_steps), DEFAULT)
    assert found is not None
    assert found.window_size == max(2, -(-num_steps // 3)) - 1
    assert found.step_index + 1 == max(2, -(-num_steps // 6))


def test_the_window_is_exact_for_decimal_fractions():
    # 100 * 0.07 = 7.000000000000001 in floats; steps 2..7 are six.
    found = find_breakpoint(np.zeros(100), BreakpointConfig(window_fraction=0.07))
    assert found is not None
    assert found.window_size == 6


@pytest.mark.parametrize("num_steps", [0, 1])
def test_too_few_steps_have_no_breakpoint(num_steps):
    assert find_breakpoint(np.ones(num_steps), DEFAULT) is None


@settings(deadline=None)  # machines are busy
@given(steps=entropies, fraction=st.floats(0.01, 1))
def test_a_breakpoint_is_an_existing_step_and_never_the_first(steps, fraction):
    found = find_breakpoint(steps, BreakpointConfig(window_fraction=fraction))
    if len(steps) < 2:
        assert found is None
        return
    assert found is not None
    assert 1 <= found.step_index <= found.window_size < len(steps)
    surges = np.diff(steps)[: found.window_size]
    assert found.surge == surges[found.step_index - 1]
    assert found.flat == bool((surges <= 0).all())
    if not found.flat:
        assert found.surge == surges.max()
        assert (surges[: found.step_index - 1] < found.surge).all()


@pytest.mark.parametrize("steps", [np.zeros((2, 2)), np.array([0.0, np.nan, 1.0])])
def test_what_is_no_profile_is_refused(steps):
    with pytest.raises(ShapeError):
        find_breakpoint(steps, DEFAULT)


def certain(steps, radii, config=DEFAULT):
    return is_certain(np.array(steps, dtype=float), np.array(radii, dtype=float), config)


def test_a_surge_that_others_cannot_reach_is_certain():
    # K = 12, window = steps 2..4, surges 0.5, 2, 0. With 0.3 on every step each is off by at most 0.6: 1.1 < 1.4.
    steps = [1.0, 1.5, 3.5, 3.5] + [0.0] * 8
    assert certain(steps, [0.3] * 12)
    # With 0.4 at most 1.3 against at least 1.2. But a step is shared: as step 2 is high, it rises less at step 3.
    assert not certain(steps, [0.4] * 12)


def test_what_lies_beyond_the_window_cannot_move_it():
    steps = [1.0, 1.5, 3.5, 3.5] + [0.0] * 8
    assert certain(steps, [0.1] * 4 + [9.0] * 8)


def test_the_first_of_a_tie_is_certain_and_a_later_one_is_not():
    # K = 9, window = steps 2..3. Surges 2 and 0..2: at most a tie, which the first wins.
    assert certain([0.0, 2, 3] + [0.0] * 6, [0, 0, 1.0] + [0.0] * 6)
    # Surges 1..2 and 3..2 of one step in the middle: at its upper end a tie, and the middle's choice is the second.
    assert find_breakpoint(np.array([0.0, 1.5, 4] + [0.0] * 6), DEFAULT).step_index == 2
    assert not certain([0.0, 1.5, 4] + [0.0] * 6, [0, 0.5, 0] + [0.0] * 6)


def test_each_rise_alone_could_be_the_largest_but_not_with_the_others():
    # K = 12, steps 0, 0..4, 4, 8: the surges of steps 2 and 3 add up to the 4 of step 4. One that has all of it ties
    # with step 4, and wins as the first.
    low, high = np.array([0.0, 0, 4, 8]), np.array([0.0, 4, 4, 8])
    steps, radii = (low + high) / 2, (high - low) / 2
    wide = [*steps, *[0.0] * 8], [*radii, *[0.0] * 8]
    assert not certain(*wide)
    narrower = [*(steps - [0, 0.5, 0, 0]), *[0.0] * 8], [*(radii - [0, 0.5, 0, 0]), *[0.0] * 8]
    assert not certain(*narrower)  # 0..3: step 3 may have 4
    both = [*steps, *[0.0] * 8], [*(radii - [0, 0.5, 0, 0]), *[0.0] * 8]
    assert certain(*both)  # 0.5..3.5: neither may


def test_flat_is_certain_where_nothing_can_rise_or_what_can_is_at_the_same_place():
    # K = 18, window = steps 2..6, flat: step 3.
    falling = [20.0, 19, 17, 16, 15, 14] + [30.0] * 12
    assert certain(falling, [0.5] * 18)  # step 2 may stay, which is no rise
    assert not certain(falling, [0.6] * 18)  # step 2 may rise by 0.2
    assert certain(falling, [0, 1.5, 1.5] + [0.0] * 15) is False  # step 2 may rise by 0.5
    assert certain([20.0, 17, 17, 16, 15, 14] + [30.0] * 12, [0, 0, 0.9] + [0.0] * 15)  # only step 3 may


def test_exact_entropies_are_certain_and_so_is_what_has_no_breakpoint():
    tied = np.array([0.0, 2, 2, 4] + [0.0] * 8)
    assert is_certain(tied, None, DEFAULT)
    assert is_certain(tied, np.zeros(12), DEFAULT)
    assert certain([5.0], [5.0])


@st.composite
def intervals(draw):
    """Return intervals with whole numbers as ends, the first five not more than 1 wide, the others points."""
    num = draw(st.integers(2, 8))
    low = draw(arrays(np.int64, num, elements=st.integers(0, 4)))
    width = draw(arrays(np.int64, num, elements=st.integers(0, 1)))
    width[5:] = 0
    fraction = draw(st.sampled_from([0.3, 0.5, 0.8, 1.0]))
    return low.astype(float), width.astype(float), BreakpointConfig(window_fraction=fraction)


@settings(deadline=None)
@given(given_intervals=intervals())
def test_certain_is_what_no_value_moves(given_intervals):
    """All values on a grid are tried. If any move the breakpoint, some on the grid do: bounds on differences
    of whole numbers have solutions in whole numbers, and strict ones in eighths, of which five in a row make no 1."""
    low, width, config = given_intervals
    middles = low + width / 2
    found = find_breakpoint(middles, config)
    axes = [np.arange(0, size + 0.1, 0.125) + start for start, size in zip(low, width, strict=True)]
    values = np.array(list(itertools.product(*axes[: found.window_size + 1])))
    surges = np.diff(values, axis=1)
    flat = find_breakpoint(np.zeros(len(low)), config).step_index
    chosen = np.where(surges.max(axis=1) > 0, surges.argmax(axis=1) + 1, flat)
    assert is_certain(middles, width / 2, config) == bool((chosen == found.step_index).all())


@settings(deadline=None)
@given(data=st.data(), num=st.integers(2, 30))
def test_values_within_the_intervals_of_a_certain_breakpoint_break_there(data, num):
    # multiples of 1/1024 are added without rounding
    numbers = arrays(np.int64, num, elements=st.integers(0, 4096))
    radii = data.draw(arrays(np.int64, num, elements=st.integers(0, 64))) / 1024
    steps = data.draw(numbers) / 1024
    found = find_breakpoint(steps, DEFAULT)
    is_sure = is_certain(steps, radii, DEFAULT)
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    for _ in range(20):
        values = steps + np.round(radii * 1024 * rng.choice([-1, -0.5, 0, 0.5, 1], num)) / 1024
        assert not is_sure or find_breakpoint(values, DEFAULT).step_index == found.step_index


@pytest.mark.parametrize("radii", [np.zeros(3), np.array([0, -1.0, 0, 0]), np.array([0, np.inf, 0, 0])])
def test_what_are_no_radii_is_refused(radii):
    with pytest.raises(ShapeError):
        is_certain(np.zeros(4), radii, DEFAULT)


def test_the_default_of_rescore_is_not_in_a_run_s_settings():
    """A run's id is made of them, and runs had one before anything could be read again."""
    assert DEFAULT.model_dump(mode="json") == {"window_fraction": 1 / 3}
    never = BreakpointConfig(rescore="never")
    assert BreakpointConfig.model_validate(never.model_dump(mode="json")) == never != DEFAULT
    assert never.identity() == DEFAULT.identity()
