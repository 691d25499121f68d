"""Entropies of tokens as a server tells them: intervals from the most probable ones, of whatever number."""

from __future__ import annotations

import math

import numpy as np
import pytest

from heal_core.engines.remote.answer import Token
from heal_core.engines.remote.completions import entropy_middles
from heal_core.engines.remote.faults import NonsenseError
from heal_core.entropy_bounds import entropy_interval


def token(*probabilities: float) -> Token:
    logprobs = tuple(math.log(p) for p in probabilities)
    return Token("a", 0, None, logprobs[0], logprobs)


def test_tokens_with_fewer_alternatives_stand_beside_others() -> None:
    middles, radii = entropy_middles([token(0.5, 0.25), token(0.9)], 10)
    for index, probabilities in enumerate([[0.5, 0.25], [0.9]]):
        low, high = entropy_interval(np.log([probabilities]), 10)
        middle, radius = float(middles[index]), float(radii[index])
        assert middle - radius <= low[0] <= high[0] <= middle + radius
        assert radius == pytest.approx((high[0] - low[0]) / 2, abs=1e-6)


@pytest.mark.parametrize("nonsense", [token(0.7, 0.6), token(0.05)])
def test_what_is_no_part_of_a_distribution_is_nonsense_of_the_server(nonsense: Token) -> None:
    """Probabilities of 1.3 together; and 0.95 missing, for nine tokens of at most 0.05 each."""
    with pytest.raises(NonsenseError):
        entropy_middles([token(0.5), nonsense], 10)


def test_no_tokens_have_no_entropies() -> None:
    middles, radii = entropy_middles([], 10)
    assert middles.shape == radii.shape == (0,)
