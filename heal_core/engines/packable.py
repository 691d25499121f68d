"""Whether a loaded model can read a tree of tokens in one pass: decided by its layers, and by trying.

What does not belong here: the trees (`packing`), and what is read with them (`scoring`).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch

from heal_core.engines.loading import LoadedModel
from heal_core.engines.packing import Row, Tree, grow_trees

_TRIED_TOKENS = 24
_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-4}
"""Of a hidden state, as a share of the largest; 16 bits are rounded differently by every shape."""
_TOLERANCE_16_BITS = 0.1


def why_not_packable(loaded: LoadedModel) -> str | None:
    """Return why this model must read each row by itself, or None.

    A layer that sees only so far (sliding windows, chunks) or keeps a state (linear attention) gives other
    numbers for a tree, the former only beyond what can be tried in a moment: so the config decides on them. Of
    all others a small tree is read, and each of its rows alone.
    """
    return _why_not(loaded.model, loaded.description.vocabulary_size, loaded.device)


@lru_cache(maxsize=1)
def _why_not(model: Any, vocabulary_size: int, device: torch.device) -> str | None:
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ())
    if kinds - {"full_attention"}:
        return f"it has layers of {', '.join(sorted(kinds - {'full_attention'}))}"
    if not kinds and getattr(config, "sliding_window", None) is not None:
        return f"it has a sliding window of {config.sliding_window} tokens"
    try:
        difference = _largest_difference(model, vocabulary_size, device)
    except (RuntimeError, ValueError, TypeError, IndexError, AttributeError, NotImplementedError) as error:
        return f"it refuses a mask of its own ({type(error).__name__}: {str(error).splitlines()[0][:120]})"
    tolerance = _TOLERANCE.get(model.dtype, _TOLERANCE_16_BITS)
    # not the other way round: what is not a number is no small difference
    return None if difference <= tolerance else f"a tree that was tried came out different, by {difference:.2g}"


@torch.inference_mode()
def _largest_difference(model: Any, vocabulary_size: int, device: torch.device) -> float:
    """Return by how much hidden states differ between a tree and its rows, as a share of the largest."""
    numbers = torch.linspace(0, vocabulary_size - 1, _TRIED_TOKENS).long().tolist()
    half, third = _TRIED_TOKENS // 2, _TRIED_TOKENS // 3
    rows = [
        Row("trunk", tuple(numbers), 1),
        Row("late", tuple(numbers[:half] + numbers[::-1][:4]), 1),
        Row("early", tuple(numbers[:third] + numbers[::-1][:3]), 1),
    ]
    (tree,) = grow_trees(rows, 10 * _TRIED_TOKENS)
    arguments = tree_arguments([tree], model.dtype, device)
    ids = torch.tensor([tree.ids], device=device)
    packed = model.base_model(input_ids=ids, use_cache=False, **arguments)[0][0].float()
    largest = difference = 0.0
    for row, columns in zip(tree.rows, tree.columns, strict=True):
        alone = model.base_model(input_ids=torch.tensor([row.ids], device=device), use_cache=False)[0][0, -1].float()
        largest = max(largest, float(alone.abs().max()))
        difference = max(difference, float((packed[int(columns[-1])] - alone).abs().max()))
    return difference / largest if largest else float("nan")


def tree_arguments(trees: list[Tree], dtype: torch.dtype, device: torch.device) -> dict[str, torch.Tensor]:
    """Return what a model needs beside the tokens of trees as large as the first: a 4-D mask and positions.

    Returns:
        `attention_mask`, to be added to the scores, shape [B, 1, N, N], and `position_ids`, shape [B, N].
    """
    size = max(len(tree.ids) for tree in trees)
    mask = torch.zeros((len(trees), 1, size, size), dtype=dtype)
    positions = torch.zeros((len(trees), size), dtype=torch.int64)
    for index, tree in enumerate(trees):
        mask[index, 0].masked_fill_(~torch.from_numpy(tree.visible(size)), torch.finfo(dtype).min)
        positions[index, : len(tree.ids)] = torch.tensor(tree.depths)
    return {"attention_mask": mask.to(device), "position_ids": positions.to(device)}
