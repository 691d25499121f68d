"""What a decode step spends on its logits: HEAL's draw with exact entropies beside the same in plain PyTorch.

    python -m benchmarks.drawing [--rows 128] [--vocabulary 151936] [--dtype bfloat16] [--rounds 7]

Both sides get the same random logits, draw a token per row at temperature 0.8, and return its log-probability and the
entropy of the distribution at temperature 1. `plain` is softmax and `torch.multinomial`, and log_softmax for the
statistics: whole tensors, one after the other. `cumulative` inverts one cumulative sum in float64, as HEAL did once,
and must draw the tokens that HEAL draws.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

import torch

from benchmarks.timing import interleave, print_report, ratio, spread, timed
from heal_core.engines.base import SamplingConfig
from heal_core.engines.drawing import draw
from heal_core.kernels.entropy import entropy_and_logprobs

TEMPERATURE = 0.8
PEAK = 4.0
"""Standard deviation of the logits: a few tokens have most of the mass, as in text."""


def draw_by_one_sum(logits: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    """Return one token per row, shape [R], by a cumulative sum over the whole vocabulary."""
    scaled = logits.float()
    weights = ((scaled - scaled.amax(dim=-1, keepdim=True)) / TEMPERATURE).exp()
    cumulative = weights.cumsum(dim=-1, dtype=torch.float64)
    return torch.searchsorted(cumulative, uniforms[:, None] * cumulative[:, -1:], right=True).squeeze(1)


def statistics(logits: torch.Tensor, token_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return entropies and log-probabilities, shape [R] each, from whole tensors."""
    logprobs = logits.float().log_softmax(dim=-1)
    return -(logprobs.exp() * logprobs).sum(dim=-1), logprobs.gather(1, token_ids[:, None]).squeeze(1)


def main() -> None:
    """Print a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--vocabulary", type=int, default=151_936)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="bfloat16")
    parser.add_argument("--rounds", type=int, default=7)
    asked = parser.parse_args()
    torch.manual_seed(0)
    logits = (torch.randn(asked.rows, asked.vocabulary) * PEAK).to(getattr(torch, asked.dtype))
    uniforms = torch.rand(asked.rows, dtype=torch.float64)
    sampling = SamplingConfig(temperature=TEMPERATURE, top_p=1.0)
    work: dict[str, Callable[[], object]] = {
        "heal": lambda: entropy_and_logprobs(logits, draw(logits, uniforms, sampling)),
        "plain": lambda: statistics(
            logits, torch.multinomial((logits.float() / TEMPERATURE).softmax(dim=-1), 1).squeeze(1)
        ),
        "cumulative": lambda: statistics(logits, draw_by_one_sum(logits, uniforms)),
    }
    sides = {name: partial(timed, side) for name, side in work.items()}
    seconds = interleave(sides, asked.rounds)
    ours, theirs = draw(logits, uniforms, sampling), draw_by_one_sum(logits, uniforms)
    print_report(
        "drawing",
        {
            "rows": asked.rows,
            "vocabulary": asked.vocabulary,
            "dtype": asked.dtype,
            "seconds": {name: spread(found) for name, found in seconds.items()},
            "faster_than": {peer: ratio(seconds[peer], seconds["heal"]) for peer in ("plain", "cumulative")},
            "tokens_that_differ": int((ours != theirs).sum()),
        },
    )


if __name__ == "__main__":
    main()
