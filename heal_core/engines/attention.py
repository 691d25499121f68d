"""Attention of one new token per row, for models whose query heads share keys: without copying the keys per head.

transformers repeats keys and values for every query head as soon as there is a padding mask, which batches of unequal
rows need; at a few hundred tokens of context that takes longer than the model itself. Queries that share a key head
attend as if they were as many queries of one head. What does not belong here: any other attention, which stays.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

_NAME = "heal_grouped_sdpa"


def group_queries(model: Any) -> None:
    """Let a model that uses PyTorch's attention decode without repeating its keys; others stay as they are."""
    if getattr(model.config, "_attn_implementation", None) != "sdpa":
        return
    AttentionInterface.register(_NAME, grouped_attention)
    AttentionMaskInterface.register(_NAME, sdpa_mask)
    model.set_attn_implementation(_NAME)


def grouped_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """Return what transformers' own attention returns, up to rounding, shape [R, Q, heads, dim].

    Args:
        query: Shape [R, heads, Q, dim].
        key: Shape [R, key heads, T, dim].
        value: The same.
        attention_mask: Shape [R, 1, Q, T]; None where all see all before them.
    """
    rows, heads, num_queries, _ = query.shape
    key_heads = key.shape[1]
    is_plain = not any(others.get(name) is not None for name in ("position_bias", "cache"))
    if num_queries != 1 or heads == key_heads or attention_mask is None or attention_mask.shape[1] != 1 or not is_plain:
        output, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **others
        )
        return output, None
    grouped = scaled_dot_product_attention(
        query.reshape(rows, key_heads, heads // key_heads, -1),
        key,
        value,
        attn_mask=attention_mask,
        dropout_p=dropout,
        scale=scaling,
    )
    return grouped.reshape(rows, 1, heads, -1), None
