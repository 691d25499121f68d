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
