"""How well a score tells two classes apart: the area under the ROC curve, and its bootstrap over problems.

Plain functions of arrays. What does not belong here: which scores and classes are compared (`validity.comparison`).
Legend for shapes: N texts, M scores, P problems, R resamples.
"""

from __future__ import annotations

import numpy as np

from heal_core.errors import ShapeError

_CELLS_AT_ONCE = 2_000_000


def auroc(scores: np.ndarray, is_positive: np.ndarray) -> float:
    """Return the probability that a positive scores above a negative, ties counted half, within [0, 1].

    Args:
        scores: Shape [N], finite.
        is_positive: The class of each, shape [N]; there is at least one of each.

    Raises:
        ShapeError: If the shapes differ, a score is not finite, or a class is empty.
    """
    _check(scores[None] if scores.ndim == 1 else scores, is_positive)
    if is_positive.all() or not is_positive.any():
        raise ShapeError(f"an AUROC needs both classes, found {is_positive.sum()} positives of {is_positive.size}")
    return float(_weighted(scores, is_positive, np.ones((1, scores.size)))[0])


def bootstrap_aurocs(
    scores: np.ndarray, is_positive: np.ndarray, problems: np.ndarray, num_resamples: int = 10_000, seed: int = 0
) -> np.ndarray:
    """Return the AUROC of each score in each resample of the problems, shape [R, M].

    Problems are drawn with replacement and bring all of their texts. The resamples are the same for all scores, so
    that differences of columns are paired; a resample without one of the classes is NaN throughout.

    Args:
        scores: Shape [M, N], finite.
        is_positive: The class of each text, shape [N].
        problems: The problem of each text, as any values that can be sorted, shape [N].

    Raises:
        ShapeError: If the shapes differ, a score is not finite, or there is no text.
    """
    _check(scores, is_positive)
    if problems.shape != is_positive.shape:
        raise ShapeError(f"{is_positive.size} texts need as many problems, got shape {problems.shape}")
    names, index = np.unique(problems, return_inverse=True)
    generator = np.random.default_rng(seed)
    chunk = max(1, _CELLS_AT_ONCE // is_positive.size)
    parts = []
    for start in range(0, num_resamples, chunk):
        size = min(chunk, num_resamples - start)
        counts = generator.multinomial(names.size, np.full(names.size, 1 / names.size), size=size)
        weights = counts[:, index].astype(np.float64)
        parts.append(np.stack([_weighted(row, is_positive, weights) for row in scores], axis=1))
    return np.concatenate(parts)


def _weighted(scores: np.ndarray, is_positive: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the AUROC under each row of weights, shape [R]; NaN where a class has no weight.

    Args:
        weights: How often each text counts, shape [R, N].
    """
    order = np.argsort(scores, kind="stable")
    ordered = scores[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])  # where a new value begins
    weights = weights[:, order]
    positive = np.add.reduceat(weights * is_positive[order], starts, axis=1)
    negative = np.add.reduceat(weights * ~is_positive[order], starts, axis=1)
    below = np.cumsum(negative, axis=1) - negative / 2
    pairs = positive.sum(axis=1) * negative.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((positive * below).sum(axis=1) / pairs)


def _check(scores: np.ndarray, is_positive: np.ndarray) -> None:
    if scores.ndim != 2 or scores.shape[1:] != is_positive.shape or is_positive.size == 0:
        raise ShapeError(f"expected scores of shape [M, N] and classes of shape [N], got {scores.shape}, "
                         f"{is_positive.shape}")  # fmt: skip
    if is_positive.dtype != np.bool_ or not np.isfinite(scores).all():
        raise ShapeError("expected finite scores, and classes that are true or false")
