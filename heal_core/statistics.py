"""Estimates and their uncertainty: avg@k, pass@k, standard errors, intervals, p-values, power.

Plain functions of arrays, with no knowledge of arms, bands or stores (`evaluation` has that).
Legend for shapes: S seeds, P problems, k samples of a problem.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from heal_core.errors import ShapeError

_RESAMPLES_AT_ONCE_CELLS = 4_000_000


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval, in the unit of what was averaged."""

    mean: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Return whether the whole interval lies on one side of 0."""
        return self.low > 0 or self.high < 0


def avg_at_k(correct: np.ndarray) -> float:
    """Return avg@k, the mean over problems of the share of correct samples, within [0, 1].

    Args:
        correct: Whether each sample is correct, shape [P, k].

    Raises:
        ShapeError: If there is no problem or no sample.

    Source: METHOD section 6 (docs/method.md).
    """
    if correct.ndim != 2 or correct.size == 0:
        raise ShapeError(f"avg@k expects correctness of shape [P, k] with P, k >= 1, got {correct.shape}")
    return float(np.mean(correct, dtype=np.float64))


def standard_error(per_problem_means: np.ndarray) -> float | None:
    """Return sd of the per-problem means / sqrt(P), or None for a single problem.

    Args:
        per_problem_means: Shape [P].

    Raises:
        ShapeError: If there is no problem.

    Source: METHOD section 6 (docs/method.md).
    """
    if per_problem_means.ndim != 1 or per_problem_means.size == 0:
        raise ShapeError(f"standard error expects means of shape [P], P >= 1, got {per_problem_means.shape}")
    if per_problem_means.size == 1:
        return None
    return float(np.std(per_problem_means, ddof=1) / math.sqrt(per_problem_means.size))


def pass_at_k(n: int, c: int, k: int) -> float:
    """Return the unbiased estimate 1 - C(n-c, k) / C(n, k) of pass@k of one problem, within [0, 1].

    Args:
        n: Samples drawn.
        c: Correct ones among them.
        k: Samples that a user of the model would draw.

    Raises:
        ShapeError: If n < k, where no unbiased estimate exists, or if c is not within 0..n.

    Source: METHOD section 6 (docs/method.md).
    """
    if not 1 <= k <= n:
        raise ShapeError(f"pass@{k} needs at least {max(k, 1)} samples and k >= 1, got n = {n}; draw more or lower k")
    if not 0 <= c <= n:
        raise ShapeError(f"pass@{k} expects 0 <= c <= n, got c = {c} of n = {n}")
    if n - c < k:
        return 1.0
    # C(n-c, k) / C(n, k) = prod over i in n-c+1..n of (1 - k/i): no large factorials, no cancellation.
    log_all_fail = math.fsum(math.log1p(-k / i) for i in range(n - c + 1, n + 1))
    return -math.expm1(log_all_fail)


def paired_bootstrap(
    differences: np.ndarray, num_resamples: int = 10_000, seed: int = 0, confidence: float = 0.95
) -> Interval:
    """Return the mean difference with its percentile interval over resampled seeds and problems.

    Seeds and problems are drawn with replacement independently of each other, so a problem
    stays paired over seeds; with one seed only problems are drawn.

    Args:
        differences: One arm's per-problem mean minus the other's, shape [S, P]; nan where a problem does not count
            with a seed, since its band was another there.

    Raises:
        ShapeError: If `differences` is not an [S, P] with a number for each seed and each problem.

    Source: definition D12 (docs/method.md).
    """
    return paired_bootstrap_test(differences, num_resamples, seed, confidence)[0]


def bootstrap_p_value(differences: np.ndarray, num_resamples: int = 10_000, seed: int = 0) -> float:
    """Return the two-sided p-value of "no difference" under the bootstrap of `paired_bootstrap`.

    Twice the smaller share of resampled means on either side of 0, within (0, 1]: never 0,
    since the sample itself counts as one resample.

    Args:
        differences: As `paired_bootstrap` takes them, shape [S, P].

    Raises:
        ShapeError: As `paired_bootstrap`.

    Source: definition D12 (docs/method.md).
    """
    return paired_bootstrap_test(differences, num_resamples, seed)[1]


def paired_bootstrap_test(
    differences: np.ndarray, num_resamples: int = 10_000, seed: int = 0, confidence: float = 0.95
) -> tuple[Interval, float]:
    """Return the interval of `paired_bootstrap` and the p-value of `bootstrap_p_value`, from the same resamples.

    Raises:
        ShapeError: As `paired_bootstrap`.

    Source: definition D12 (docs/method.md).
    """
    _check_differences(differences)
    means = np.concatenate(list(_resampled_means(differences, num_resamples, seed)))
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    smaller_side = min(int((means <= 0).sum()), int((means >= 0).sum()))
    p_value = min(1.0, 2 * (smaller_side + 1) / (len(means) + 1))
    return Interval(float(np.nanmean(differences)), float(low), float(high)), p_value


def t_interval(seed_means: np.ndarray, confidence: float = 0.95) -> Interval | None:
    """Return the mean over seeds with its Student t interval, or None for a single seed.

    Args:
        seed_means: One difference per seed, shape [S].

    Raises:
        ShapeError: If there is no seed.

    Source: definition D12 (docs/method.md).
    """
    error = standard_error(seed_means)
    if error is None:
        return None
    mean = float(seed_means.mean())
    reach = t_quantile((1 + confidence) / 2, seed_means.size - 1) * error
    return Interval(mean, mean - reach, mean + reach)


def t_quantile(probability: float, degrees: int) -> float:
    """Return the quantile of Student's t distribution for a probability within (0.5, 1).

    Args:
        degrees: Degrees of freedom, a whole number >= 1.

    Raises:
        ShapeError: If the probability or the degrees are out of range.
    """
    if not 0.5 < probability < 1 or degrees < 1:
        raise ShapeError(
            f"t quantile expects a probability within (0.5, 1) and degrees >= 1, got {probability}, {degrees}"
        )
    low, high = 0.0, math.pi / 2
    # With t = sqrt(degrees) * tan(angle) the search has a bounded domain; 60 halvings reach 2^-60.
    for _ in range(60):
        middle = (low + high) / 2
        if _t_central_probability(middle, degrees) < 2 * probability - 1:
            low = middle
        else:
            high = middle
    return math.sqrt(degrees) * math.tan((low + high) / 2)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Return the p-values adjusted by Holm's step-down, in the given order, within [0, 1].

    Args:
        p_values: Of all contrasts that have problems to compare. One that could not be tested is None: it counts as 1,
            since answers that leave it untested must not make the others easier to claim, and stays None.

    Raises:
        ShapeError: If a p-value is not within [0, 1].

    Source: METHOD section 6, definition D12 (docs/method.md).
    """
    values = np.array([1.0 if p is None else p for p in p_values], dtype=np.float64)
    if values.ndim != 1 or not np.all((values >= 0) & (values <= 1)):
        raise ShapeError(f"Holm expects a list of p-values within [0, 1], got {list(values.flat)}")
    order = np.argsort(values, kind="stable")
    scaled = values[order] * np.arange(values.size, 0, -1)
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(scaled))
    return [None if p is None else float(q) for p, q in zip(p_values, adjusted, strict=True)]


def minimum_detectable_difference(
    differences: np.ndarray, power: float = 0.8, confidence: float = 0.95
) -> float | None:
    """Return the smallest true difference that this design would find with the given power, or None.

    Normal approximation, (z of confidence + z of power) * SE, where SE^2 = Var(seed means)/S +
    Var(problem means)/P. That counts the seed-problem interaction twice, as the bootstrap over
    both does, so the value errs on the large side. None with a single problem; a single seed
    leaves only the problems' term.

    Args:
        differences: As `paired_bootstrap` takes them, shape [S, P].

    Raises:
        ShapeError: As `paired_bootstrap`.

    Source: definition D12 (docs/method.md).
    """
    _check_differences(differences)
    over_problems = standard_error(np.nanmean(differences, axis=0))
    if over_problems is None:
        return None
    over_seeds = standard_error(np.nanmean(differences, axis=1)) or 0.0
    normal = NormalDist()
    return (normal.inv_cdf((1 + confidence) / 2) + normal.inv_cdf(power)) * math.hypot(over_problems, over_seeds)


def _check_differences(differences: np.ndarray) -> None:
    if differences.ndim != 2 or differences.size == 0:
        raise ShapeError(f"expected paired differences of shape [S, P], got shape {differences.shape}")
    known = np.isfinite(differences)
    if np.isinf(differences).any() or not known.any(axis=0).all() or not known.any(axis=1).all():
        raise ShapeError(
            "expected paired differences that are finite, or nan where a problem does not count with a seed, with a "
            f"number for each seed and each problem, got {int((~known).sum())} of {differences.size} without"
        )


def _resampled_means(differences: np.ndarray, num_resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Yield the means of resampled seeds x problems, in chunks that bound memory; one without a number is left out."""
    num_seeds, num_problems = differences.shape
    known = np.isfinite(differences).astype(np.float64)
    values = np.nan_to_num(differences, nan=0.0)
    generator = np.random.default_rng(seed)
    chunk = max(1, _RESAMPLES_AT_ONCE_CELLS // num_problems)
    for start in range(0, num_resamples, chunk):
        size = min(chunk, num_resamples - start)
        seed_counts = generator.multinomial(num_seeds, np.full(num_seeds, 1 / num_seeds), size=size)
        problem_counts = generator.multinomial(num_problems, np.full(num_problems, 1 / num_problems), size=size)
        sums = ((seed_counts @ values) * problem_counts).sum(axis=1)
        counts = ((seed_counts @ known) * problem_counts).sum(axis=1)
        yield sums[counts > 0] / counts[counts > 0]


def _t_central_probability(angle: float, degrees: int) -> float:
    """Return P(|T| <= sqrt(degrees) * tan(angle)), exact for whole degrees of freedom.

    Source: Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.3 and 26.7.4.
    """
    sine, cosine_squared = math.sin(angle), math.cos(angle) ** 2
    odd = degrees % 2 == 1
    term, series = (math.cos(angle), 0.0) if odd else (1.0, 0.0)
    for j in range(degrees // 2):
        series += term
        term *= cosine_squared * ((2 * j + 2) / (2 * j + 3) if odd else (2 * j + 1) / (2 * j + 2))
    return 2 / math.pi * (angle + sine * series) if odd else sine * series
