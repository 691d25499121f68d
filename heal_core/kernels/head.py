"""Exact entropies and log-probabilities from hidden states and the output layer's weight: no logits in memory.

The product is made in tiles of tokens x vocabulary, each folded into three numbers per token while it is
in cache: with m the running maximum, s = sum e^(z - m) and u = sum (z - m) e^(z - m). What does not belong
here: logits that are there already (`kernels.entropy`), and which models have such a head (`engines.scoring`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

_LEAST = torch.finfo(torch.float32).min


@dataclass(frozen=True)
class TileSizes:
    """How much is computed at a time.

    Attributes:
        num_tokens: Tokens of a product; few of them, and packing the weights costs more than multiplying.
        num_words: Entries of the vocabulary of a product.
        num_folded: Tokens of a product that are folded at a time, so that they stay in cache.
    """

    num_tokens: int
    num_words: int
    num_folded: int


_CPU = TileSizes(num_tokens=1024, num_words=2048, num_folded=256)  # 8 and 2 MiB of float32
_GPU = TileSizes(num_tokens=2048, num_words=16384, num_folded=2048)  # 128 MiB


@torch.no_grad()
def head_entropy_and_logprobs(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    token_ids: torch.Tensor,
    bias: torch.Tensor | None = None,
    sizes: TileSizes | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the entropy of each distribution softmax(hidden weight^T + bias), and what it gives one token.

    Weights of 16 bits are multiplied as they are and summed in float32, never rounded to 16 bits again: a logit
    of 20 in bfloat16 is wrong by up to 0.06 nats.

    Args:
        hidden: What the output layer is applied to, shape [T, D].
        weight: Of the output layer, any floating type, shape [V, D].
        token_ids: Within [0, V), shape [T].
        bias: Shape [V]; -inf forbids a token. One must be allowed.
        sizes: Of the tiles; by default what suits the device.

    Returns:
        Entropies within [0, ln V] and log-probabilities <= 0, float32, shape [T] each, nats; nan where
        logits are not numbers.

    Source: definition D3 (docs/method.md).
    """
    sizes = sizes or (_GPU if hidden.is_cuda else _CPU)
    sums = _Sums(token_ids, hidden.device)
    scratch = hidden.new_empty((min(sizes.num_folded, len(hidden)), sizes.num_words), dtype=torch.float32)
    for first_word, first_token, logits in _products(hidden, weight, sizes):
        if bias is not None:
            logits += bias[first_word : first_word + logits.shape[1]]
        for start in range(0, len(logits), sizes.num_folded):
            block = logits[start : start + sizes.num_folded]
            room = scratch[: len(block), : block.shape[1]]
            sums.fold(block, room, slice(first_token + start, first_token + start + len(block)), first_word, bias)
    return sums.result(len(weight))


class _Sums:
    """The running numbers of every token, shape [T] each."""

    def __init__(self, token_ids: torch.Tensor, device: torch.device) -> None:
        self.token_ids = token_ids.to(device)
        self.maximum = torch.full(token_ids.shape, _LEAST, device=device)
        self.chosen = torch.full(token_ids.shape, -math.inf, device=device)
        self.total = torch.zeros(token_ids.shape, device=device)
        self.weighted = torch.zeros(token_ids.shape, device=device)

    def fold(
        self, logits: torch.Tensor, room: torch.Tensor, at: slice, first_word: int, bias: torch.Tensor | None
    ) -> None:
        """Take in the logits of the tokens `at` and of the vocabulary from `first_word` on; overwrites them."""
        column = (self.token_ids[at] - first_word).clamp(0, logits.shape[1] - 1)
        is_here = self.token_ids[at] - first_word == column
        self.chosen[at] = torch.where(is_here, logits.gather(1, column[:, None]).squeeze(1), self.chosen[at])

        before = self.maximum[at]
        maximum = torch.maximum(before, logits.amax(dim=1))
        shift = before - maximum
        scale = shift.exp()
        logits -= maximum[:, None]
        torch.exp(logits, out=room)
        total = room.sum(dim=1)
        if bias is not None:
            logits.clamp_min_(-200.0)  # e^-200 is 0 in float32: this only keeps 0 * -inf from becoming nan
        weighted = room.mul_(logits).sum(dim=1)
        self.weighted[at] = scale * (self.weighted[at] + shift * self.total[at]) + weighted
        self.total[at] = scale * self.total[at] + total
        self.maximum[at] = maximum

    def result(self, vocabulary_size: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return H = ln s - u / s and ln p = z - m - ln s."""
        log_total = self.total.log()
        entropy = (log_total - self.weighted / self.total).clamp(0.0, math.log(vocabulary_size))
        return entropy, (self.chosen - self.maximum - log_total).clamp_max(0.0)


def _products(hidden: torch.Tensor, weight: torch.Tensor, sizes: TileSizes) -> Iterator[tuple[int, int, torch.Tensor]]:
    """Yield the first word, the first token and the logits of each tile in float32, in one buffer where that works."""
    hidden = hidden.to(weight.dtype)
    if weight.is_cuda and weight.element_size() == 2:
        for first_word in range(0, len(weight), sizes.num_words):
            words = weight[first_word : first_word + sizes.num_words].t()
            for first_token in range(0, len(hidden), sizes.num_tokens):
                tokens = hidden[first_token : first_token + sizes.num_tokens]
                yield first_word, first_token, torch.mm(tokens, words, out_dtype=torch.float32)
        return
    tokens32 = hidden.float()
    out = tokens32.new_empty(min(sizes.num_tokens, len(hidden)) * min(sizes.num_words, len(weight)))
    words32 = None if weight.dtype == torch.float32 else tokens32.new_empty((sizes.num_words, weight.shape[1]))
    for first_word in range(0, len(weight), sizes.num_words):
        words = weight[first_word : first_word + sizes.num_words]
        if words32 is not None:
            words = words32[: len(words)].copy_(words)
        for first_token in range(0, len(hidden), sizes.num_tokens):
            tokens = tokens32[first_token : first_token + sizes.num_tokens]
            tile = out[: len(tokens) * len(words)].view(len(tokens), len(words))
            with _multiplied_as(weight.dtype):
                torch.mm(tokens, words.t(), out=tile)
            yield first_word, first_token, tile


@contextmanager
def _multiplied_as(dtype: torch.dtype) -> Iterator[None]:
    """Let float32 matrices that hold bfloat16 values be multiplied as such (AMX where there is); sums stay float32.

    It is a setting of the library for this thread's process, so it is put back at once.
    """
    settings: Any = getattr(torch.backends.mkldnn, "matmul", None)
    if dtype != torch.bfloat16 or settings is None:
        yield
        return
    before = settings.fp32_precision
    settings.fp32_precision = "bf16"
    try:
        yield
    finally:
        settings.fp32_precision = before
