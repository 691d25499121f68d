"""Decoding with grouped queries beside transformers' own attention."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from heal_core.engines import attention
from heal_core.engines.attention import group_queries


def model_with(key_heads: int) -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=50,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=key_heads,
        max_position_embeddings=64,
    )
    return LlamaForCausalLM(config).eval()


def decode(model: Any) -> torch.Tensor:
    """Return the logits of three tokens after a prompt, of rows padded on the left, shape [R, 3, V]."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(1, 50, (3, 7), generator=generator)
    more = torch.randint(1, 50, (3, 3), generator=generator)
    mask = torch.ones((3, 10), dtype=torch.int64)
    mask[1, :4] = 0
    mask[2, :2] = 0
    logits = []
    with torch.inference_mode():
        positions = (mask.cumsum(dim=1) - 1).clamp_min(0)
        out = model(input_ids=ids, attention_mask=mask[:, :7], position_ids=positions[:, :7], use_cache=True)
        for step in range(3):
            out = model(
                input_ids=more[:, step : step + 1],
                attention_mask=mask[:, : 8 + step],
                position_ids=positions[:, 7 + step : 8 + step],
                past_key_values=out.past_key_values,
                use_cache=True,
            )
            logits.append(out.logits[:, -1])
    return torch.stack(logits, dim=1)


@pytest.fixture
def grouped_shapes(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, ...]]]:
    """Record the shape of the queries that attend as a group."""
    shapes: list[tuple[int, ...]] = []
    inner = attention.scaled_dot_product_attention

    def watched(query: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        shapes.append(tuple(query.shape))
        return inner(query, *args, **kwargs)

    monkeypatch.setattr(attention, "scaled_dot_product_attention", watched)
    yield shapes


@pytest.mark.parametrize("key_heads", [1, 2])
def test_logits_are_those_of_repeated_keys(key_heads: int, grouped_shapes: list[tuple[int, ...]]) -> None:
    model = model_with(key_heads)
    expected = decode(model)
    group_queries(model)
    assert torch.allclose(decode(model), expected, atol=1e-5)
    # 3 tokens x 2 layers; 4 heads of 8 dimensions share `key_heads`
    assert grouped_shapes == [(3, key_heads, 4 // key_heads, 8)] * 6


def test_models_without_shared_keys_keep_their_attention(grouped_shapes: list[tuple[int, ...]]) -> None:
    model = model_with(4)
    expected = decode(model)
    group_queries(model)
    assert torch.equal(decode(model), expected)
    assert not grouped_shapes


def test_another_attention_is_left_alone() -> None:
    model = model_with(2)
    model.set_attn_implementation("eager")
    group_queries(model)
    assert model.config._attn_implementation == "eager"
