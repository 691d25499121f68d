"""How the examples of one optimizer step are computed: in micro-batches of like lengths, so that little is padding.

The gradient of a step is a sum over its tokens, so it does not matter which of its examples are
computed together. Which examples make a step is decided elsewhere (`data.training_order`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

CALL_TOKENS = 128
"""What one more forward and backward pass costs beside its tokens, in tokens: of the lab's student on a CPU.

On it, 8 examples of log-normal lengths take 0.92 s padded to one batch, 0.78 s one by one, and 0.59,
0.64 or 0.71 s when split with 128, 32 or 512 (docs/experiments.md). Larger models feel it less.
"""


@dataclass(frozen=True)
class MicroBatchLimits:
    """What a micro-batch may hold, None for no limit; tokens count padding. One longer example goes alone."""

    max_examples: int | None = None
    max_tokens: int | None = None


def split_step(lengths: Sequence[int], limits: MicroBatchLimits) -> list[list[int]]:
    """Return the micro-batches of a step, as positions in `lengths`, the longest first.

    Of all ways to cut the examples sorted by length, the one with the least padded tokens, where
    each micro-batch costs `CALL_TOKENS` more.

    Args:
        lengths: Tokens of each example, shape [B]; B is small, the time taken grows with its square.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    num = len(order)
    # best[i]: the least cost of the examples from order[i] on; ends[i]: where the first micro-batch of that ends
    best = [0.0] * (num + 1)
    ends = [num] * num
    for start in reversed(range(num)):
        best[start] = float("inf")
        for end in range(start + 1, num + 1):
            padded = (end - start) * lengths[order[start]]
            if end - start > 1 and _is_over(end - start, padded, limits):
                break
            cost = padded + CALL_TOKENS + best[end]
            if cost < best[start]:
                best[start], ends[start] = cost, end
    groups = []
    start = 0
    while start < num:
        groups.append(order[start : ends[start]])
        start = ends[start]
    return groups


def split_further(groups: Sequence[Sequence[int]], num_groups: int) -> list[list[int]]:
    """Return the examples in exactly `num_groups` micro-batches, by halving the largest ones.

    Processes that share a model must make the same number of passes, or they wait for each other.

    Raises:
        ValueError: If there are more groups already, or too few examples.
    """
    split = [list(group) for group in groups]
    if not len(split) <= num_groups <= sum(map(len, split)):
        raise ValueError(f"{sum(map(len, split))} examples in {len(split)} groups cannot be in {num_groups}")
    while len(split) < num_groups:
        place = max(range(len(split)), key=lambda i: len(split[i]))
        group = split[place]
        middle = (len(group) + 1) // 2
        split[place : place + 1] = [group[:middle], group[middle:]]
    return split


def padded_tokens(lengths: Sequence[int], groups: Sequence[Sequence[int]]) -> int:
    """Return the tokens that are computed, padding included."""
    return sum(len(group) * max(lengths[i] for i in group) for group in groups)


def _is_over(num_examples: int, num_padded: int, limits: MicroBatchLimits) -> bool:
    over_examples = limits.max_examples is not None and num_examples > limits.max_examples
    return over_examples or (limits.max_tokens is not None and num_padded > limits.max_tokens)
