"""Where a trajectory breaks: the largest rise of step entropy in its first third.

What does not belong here: cutting into steps (`steps`) and what is done at a
breakpoint (`repair`).
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from heal_core.errors import ShapeError
from heal_core.records import Breakpoint

MIN_Z_WINDOW = 3
_MIN_SD_NATS = 1e-12  # equal surges differ by rounding, and a z-score over that would be noise


class BreakpointConfig(BaseModel):
    """How much of a trajectory is searched, as a fraction of its steps (definition D5)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    window_fraction: float = Field(default=1 / 3, gt=0, le=1)


def find_breakpoint(step_entropies: np.ndarray, config: BreakpointConfig) -> Breakpoint | None:
    """Return the step whose mean entropy rises most over the step before, or None below two steps.

    The window is the steps 2..max(2, ceil(K * window_fraction)), counted from 1; the first
    wins on ties. Where nothing rises, the middle of the window's reach, ceil(K / 6) by
    default and at least 2, is returned and flagged `flat`.

    Args:
        step_entropies: Mean token entropy of each step, shape [K], nats.
        config: The window.

    Raises:
        ShapeError: If `step_entropies` is not one-dimensional or not finite.

    Source: definition D5 (docs/method.md); "first third" from the dossier.
    """
    if step_entropies.ndim != 1 or not np.isfinite(step_entropies).all():
        raise ShapeError(
            f"expected finite step entropies of shape [K], found shape {step_entropies.shape} with "
            f"{np.count_nonzero(~np.isfinite(step_entropies))} values that are not finite"
        )
    num_steps = len(step_entropies)
    if num_steps < 2:
        return None
    # In floats 100 * 0.07 exceeds 7, and its ceiling would be 8; in fractions of small terms it is exact.
    fraction = Fraction(config.window_fraction).limit_denominator(1000)
    surges = np.diff(step_entropies.astype(np.float64))[: _last_step(num_steps, fraction) - 1]
    best = int(np.argmax(surges))
    is_flat = bool(surges[best] <= 0)
    if is_flat:
        best = _last_step(num_steps, fraction / 2) - 2
    return Breakpoint(
        step_index=best + 1,
        surge=float(surges[best]),
        window_size=len(surges),
        z_score=_z_score(surges, best),
        flat=is_flat,
    )


def _last_step(num_steps: int, fraction: Fraction) -> int:
    """Return max(2, ceil(K * fraction)), a step counted from 1."""
    return max(2, math.ceil(num_steps * fraction))


def _z_score(surges: np.ndarray, index: int) -> float | None:
    deviation = float(np.std(surges))
    if len(surges) < MIN_Z_WINDOW or deviation < _MIN_SD_NATS:
        return None
    return float((surges[index] - np.mean(surges)) / deviation)
