"""The entropy profile of a trajectory: its steps, their mean entropies, its breakpoint.

What does not belong here: computing token entropies (`engines`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from heal_core.breakpoints import BreakpointConfig, find_breakpoint, is_certain
from heal_core.errors import ShapeError
from heal_core.keys import STAGE_VERSIONS, content_key
from heal_core.records import EntropyProfile, Step
from heal_core.steps import StepsConfig, count_reasoning_steps, split_steps


def profile_key(row_id: str, steps: Mapping[str, Any], breakpoints: Mapping[str, Any]) -> str:
    """Return the id of a rollout's profile under settings of steps and breakpoints, in their JSON form.

    Whether the rollout is read again is decided afterwards, and not part of it.
    """
    settings = [dict(steps), {name: value for name, value in breakpoints.items() if name != "rescore"}]
    return content_key("profile", STAGE_VERSIONS["profile"], row_id, settings)


def profile_entropy(
    text: str,
    token_starts: np.ndarray,
    entropies: np.ndarray,
    steps_config: StepsConfig,
    breakpoint_config: BreakpointConfig,
    radii: np.ndarray | None = None,
) -> EntropyProfile:
    """Return the steps of a completion with the mean token entropy h_k of each, and its breakpoint.

    The step from `</think>` on has an entropy like the others, but is no reasoning step:
    it is not counted in K and cannot be the breakpoint. The mean of values that are known
    up to a radius is known up to the mean of the radii.

    Args:
        text: The completion, as decoded.
        token_starts: Character offset in `text` at which each token begins, shape [T].
        entropies: Token entropies (definition D3), shape [T], nats; the middles of their intervals if there are radii.
        steps_config: How the text is cut.
        breakpoint_config: How the breakpoint is sought.
        radii: Half the width of each token's interval, shape [T], nats; None where entropies are exact.

    Raises:
        ShapeError: If the arrays differ in length, do not fit the text, or are not finite.

    Source: definitions D4 and D5 (docs/method.md).
    """
    for what, values in (("entropy", entropies), ("radius", radii)):
        if values is not None and values.shape != token_starts.shape:
            raise ShapeError(
                f"expected one {what} per token, found shapes {values.shape} for {token_starts.shape} tokens"
            )
    separator, steps = split_steps(text, token_starts, steps_config)
    step_entropies = _step_means(entropies, steps)
    step_radii = None if radii is None else _step_means(radii, steps)
    reasoning = slice(count_reasoning_steps(text, steps))
    return EntropyProfile(
        steps,
        step_entropies,
        separator,
        find_breakpoint(step_entropies[reasoning], breakpoint_config),
        step_radii,
        is_certain(step_entropies[reasoning], None if step_radii is None else step_radii[reasoning], breakpoint_config),
    )


def _step_means(values: np.ndarray, steps: Sequence[Step]) -> np.ndarray:
    if not steps:
        return np.zeros(0)
    starts = np.array([step.start_token for step in steps])
    counts = np.diff(np.append(starts, len(values)))
    return np.asarray(np.add.reduceat(values.astype(np.float64), starts) / counts)
