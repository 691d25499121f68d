"""How many rows of logits are worked on at a time."""

from __future__ import annotations

from collections.abc import Iterator

import torch

_CPU_LOGITS = 1 << 20
"""4 MiB in float32, and a few such tensors at a time: what stays in a processor's cache. Beyond it every pass waits for
memory, and takes five to ten times as long."""
_DEVICE_LOGITS = 1 << 24
"""64 MiB in float32, so that few kernels are launched."""


def row_tiles(logits: torch.Tensor) -> Iterator[slice]:
    """Yield the rows of logits, shape [R, V], as slices that are worked on one after the other; at least one."""
    most = _CPU_LOGITS if logits.device.type == "cpu" else _DEVICE_LOGITS
    size = max(1, most // max(1, logits.shape[1]))
    for start in range(0, max(1, logits.shape[0]), size):
        yield slice(start, start + size)
