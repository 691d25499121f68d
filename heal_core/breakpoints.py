"""Where a trajectory breaks: the largest rise of step entropy in its first third; and whether that is certain.

What does not belong here: cutting into steps (`steps`), what is done at a breakpoint
(`repair`), and intervals of token entropies (`entropy_bounds`).
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

from heal_core.errors import ShapeError
from heal_core.records import Breakpoint

MIN_Z_WINDOW = 3
_MIN_SD_NATS = 1e-12  # equal surges differ by rounding, and a z-score over that would be noise


class BreakpointConfig(BaseModel):
    """How much of a trajectory is searched (definition D5), and what is done where the breakpoint is open."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    window_fraction: float = Field(default=1 / 3, gt=0, le=1)
    """Share of the steps that is searched, from the first (D5)."""
    rescore: Literal["auto", "repaired", "never"] = "auto"
    """Which rollouts are read again for exact entropies where those of the engine (its most probable tokens) leave the
    breakpoint open: all of them (`auto`), those that are to be repaired, or none. It takes a `scorer` with the engine
    `hf` and the teacher's weights; without one the breakpoint stands as uncertain, and the summary counts it.
    """

    @model_serializer(mode="wrap")
    def _leave_out_the_default(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # a run's id is made of its settings: it keeps the id that it had when all entropies were exact
        settings: dict[str, Any] = handler(self)
        return {name: value for name, value in settings.items() if name != "rescore" or value != "auto"}

    def identity(self) -> dict[str, Any]:
        """Return what decides where a profile breaks; whether it is read again is decided afterwards."""
        return self.model_dump(mode="json", exclude={"rescore"})


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
    surges = np.diff(step_entropies.astype(np.float64))[: _last_step(num_steps, config) - 1]
    best = int(np.argmax(surges))
    is_flat = bool(surges[best] <= 0)
    if is_flat:
        best = _flat_step(num_steps, config) - 1
    return Breakpoint(
        step_index=best + 1,
        surge=float(surges[best]),
        window_size=len(surges),
        z_score=_z_score(surges, best),
        flat=is_flat,
    )


def is_certain(step_entropies: np.ndarray, radii: np.ndarray | None, config: BreakpointConfig) -> bool:
    """Return whether all values within the intervals have the same breakpoint as their middles.

    The step counts; whether it is `flat` may be open. Exact in arithmetic without rounding, with the smallest k on
    ties: it is not certain if and only if there are values within the intervals that break at another step.

    Args:
        step_entropies: Middles of the intervals of the step entropies, shape [K], nats.
        radii: Half their widths, shape [K], nats; None where the entropies are exact, which is always certain.
        config: The window.

    Raises:
        ShapeError: If the arrays differ in shape, or are not finite, or a radius is negative.

    Source: definitions D3 and D5 (docs/method.md).
    """
    found = find_breakpoint(step_entropies, config)
    if radii is None:
        return True
    if radii.shape != step_entropies.shape or not np.isfinite(radii).all() or (radii < 0).any():
        raise ShapeError(f"expected radii >= 0 of shape {step_entropies.shape}, found others of shape {radii.shape}")
    if found is None:
        return True
    low, high = (step_entropies - radii)[: found.window_size + 1], (step_entropies + radii)[: found.window_size + 1]
    step = found.step_index
    # both can be had at once, also where the two share a step: what lifts the one lowers the other
    most, least = high[1:] - low[:-1], low[step] - high[step - 1]
    if least <= 0 and step != _flat_step(len(step_entropies), config):
        return False
    before, after = most[: step - 1], most[step:]
    return not ((before > 0) & (before >= least)).any() and not (after > max(0.0, least)).any()


def _last_step(num_steps: int, config: BreakpointConfig, share: int = 1) -> int:
    """Return max(2, ceil(K * window_fraction / share)), a step counted from 1."""
    # In floats 100 * 0.07 exceeds 7, and its ceiling would be 8; in fractions of small terms it is exact.
    fraction = Fraction(config.window_fraction).limit_denominator(1000)
    return max(2, math.ceil(num_steps * fraction / share))


def _flat_step(num_steps: int, config: BreakpointConfig) -> int:
    """Return the step, counted from 0, that is taken where nothing rises."""
    return _last_step(num_steps, config, share=2) - 1


def _z_score(surges: np.ndarray, index: int) -> float | None:
    deviation = float(np.std(surges))
    if len(surges) < MIN_Z_WINDOW or deviation < _MIN_SD_NATS:
        return None
    return float((surges[index] - np.mean(surges)) / deviation)
