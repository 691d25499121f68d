"""Whether a new student becomes the latest: a guard against a slow decline over many nights.

It is paired with the best student ever promoted, not with last night's: small losses, each
within the noise, would add up otherwise. What does not belong here: sampling their answers
(`flows.promotion`), and what was promoted before (the store).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from heal_core.statistics import paired_bootstrap

PROMOTED, REFUSED = "promoted", "refused"
MIN_PROBLEMS = 2
"""Below this there is no interval, and so no decision in favour."""


class PromotionConfig(BaseModel):
    """When a run's student is promoted to `students/latest`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    enabled: bool = True
    """Decide whether the run's student becomes `students/latest`."""
    margin_points: float = Field(default=-1.0, ge=-100, le=100)
    """The lower end of the 95 % interval of its difference to the best must be above this (points of avg@k; 1 point is
    0.01).
    """

    @property
    def margin(self) -> float:
        """Return the margin as a share."""
        return self.margin_points / 100


@dataclass(frozen=True)
class Promotion:
    """A decision and what it rests on; shares in [0, 1], None where nothing could be measured.

    Attributes:
        decision: "promoted" or "refused".
        reason: within_margin, same_student, below_margin or no_shared_problems.
        num_problems: Problems that both students answered.
        difference: Mean of candidate minus best over them.
        low: Lower end of the difference's 95 % interval.
        high: Upper end.
        becomes_best: Whether later students are compared with this one.
    """

    decision: str
    reason: str
    num_problems: int
    avg_at_k: float | None
    best_avg_at_k: float | None
    difference: float | None
    low: float | None
    high: float | None
    margin: float
    becomes_best: bool

    def describe(self) -> str:
        """Return the decision as a sentence; differences are in points, to the best so far or the untrained student."""
        if self.reason == "same_student":
            return "promoted: it is the best student so far itself"
        if self.low is None or self.high is None or self.difference is None:
            return f"refused: {self.num_problems} held-out problems can be compared, {MIN_PROBLEMS} are needed"
        return (
            f"{self.decision}: {100 * self.difference:+.1f} points "
            f"[{100 * self.low:+.1f}, {100 * self.high:+.1f}] on {self.num_problems} problems; the lower end has to be "
            f"above {100 * self.margin:+.1f}"
        )


def decide_promotion(
    candidate: Mapping[str, float], best: Mapping[str, float], is_same: bool, config: PromotionConfig
) -> Promotion:
    """Return whether the candidate is promoted, on the problems that both answered.

    Args:
        candidate: Share of correct answers by problem id, in [0, 1].
        best: The same of the best student ever promoted, or of the untrained one when there is none.
        is_same: The two are one student, which stays what it is.
        config: The margin.

    Source: ours (docs/operations.md).
    """
    shared = sorted(candidate.keys() & best.keys())
    if is_same:
        score = _mean(candidate, shared)
        zero = 0.0 if shared else None
        return Promotion(
            PROMOTED, "same_student", len(shared), score, score, zero, zero, zero, config.margin, becomes_best=True
        )
    if len(shared) < MIN_PROBLEMS:
        own, other = _mean(candidate, shared), _mean(best, shared)
        difference = own - other if own is not None and other is not None else None
        return Promotion(
            REFUSED, "no_shared_problems", len(shared), own, other, difference, None, None, config.margin, False
        )
    differences = np.array([[candidate[problem] - best[problem] for problem in shared]])
    interval = paired_bootstrap(differences)
    promoted = interval.low > config.margin
    return Promotion(
        decision=PROMOTED if promoted else REFUSED,
        reason="within_margin" if promoted else "below_margin",
        num_problems=len(shared),
        avg_at_k=_mean(candidate, shared),
        best_avg_at_k=_mean(best, shared),
        difference=interval.mean,
        low=interval.low,
        high=interval.high,
        margin=config.margin,
        becomes_best=promoted and interval.mean >= 0,
    )


def _mean(scores: Mapping[str, float], problems: list[str]) -> float | None:
    return float(np.mean([scores[problem] for problem in problems])) if problems else None
