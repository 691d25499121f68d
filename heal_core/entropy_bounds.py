"""What the most probable tokens alone tell of an entropy: an interval that certainly holds it.

Engines that return only the top M log-probabilities of a distribution use this. What does not belong
here: what is done where the interval is too wide (`breakpoints`), and exact entropies (`kernels`).
"""

from __future__ import annotations

import numpy as np

from heal_core.errors import ShapeError

_ROUNDING = 1e-6
"""How far a sum of probabilities, or a log-probability, may be off: a server's are float32 and printed."""
_MAX_EXCESS = 1e-3
"""What adds up to more than 1 by this is no part of a distribution, whatever its rounding (bfloat16 has 3 digits)."""


def entropy_interval(
    top_logprobs: np.ndarray, vocabulary_size: int, has_gaps: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the least and the greatest entropy that the top M tokens of each distribution allow.

    With r the missing mass and p_M the smallest probability given, the missing tokens add at least
    r * (-ln p_M), since none is more probable, and at most r * ln((V - M) / r), where all are alike.
    Where all V tokens are given nothing is missing, and the two are equal.

    Args:
        top_logprobs: Log-probabilities of the M most probable tokens and of no others, in any order, shape
            [T, M], nats. Where a row has fewer, -inf fills it.
        vocabulary_size: V; a larger value than the true one only widens the interval.
        has_gaps: Rows in which a token that is missing may be more probable than one that is given, shape [T];
            they get no lower bound from what is missing. None where there are none.

    Returns:
        Two arrays of shape [T], nats, the first <= the second, both within [0, ln V].

    Raises:
        ShapeError: If the array is not two-dimensional, or a row holds a NaN, a positive value, no token, or what
            cannot be a part of a distribution over V tokens.

    Source: definition D3 (docs/method.md).
    """
    if top_logprobs.ndim != 2 or (len(top_logprobs) and not top_logprobs.shape[1]):
        raise ShapeError(f"expected log-probabilities of shape [T, M], found {top_logprobs.shape}")
    logprobs = np.minimum(top_logprobs.astype(np.float64), 0.0)
    if np.isnan(top_logprobs).any() or (top_logprobs > _ROUNDING).any() or np.isneginf(logprobs).all(axis=1).any():
        raise ShapeError("expected log-probabilities <= 0 with at least one finite one per token, found others")
    is_given = np.isfinite(logprobs)
    num_missing = vocabulary_size - is_given.sum(axis=1)
    probabilities = np.exp(logprobs)
    known = -np.sum(probabilities * np.where(is_given, logprobs, 0.0), axis=1)
    missing = 1.0 - probabilities.sum(axis=1)
    rounding = np.where(num_missing > 0, np.maximum(_ROUNDING, -missing), 0.0)
    # what rounding may have taken from the sum is counted as missing above, and as there below
    most = np.where(num_missing > 0, np.clip(missing + rounding, 0.0, 1.0), 0.0)
    least = np.where(num_missing > 0, np.clip(missing - rounding, 0.0, 1.0), 0.0)
    smallest = np.min(np.where(is_given, logprobs, 0.0), axis=1)
    if has_gaps is not None:
        smallest = np.where(has_gaps, 0.0, smallest)
    _check_is_part(missing, least - num_missing * np.exp(smallest), num_missing, vocabulary_size)
    # log-probabilities that are off by e change sum(p ln p) by at most e * sum(p |1 + ln p|), and r ln p_M by r * e
    doubt = rounding * (2.0 + known)
    limit = np.log(vocabulary_size)
    low = np.clip(known - doubt + least * -smallest, 0.0, limit)
    high = np.clip(known + doubt + _greatest_spread(least, most, num_missing), low, limit)
    return low, high


def middle_and_radius(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the middles of intervals and half their widths, as they are stored: float32, shape [T], nats.

    The radius is rounded up, so that middle +- radius still holds the interval; it is 0 where both ends are equal.
    """
    middle = ((low + high) / 2).astype(np.float32)
    radius = np.maximum(high - middle, middle - low)
    rounded = radius.astype(np.float32)
    rounded = np.where(rounded < radius, np.nextafter(rounded, np.float32(np.inf)), rounded)
    return middle, np.where(low == high, np.float32(0.0), rounded)


def _check_is_part(missing: np.ndarray, excess: np.ndarray, num_missing: np.ndarray, vocabulary_size: int) -> None:
    """Check that there can be such distributions; `excess` is the missing mass beyond (V - M) * p_M."""
    if (num_missing < 0).any() or (excess > _MAX_EXCESS).any():
        raise ShapeError(
            f"expected the most probable of {vocabulary_size} tokens, found more of them, or more mass missing than "
            "the others can have: the vocabulary is larger than was said, or not the most probable ones were given"
        )
    if (missing < -_MAX_EXCESS).any():
        raise ShapeError(
            f"expected log-probabilities of tokens that differ, found some that add up to {1 - missing.min():.4f}"
        )


def _greatest_spread(least: np.ndarray, most: np.ndarray, num_missing: np.ndarray) -> np.ndarray:
    """Return the greatest r * ln(n / r) over r in [least, most]: it is concave with its top at r = n / e."""
    mass = np.clip(num_missing / np.e, least, most)
    safe = np.where(mass > 0, mass, 1.0)
    return np.where(mass > 0, mass * np.log(np.maximum(num_missing, 1) / safe), 0.0)
