"""How many problems will be in each band, from the attempts that are graded so far.

What does not belong here: what a band is (`bands`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from heal_core.bands import BandsConfig, assign_band
from heal_core.records import Band

_PRIOR = 0.5
"""Of the beta distribution of a problem's pass rate before anything is seen: Jeffreys' prior."""


@dataclass(frozen=True)
class Graded:
    """What is known of a problem's N rollouts.

    Attributes:
        num_present: Rollouts that have a verdict.
        num_graded: Those of them with a verdict other than `unverifiable`.
        num_correct: Those verified correct.
    """

    num_present: int = 0
    num_graded: int = 0
    num_correct: int = 0


Shares = dict[Band, float]


def band_chances(graded: Graded, num_generations: int, config: BandsConfig) -> Shares:
    """Return the chance of each band for a problem some of whose rollouts are graded; certain where all are.

    The rollouts to come are correct at a rate that is drawn from a beta distribution: Jeffreys' prior, and the
    rollouts that are graded.
    """
    remaining = max(0, num_generations - graded.num_present)
    alpha = _PRIOR + graded.num_correct
    beta = _PRIOR + graded.num_graded - graded.num_correct
    chances: Shares = {}
    for num_more in range(remaining + 1):
        band = assign_band(graded.num_graded + remaining, graded.num_correct + num_more, num_generations, config)
        chances[band] = chances.get(band, 0.0) + _beta_binomial(num_more, remaining, alpha, beta)
    return chances


def mean_shares(chances: Sequence[Shares]) -> Shares:
    """Return the mean chance of each band."""
    return {band: sum(one.get(band, 0.0) for one in chances) / len(chances) for band in Band}


def expected_bands(chances: Iterable[Shares]) -> Shares:
    """Return the expected number of problems in each band."""
    totals: Shares = dict.fromkeys(Band, 0.0)
    for one in chances:
        for band, chance in one.items():
            totals[band] += chance
    return totals


def _beta_binomial(k: int, n: int, alpha: float, beta: float) -> float:
    """Return the probability of k successes of n at a rate that is beta-distributed."""
    return math.comb(n, k) * math.exp(_log_beta(k + alpha, n - k + beta) - _log_beta(alpha, beta))


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
