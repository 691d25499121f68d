"""Whether one arm is better than another: paired differences with interval, p-value and power.

HEAL against each baseline and against the untrained student, over all held-out problems, per band and per
benchmark. What does not belong here: the estimates themselves (`statistics`), scores of one arm
(`evaluation`), and differences between runs (`store.compare_scores`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from heal_core.evaluation import GradedSample, Group, group_problems, problem_means
from heal_core.records import Band
from heal_core.statistics import holm, minimum_detectable_difference, paired_bootstrap_test

PAIRS = (
    ("heal", "equal_tokens"),
    ("heal", "rejection_sampling"),
    ("heal", "base"),
    ("latest", "base"),
    ("given", "base"),
)
"""(arm, the arm it is compared with)."""

PRIMARY = ("heal", "equal_tokens", str(Band.EXTREMELY_HARD), None)
"""The one contrast that was chosen beforehand (definition D12): it is not adjusted for the others."""


@dataclass(frozen=True)
class Contrast:
    """One arm's avg@k minus another's on the same problems; shares within [-1, 1].

    Attributes:
        band: "all" or a band's name.
        benchmark: The source that the problems are from; None over all of them.
        low: Lower end of the 95 % interval over problems; None where it cannot be known: there is one problem
            only, or all differ alike, so that resampling them says nothing.
        high: Upper end; None likewise.
        p_value: Two-sided, of no difference; None likewise.
        p_adjusted: After Holm over the run's other contrasts; of the primary one `p_value` itself.
        is_primary: HEAL against equal teacher tokens on the extremely hard.
        minimum_detectable_difference: What a design of this size finds with a power of 80 %; None likewise.
        is_powered: Whether the difference is at least that large.
    """

    arm: str
    against: str
    band: str
    benchmark: str | None
    num_problems: int
    difference: float
    low: float | None
    high: float | None
    p_value: float | None
    p_adjusted: float | None
    is_primary: bool
    minimum_detectable_difference: float | None
    is_powered: bool


def contrast_arms(
    samples: Mapping[str, Sequence[GradedSample]], k: int, excluded_problems: frozenset[str] = frozenset()
) -> tuple[Contrast, ...]:
    """Return the contrasts of one run, in the order of `PAIRS` and of the groups of `summarise_arm`.

    Args:
        samples: By arm, k samples of every problem; pairs with an arm that is not there are left out.
        excluded_problems: `ungradable_problems` of all arms together.

    Raises:
        ShapeError: If a problem has not exactly k samples, or stands in two bands.

    Source: definition D12 (docs/method.md).
    """
    found: list[Contrast] = []
    for arm, against in PAIRS:
        if arm not in samples or against not in samples:
            continue
        ours, theirs = (problem_means(samples[name], k, excluded_problems) for name in (arm, against))
        for group, problem_ids in group_problems(samples[arm], k, excluded_problems):
            differences = [ours[one] - theirs[one] for one in problem_ids if one in theirs]
            if differences:
                found.append(_contrast(arm, against, group, np.array([differences])))
    return _adjusted(found)


def _contrast(arm: str, against: str, group: Group, differences: np.ndarray) -> Contrast:
    """Return a contrast whose p-value is not adjusted yet; `differences` has the shape [1, P]."""
    band, benchmark = group
    known = np.ptp(differences) > 0
    interval, p_value = paired_bootstrap_test(differences) if known else (None, None)
    detectable = minimum_detectable_difference(differences) if known else None
    difference = float(differences.mean())
    return Contrast(
        arm=arm,
        against=against,
        band=band,
        benchmark=benchmark,
        num_problems=differences.size,
        difference=difference,
        low=interval.low if interval else None,
        high=interval.high if interval else None,
        p_value=p_value,
        p_adjusted=p_value,
        is_primary=(arm, against, band, benchmark) == PRIMARY,
        minimum_detectable_difference=detectable,
        is_powered=detectable is not None and abs(difference) >= detectable,
    )


def _adjusted(contrasts: Sequence[Contrast]) -> tuple[Contrast, ...]:
    """Return the contrasts with Holm's adjustment over all but the primary one."""
    adjusted = iter(holm([one.p_value for one in contrasts if not one.is_primary]))
    return tuple(one if one.is_primary else replace(one, p_adjusted=next(adjusted)) for one in contrasts)
