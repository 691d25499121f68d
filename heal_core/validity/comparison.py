"""Which score tells shortcuts from natural texts, and whether it beats what needs no model: the verdict of the test.

What does not belong here: the curve itself (`auroc`), what the scores are (`pure`).
Source: METHOD section 3, validity test (docs/method.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from heal_core.auroc import auroc, bootstrap_aurocs
from heal_core.pure import SCORE_NAMES
from heal_core.validity.shortcuts import SHORTCUTS, TextKind

BASELINES = ("length", "mean_perplexity", "final_uncertainty", "num_assertions")
TO_BEAT = ("length", "num_assertions")
"""What a score must beat: to know them takes no model."""

ALL_KINDS = "all"
MIN_PROBLEMS = 5
"""A bootstrap over fewer says nothing: then nothing is validated."""

_CONFIDENCE = 0.95


@dataclass(frozen=True)
class ScoredReading:
    """A text that PURE did not reject, with the value of each score and baseline."""

    kind: TextKind
    problem_id: str
    values: Mapping[str, float]


@dataclass(frozen=True)
class Discrimination:
    """How well one measure tells the shortcuts of a kind from the natural texts.

    Attributes:
        measure: A score of PURE or a baseline.
        kind: A kind of shortcut, or "all".
        direction: "higher" where a shortcut is expected to have more of it, "lower" where less. Of PURE's scores it is
            always "higher"; of a baseline whichever fits all kinds together better, which flatters it.
        auroc: In that direction; then its interval, None below two problems.
        difference: It minus that of the better of `TO_BEAT`; with its interval, paired. None for a baseline.
    """

    measure: str
    kind: str
    direction: str
    num_problems: int
    num_shortcuts: int
    num_natural: int
    auroc: float
    low: float | None
    high: float | None
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None


@dataclass(frozen=True)
class Verdict:
    """What the test comes to.

    Attributes:
        winner: The score with the largest AUROC over all kinds; None where nothing could be compared.
        chosen: What `pure.score: auto` takes: the winner if it is proven, else the ratio.
        is_validated: The winner beats the better of length and leak count by the lower end of the interval.
    """

    winner: str | None
    chosen: str
    is_validated: bool


def compare(
    readings: Sequence[ScoredReading], num_resamples: int, seed: int = 0
) -> tuple[list[Discrimination], Verdict]:
    """Return each measure's AUROC, all kinds together first and then each, and the verdict.

    A kind without shortcuts that were scored, or a test without natural texts, has no rows.

    Source: METHOD section 3, validity test (docs/method.md).
    """
    directions = _directions(readings)
    rows = [
        row
        for kind in (ALL_KINDS, *SHORTCUTS)
        for row in _compare_kind(readings, str(kind), directions, num_resamples, seed)
    ]
    return rows, _decide(rows)


def _decide(rows: Sequence[Discrimination]) -> Verdict:
    scores = [row for row in rows if row.kind == ALL_KINDS and row.measure in SCORE_NAMES]
    if not scores:
        return Verdict(None, SCORE_NAMES[0], False)
    best = max(scores, key=lambda row: row.auroc)  # of equal ones the first, in METHOD's order
    is_validated = best.num_problems >= MIN_PROBLEMS and best.difference_low is not None and best.difference_low > 0
    return Verdict(best.measure, best.measure if is_validated else SCORE_NAMES[0], is_validated)


def _directions(readings: Sequence[ScoredReading]) -> dict[str, int]:
    """Return 1 for each measure that shortcuts have more of, else -1."""
    is_shortcut = np.array([reading.kind != TextKind.NATURAL for reading in readings], dtype=bool)
    directions = dict.fromkeys((*SCORE_NAMES, *BASELINES), 1)
    if is_shortcut.any() and not is_shortcut.all():
        for name in BASELINES:
            values = np.array([reading.values[name] for reading in readings])
            directions[name] = 1 if auroc(values, is_shortcut) >= 0.5 else -1
    return directions


def _compare_kind(
    readings: Sequence[ScoredReading], kind: str, directions: Mapping[str, int], num_resamples: int, seed: int
) -> list[Discrimination]:
    texts = [r for r in readings if r.kind == TextKind.NATURAL or kind in (ALL_KINDS, r.kind)]
    is_shortcut = np.array([text.kind != TextKind.NATURAL for text in texts], dtype=bool)
    if not is_shortcut.any() or is_shortcut.all():
        return []
    names = list(directions)
    scores = np.array([[directions[name] * text.values[name] for text in texts] for name in names])
    problems = np.array([text.problem_id for text in texts])
    num_problems = len(set(problems))
    found = dict(zip(names, (auroc(row, is_shortcut) for row in scores), strict=True))
    resampled = bootstrap_aurocs(scores, is_shortcut, problems, num_resamples, seed) if num_problems > 1 else None
    to_beat = max(found[name] for name in TO_BEAT)
    rows = []
    for index, name in enumerate(names):
        low, high = _interval(None if resampled is None else resampled[:, index])
        difference = difference_low = difference_high = None
        if name in SCORE_NAMES:
            difference = found[name] - to_beat
            if resampled is not None:  # the better one of each resample: that favours the baselines
                better = resampled[:, [names.index(other) for other in TO_BEAT]].max(axis=1)
                difference_low, difference_high = _interval(resampled[:, index] - better)
        rows.append(
            Discrimination(
                name, kind, "higher" if directions[name] > 0 else "lower", num_problems,
                int(is_shortcut.sum()), int((~is_shortcut).sum()), found[name], low, high,
                difference, difference_low, difference_high,
            )
        )  # fmt: skip
    return rows


def _interval(values: np.ndarray | None) -> tuple[float | None, float | None]:
    """Return the percentile interval of resamples that have both classes, None without any."""
    if values is None or np.isnan(values).all():
        return None, None
    tail = 100 * (1 - _CONFIDENCE) / 2
    low, high = np.nanpercentile(values, [tail, 100 - tail])
    return float(low), float(high)
