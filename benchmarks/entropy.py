"""P1: exact entropies and log-probabilities from hidden states, beside the bare product and TRL's functions.

The sides: `heal` (`kernels.head`), `product` (the matrix product alone, in chunks of 256 tokens, its result thrown
away: the limit), `chunked` (TRL's `ChunkedLogProbFunction`, entropy asked for), `materialised` (all logits, then TRL's
`entropy_from_logits` and `selective_log_softmax`). Peak memory is what a child process adds that runs one side alone.
Errors are against float64 on the same weights, of the first 64 tokens. With `--model` hidden states and weights are
those of a model that reads text, else random ones that make logits of about 3 nats.

    python -m benchmarks.entropy [--dtype bfloat16] [--model FOLDER] [--tokens 1024] [--rounds 5]
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.timing import interleave, print_report, ratio, spread, timed
from heal_core.kernels.head import head_entropy_and_logprobs

Statistics = tuple[torch.Tensor, torch.Tensor]
SIDES = ("heal", "product", "chunked", "materialised")
NUM_CHECKED = 64
SIZE = 896
VOCABULARY_SIZE = 151_936


class World:
    """Hidden states [T, D], the head's weight [V, D] and the tokens [T]."""

    def __init__(self, asked: argparse.Namespace) -> None:
        dtype = getattr(torch, asked.dtype)
        if asked.model:
            self.hidden, self.weight, self.token_ids = read_text(asked.model, asked.tokens, dtype)
            return
        torch.manual_seed(0)
        self.hidden = torch.randn(asked.tokens, SIZE).to(dtype)
        self.weight = torch.empty(VOCABULARY_SIZE, SIZE, dtype=dtype).normal_(0, 0.1)
        self.token_ids = torch.randint(0, VOCABULARY_SIZE, (asked.tokens,))

    def run(self, side: str) -> Statistics:
        """Return entropies and log-probabilities as a side computes them; of the product nothing is kept."""
        with torch.inference_mode():
            match side:
                case "heal":
                    return head_entropy_and_logprobs(self.hidden, self.weight, self.token_ids)
                case "product":
                    out = torch.empty(256, len(self.weight), dtype=self.weight.dtype)
                    for tokens in torch.split(self.hidden, 256):
                        torch.mm(tokens, self.weight.t(), out=out[: len(tokens)])
                    return out[0], out[0]
                case "chunked":
                    from trl.kernels import ChunkedLogProbFunction

                    chunked: Any = ChunkedLogProbFunction
                    logprobs, entropies, *_ = chunked.apply(
                        self.hidden, self.weight, None, self.token_ids, 1.0, 4096, None, 1.0, ("entropy",)
                    )
                    return entropies, logprobs
                case _:
                    from trl.trainer.utils import entropy_from_logits, selective_log_softmax

                    logits = self.hidden @ self.weight.t()
                    return entropy_from_logits(logits), selective_log_softmax(logits, self.token_ids)

    def errors(self, side: str) -> dict[str, float]:
        """Return the largest errors of a side, nats, among the first tokens."""
        entropies, logprobs = self.run(side)
        exact = self.hidden[:NUM_CHECKED].double() @ self.weight.t().double()
        exact = exact.log_softmax(dim=-1)
        entropy = torch.special.entr(exact.exp()).sum(dim=-1)
        logprob = exact.gather(1, self.token_ids[:NUM_CHECKED, None]).squeeze(1)
        pairs = (("entropy", entropies, entropy), ("logprob", logprobs, logprob))
        return {name: float(f"{(told[:NUM_CHECKED] - true).abs().max().item():.2g}") for name, told, true in pairs}


def read_text(folder: str, num_tokens: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return hidden states, weight and next tokens of a model that reads the docs of this project."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    text = Path("docs/method.md").read_text()
    ids = torch.tensor([AutoTokenizer.from_pretrained(folder).encode(text)[: num_tokens + 1]])
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    model.eval()
    with torch.inference_mode():
        hidden = model.base_model(ids[:, :-1], use_cache=False)[0][0].clone()
    return hidden, model.get_output_embeddings().weight.detach().clone(), ids[0, 1:]


def measure_peak(asked: argparse.Namespace, side: str) -> float:
    """Return the MiB that a side adds to a process that holds its inputs."""
    command = [sys.executable, "-m", "benchmarks.entropy", "--only", side]
    for name in ("dtype", "tokens"):
        command += [f"--{name}", str(getattr(asked, name))]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(json.loads(done.stdout.splitlines()[-1])["peak_mib"])


def print_peak(asked: argparse.Namespace, side: str) -> None:
    """Print what the work adds to the peak of this process; a first run of a few tokens has libraries loaded."""
    world = World(asked)
    hidden, token_ids = world.hidden, world.token_ids
    world.hidden, world.token_ids = hidden[:2], token_ids[:2]
    world.run(side)
    world.hidden, world.token_ids = hidden, token_ids
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    world.run(side)
    print(json.dumps({"peak_mib": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--model", help="a model folder whose hidden states and head are taken")
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=SIDES, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.only:
        print_peak(asked, asked.only)
        return
    peaks = {side: round(measure_peak(asked, side)) for side in SIDES}
    world = World(asked)
    sides: dict[str, Callable[[], float]] = {side: partial(timed, partial(world.run, side)) for side in SIDES}
    seconds = interleave(sides, asked.rounds)
    figures = {
        "dtype": asked.dtype,
        "tokens": len(world.hidden),
        "shape": list(world.weight.shape),
        "model": asked.model and Path(asked.model).name,
        "over_product": ratio(seconds["heal"], seconds["product"]),
        "faster_than": {side: ratio(seconds[side], seconds["heal"]) for side in SIDES[2:]},
        "seconds": {side: spread(taken) for side, taken in seconds.items()},
        "added_peak_mib": peaks,
        "largest_error_nats": {side: world.errors(side) for side in ("heal", *SIDES[2:])},
    }
    print_report("P1", figures)


if __name__ == "__main__":
    main()
