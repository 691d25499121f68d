"""The band of a problem: how often the model that was sampled solves it.

What does not belong here: which rollouts were graded (`verify`), and what is done
with a band (repair, curriculum, tables).
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from heal_core.errors import ConfigError
from heal_core.records import Band

MIN_GENERATIONS = 8


class BandsConfig(BaseModel):
    """The pass rate below which a problem is hard."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    hard_below: float = Field(default=0.5, gt=0, le=1)
    """Pass rate below which a problem is hard."""


def pass_rate(num_graded: int, num_correct: int) -> float | None:
    """Return the share of graded rollouts that are correct, within [0, 1]; None when none was graded."""
    assert 0 <= num_correct <= num_graded
    return num_correct / num_graded if num_graded else None


def max_correct_at_the_ceiling(num_generations: int) -> int:
    """Return how many of N rollouts of an extremely hard problem may be correct: max(1, N // 30)."""
    return max(1, num_generations // 30)


def assign_band(num_graded: int, num_correct: int, num_generations: int, config: BandsConfig) -> Band:
    """Return the one band of a problem.

    Args:
        num_graded: Rollouts with a verdict other than `unverifiable`.
        num_correct: Those verified correct, c.
        num_generations: Rollouts asked for, N.
        config: The pass rate below which a problem is hard.

    Raises:
        ConfigError: If N < 8, where one lucky rollout would decide the band.

    Source: METHOD section 1 (docs/method.md); c <= 1 of 30 and the rate 0.5 from the dossier.
    """
    if num_generations < MIN_GENERATIONS:
        raise ConfigError(
            f"expected num_generations >= {MIN_GENERATIONS} for bands, found {num_generations}; "
            "raise it, since with fewer one lucky rollout decides the band"
        )
    assert num_graded <= num_generations
    rate = pass_rate(num_graded, num_correct)
    if rate is None or 2 * num_graded < num_generations:
        return Band.UNGRADED
    if num_correct <= max_correct_at_the_ceiling(num_generations):
        return Band.EXTREMELY_HARD
    return Band.HARD if rate < config.hard_below else Band.EASY
