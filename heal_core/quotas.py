"""When a problem has enough verified repairs: continuations are drawn in waves, and after one that suffices no more.

Waves are fixed ranges of candidate indices, the same for every path, so that which samples exist follows from
the verdicts on earlier waves and from nothing else: not from speed, order or restarts. What does not belong
here: sampling and grading.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field


class QuotaConfig(BaseModel):
    """How many verified repairs are enough for a problem, and how many continuations of each path make a wave.

    Source: METHOD section 2 (docs/method.md).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    verified: int = Field(ge=1)
    """A problem with so many verified repairs gets no more."""
    wave: int = Field(default=5, ge=1)
    """Continuations of each path between two looks at that."""


def candidate_waves(num_generations: int, quota: QuotaConfig | None) -> list[range]:
    """Return the candidate indices of each wave; without a quota all are one."""
    size = num_generations if quota is None else quota.wave
    return [range(start, min(start + size, num_generations)) for start in range(0, num_generations, size)]


def find_satisfied(num_verified: Mapping[str, int], quota: QuotaConfig) -> frozenset[str]:
    """Return the problems that get no more continuations, given their verified repairs so far."""
    return frozenset(problem_id for problem_id, num in num_verified.items() if num >= quota.verified)


def count_skipped(num_paths: Mapping[str, int], num_sampled: Mapping[str, int], num_generations: int) -> dict[str, int]:
    """Return how many continuations of each problem were not sampled, 0 for those that got all.

    Args:
        num_paths: Paths with a hint, by problem.
        num_sampled: Their continuations.
        num_generations: Those that each path gets without a quota.
    """
    return {problem_id: num * num_generations - num_sampled.get(problem_id, 0) for problem_id, num in num_paths.items()}
