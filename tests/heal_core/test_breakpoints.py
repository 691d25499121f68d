"""Breakpoints: the largest surge of the window, by the arithmetic of definition D5."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from heal_core.breakpoints import BreakpointConfig, find_breakpoint
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
