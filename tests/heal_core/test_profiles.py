"""Profiles: mean entropies by step, and a breakpoint among the reasoning steps."""

from __future__ import annotations

import numpy as np
import pytest

from heal_core.breakpoints import BreakpointConfig
from heal_core.errors import ShapeError
from heal_core.profiles import profile_entropy
from heal_core.steps import StepsConfig

STEPS = StepsConfig(min_step_tokens=1)


def profile(text, starts, entropies):
    return profile_entropy(text, np.array(starts), np.array(entropies), STEPS, BreakpointConfig())


def test_mean_entropy_per_step():
    # Tokens "a", "\n\n" | "b" | "c" with 1, 3 | .. : means 2, 5, 1; the surge is 5 - 2 = 3.
    found = profile("a\n\nb\n\nc", [0, 1, 3, 4, 6], [1.0, 3.0, 5.0, 5.0, 1.0])
    assert found.separator == "blank_line"
    assert found.step_entropies.tolist() == [2.0, 5.0, 1.0]
    assert found.breakpoint is not None
    assert (found.breakpoint.step_index, found.breakpoint.surge) == (1, 3.0)


def test_the_answer_after_thinking_is_not_a_reasoning_step():
    # Steps a, b, </think>: with the tail K would be 3; the window is step 2 alone either way,
    # but of "a", </think> only one step is reasoning, which has no breakpoint.
    found = profile("a\n</think>b", [0, 1, 2, 10], [0.0, 0.0, 9.0, 9.0])
    assert found.step_entropies.tolist() == [0.0, 9.0]
    assert found.breakpoint is None
    # Six reasoning steps and a tail: ceil(6 / 3) = 2, so one step can be chosen; with seven it were two.
    text = "a\n\nb\n\nc\n\nd\n\ne\n\nf</think>g"
    starts = [text.index(letter) for letter in "abcdef<g"]
    found = profile(text, starts, [0.0, 1.0, 9.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    assert len(found.steps) == 7
    assert found.breakpoint is not None
    assert (found.breakpoint.step_index, found.breakpoint.window_size) == (1, 1)


def test_means_are_taken_in_double_precision():
    # 0.1 as a float32 is 0.10000000149...; a float32 sum of 100,000 of them is off in the fourth digit.
    text = "x" * 100_000
    values = np.full(len(text), 0.1, dtype=np.float32)
    found = profile_entropy(text, np.arange(len(text)), values, STEPS, BreakpointConfig())
    assert found.step_entropies[0] == pytest.approx(float(np.float32(0.1)), rel=1e-10)


def test_an_empty_completion_has_no_steps():
    found = profile("", [], [])
    assert (found.steps, found.step_entropies.shape, found.breakpoint) == ((), (0,), None)


def test_arrays_of_different_lengths_are_refused():
    with pytest.raises(ShapeError):
        profile("ab", [0, 1], [0.0])


def test_the_radius_of_a_step_is_the_mean_of_its_tokens():
    # Steps "a", "b", "c" of 2, 2, 1 tokens with means 2, 5, 1. Radii 0.2, 0.4 | 1, 2 | 0: 0.3, 1.5, 0.
    # K = 3: step 2 is the only one that can be chosen, so that nothing moves it.
    text, starts, entropies = "a\n\nb\n\nc", np.array([0, 1, 3, 4, 6]), np.array([1.0, 3.0, 5.0, 5.0, 1.0])
    radii = np.array([0.2, 0.4, 1.0, 2.0, 0.0])
    found = profile_entropy(text, starts, entropies, STEPS, BreakpointConfig(), radii)
    assert found.step_radii is not None and found.step_radii.tolist() == pytest.approx([0.3, 1.5, 0.0])
    assert found.is_certain
    # With a window of all three steps, surges 3 +- 1.8 and -4 +- 1.5: step 3 cannot rise, step 2 does.
    whole = BreakpointConfig(window_fraction=1)
    assert profile_entropy(text, starts, entropies, STEPS, whole, radii).is_certain
    # With twice the radii step 2 may fall like all others, and step 2 is the place of a flat one too.
    assert profile_entropy(text, starts, entropies, STEPS, whole, 2 * radii).is_certain
    # With three times the radii step 3 may rise by 1 - (5 - 4.5) = 0.5, and step 2 fall.
    assert not profile_entropy(text, starts, entropies, STEPS, whole, 3 * radii).is_certain


def test_radii_of_what_is_no_reasoning_step_do_not_count():
    text = "a\n\nb\n\nc</think>d"
    starts, entropies = np.array([0, 3, 6, 7]), np.array([0.0, 1.0, 1.5, 0.0])
    whole = BreakpointConfig(window_fraction=1)
    radii = np.array([0.1, 0.1, 0.1, 9.0])
    assert profile_entropy(text, starts, entropies, STEPS, whole, radii).is_certain
    assert not profile_entropy(text, starts, entropies, STEPS, whole, radii[[0, 1, 3, 2]]).is_certain


def test_exact_entropies_have_no_radii_and_a_certain_breakpoint():
    found = profile("a\n\nb\n\nc", [0, 1, 3, 4, 6], [1.0, 3.0, 5.0, 5.0, 1.0])
    assert (found.step_radii, found.is_certain) == (None, True)


def test_radii_of_another_length_are_refused():
    with pytest.raises(ShapeError, match="one radius per token"):
        profile_entropy("ab", np.array([0, 1]), np.zeros(2), STEPS, BreakpointConfig(), np.zeros(3))
