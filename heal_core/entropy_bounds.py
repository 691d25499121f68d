"""What the most probable tokens alone tell of an entropy: an interval that certainly holds it.

Engines that return only the top M log-probabilities of a distribution use this. What does not belong
here: what is done where the interval is too wide (`breakpoints`), and exact entropies (`kernels`).
"""

from __future__ import annotations

import numpy as np

from heal_core.errors import ShapeError

_ROUNDING = 1e-6
"""How far a sum of probabilities may be off: a server's log-probabilities are float32 and printed."""


def entropy_interval(top_logprobs: np.ndarray, vocabulary_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the least and the greatest entropy that the top M tokens of each distribution allow.

    With r the missing mass and p_M the smallest probability given, the missing tokens add at least
    r * (-ln p_M), since none is more probable, and at most r * ln((V - M) / r), where all are alike.

    Args:
        top_logprobs: Log-probabilities of the M most probable tokens, in any order, shape [T, M], nats.
            Where a row has fewer, -inf fills it.
        vocabulary_size: V; a larger value than the true one only widens the interval.

    Returns:
        Two arrays of shape [T], nats, the first <= the second, both within [0, ln V].

    Raises:
        ShapeError: If the array is not two-dimensional, or holds a NaN, a positive value, or no token.

    Source: definition D3 (docs/method.md).
    """
    if top_logprobs.ndim != 2 or (len(top_logprobs) and not top_logprobs.shape[1]):
        raise ShapeError(f"expected log-probabilities of shape [T, M], found {top_logprobs.shape}")
    logprobs = np.minimum(top_logprobs.astype(np.float64), 0.0)
    if np.isnan(top_logprobs).any() or (top_logprobs > _ROUNDING).any() or np.isneginf(logprobs).all(axis=1).any():
        raise ShapeError("expected log-probabilities <= 0 with at least one finite one per token, found others")
    is_given = np.isfinite(logprobs)
    num_given = is_given.sum(axis=1)
    probabilities = np.exp(logprobs)
    known = -np.sum(np.where(is_given, probabilities * logprobs, 0.0), axis=1)
    missing = 1.0 - probabilities.sum(axis=1)
    num_missing = np.maximum(vocabulary_size - num_given, 0)
    # what rounding may have taken from the sum is counted as missing above, and as there below
    most = np.where(num_missing > 0, np.clip(missing + _ROUNDING, 0.0, 1.0), 0.0)
    least = np.clip(missing - _ROUNDING, 0.0, 1.0)
    smallest = np.min(np.where(is_given, logprobs, 0.0), axis=1)
    low = known + least * -smallest
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = np.where(most > 0, most * np.log(num_missing / np.where(most > 0, most, 1.0)), 0.0)
    # in exact arithmetic never the larger of the two: r <= (V - M) * p_M
    high = known + np.maximum(spread, most * -smallest)
    limit = np.log(vocabulary_size)
    low = np.clip(low, 0.0, limit)
    return low, np.clip(np.maximum(high, low), 0.0, limit)
