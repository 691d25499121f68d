"""Which token is drawn from a row of logits.

A token is drawn by hash(slot id, position), never by a generator: the draw does not depend on which rows decode
together, so that an interrupted run continues with the same samples. What does not belong here: the decode loop
(`sampling`), entropies (`kernels.entropy`).
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch

from heal_core.engines.base import SamplingConfig
from heal_core.kernels.tiles import row_tiles

_DIGEST_NUMBERS = 8  # one 64-byte digest holds eight numbers
_NUCLEUS_CANDIDATES = 64
_BLOCK_TOKENS = 512


def slot_uniforms(slot_id: str, start: int, count: int) -> np.ndarray:
    """Return the numbers that decide tokens start .. start + count of a slot, in [0, 1), shape [count]."""
    first, last = start // _DIGEST_NUMBERS, -(-(start + count) // _DIGEST_NUMBERS)
    digests = b"".join(
        hashlib.blake2b(f"{slot_id}:{block}".encode(), digest_size=8 * _DIGEST_NUMBERS).digest()
        for block in range(first, last)
    )
    numbers = (np.frombuffer(digests, dtype="<u8") >> np.uint64(11)) * 2.0**-53
    offset = start - first * _DIGEST_NUMBERS
    return numbers[offset : offset + count]


def draw(logits: torch.Tensor, uniforms: torch.Tensor, sampling: SamplingConfig) -> torch.Tensor:
    """Return one token per row: the first, in order of token id, whose cumulative probability exceeds u.

    The nucleus is every token at least as probable as the one at which the sorted mass
    reaches `top_p`, so that ties do not depend on how a sort breaks them.

    Args:
        logits: Raw logits, shape [R, V].
        uniforms: u in [0, 1), float64, shape [R].
        sampling: Temperature (0 takes the most probable token) and top_p.

    Returns:
        Token ids, int64, shape [R].
    """
    if sampling.temperature == 0:
        return torch.cat([logits[rows].float().argmax(dim=-1) for rows in row_tiles(logits)])
    return torch.cat([_draw_tile(logits[rows], uniforms[rows], sampling) for rows in row_tiles(logits)])


def _draw_tile(logits: torch.Tensor, uniforms: torch.Tensor, sampling: SamplingConfig) -> torch.Tensor:
    # in place where it can be: fresh memory costs more than the arithmetic, page by page
    scaled = logits.to(torch.float32, copy=True)
    scaled.sub_(scaled.amax(dim=-1, keepdim=True)).div_(sampling.temperature)
    if sampling.top_p == 1:
        return _invert(scaled.exp_(), uniforms)
    weights = scaled.exp()
    floor = _nucleus_floor(scaled, weights.sum(dim=-1, dtype=torch.float64) * sampling.top_p)
    return _invert(weights.masked_fill_(scaled < floor[:, None], 0.0), uniforms)


def _invert(weights: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    """Return per row the first token whose cumulative share of the weights exceeds u, shape [R].

    Of a large vocabulary, blocks of tokens are summed first and only the one that holds the token is accumulated: a
    cumulative sum in float64 over all of it costs more than the rest of a draw.
    """
    num_rows, vocabulary_size = weights.shape
    if vocabulary_size <= 2 * _BLOCK_TOKENS:
        cumulative = weights.cumsum(dim=-1, dtype=torch.float64)
        return _first_beyond(cumulative, uniforms[:, None] * cumulative[:, -1:]).squeeze(1)
    padded = torch.nn.functional.pad(weights, (0, -vocabulary_size % _BLOCK_TOKENS))
    blocks = padded.view(num_rows, padded.shape[1] // _BLOCK_TOKENS, _BLOCK_TOKENS)
    ends = blocks.sum(dim=-1, dtype=torch.float64).cumsum(dim=-1)
    wanted = uniforms[:, None] * ends[:, -1:]
    block = _first_beyond(ends, wanted)
    before = torch.where(block > 0, ends.gather(1, (block - 1).clamp_min(0)), 0.0)
    tokens = blocks.gather(1, block[:, :, None].expand(-1, 1, _BLOCK_TOKENS)).squeeze(1)
    token = _first_beyond(before + tokens.cumsum(dim=-1, dtype=torch.float64), wanted)
    return (block * _BLOCK_TOKENS + token).squeeze(1).clamp_max(vocabulary_size - 1)  # nan is beyond everything


def _first_beyond(cumulative: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Return per row the first place whose sum exceeds the wanted one, the last that adds any if none does, [R, 1]."""
    chosen = torch.searchsorted(cumulative, wanted, right=True)
    # the wanted sum may round up to all there is, which is past the last place that has any weight
    last = torch.searchsorted(cumulative, cumulative[:, -1:].contiguous())
    return torch.minimum(chosen, last).clamp_max(cumulative.shape[1] - 1)


def _nucleus_floor(
    scaled: torch.Tensor, wanted_mass: torch.Tensor, num_candidates: int = _NUCLEUS_CANDIDATES
) -> torch.Tensor:
    """Return per row the scaled logit at which the sorted mass reaches `wanted_mass`, shape [R]."""
    num_candidates = min(num_candidates, scaled.shape[1])
    top = scaled.topk(num_candidates, dim=-1).values
    mass = top.exp().cumsum(dim=-1, dtype=torch.float64)
    crossing = (mass < wanted_mass[:, None]).sum(dim=-1)
    floor = top.gather(1, crossing.clamp_max(num_candidates - 1)[:, None]).squeeze(1)
    short = crossing == num_candidates
    if num_candidates < scaled.shape[1] and bool(short.any()):  # flat rows: sort them whole
        floor[short] = _nucleus_floor(scaled[short], wanted_mass[short], scaled.shape[1])
    return floor
