"""Exact entropies and log-probabilities from logits, in float32 and in bounded memory.

Logits that are there already (decoding, heads that cap or scale) go through `entropy_and_logprobs`;
where they would only be made for this, `kernels.head` does without them. What does not belong here:
choosing the tokens (`engines.sampling`).
"""

from __future__ import annotations

import math

import torch

from heal_core.kernels.tiles import row_tiles


def entropy_and_logprobs(logits: torch.Tensor, token_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return each distribution's entropy and the log-probability that it gives one token.

    Args:
        logits: Raw logits at temperature 1, any floating type, shape [T, V]; -inf is allowed.
        token_ids: Shape [T].

    Returns:
        Entropies within [0, ln V] and log-probabilities <= 0, float32, shape [T] each, nats.

    Source: definition D3 (docs/method.md).
    """
    parts = [_tile_statistics(logits[rows], token_ids[rows]) for rows in row_tiles(logits)]
    return torch.cat([entropy for entropy, _ in parts]), torch.cat([logprob for _, logprob in parts])


def _tile_statistics(logits: torch.Tensor, token_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """With x = logit - max and Z = sum e^x: ln p = x - ln Z and H = ln Z - sum(x e^x) / Z."""
    # in place where it can be: fresh memory costs more than the arithmetic, page by page
    shifted = logits.to(torch.float32, copy=True)
    shifted.sub_(shifted.amax(dim=-1, keepdim=True))
    chosen = shifted.gather(1, token_ids[:, None]).squeeze(1)
    weights = shifted.exp()
    total = weights.sum(dim=-1)
    # e^-200 is 0 in float32, so the clamp only keeps 0 * -inf from becoming nan
    mean_shifted = weights.mul_(shifted.clamp_min_(-200.0)).sum(dim=-1) / total
    log_total = total.log()
    entropy = (log_total - mean_shifted).clamp(0.0, math.log(logits.shape[1]))
    return entropy, (chosen - log_total).clamp_max(0.0)
