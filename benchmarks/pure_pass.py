"""P2: what PURE asks of one trajectory (its tokens, a forced answer after each step), with what is shared read once.

The sides: `packed` (what HEAL does), `naive` (the same requests, a forward pass for each step end and one for the
text; each of them reads the prefix anew), `plain` (the text alone, one pass: the limit). The trajectory is random
tokens of the model's vocabulary, which cost what any tokens cost. The largest difference between `packed` and `naive`
is printed too.

    python -m benchmarks.pure_pass [--model FOLDER] [--dtype float32] [--tokens 1000] [--steps 30] [--rounds 5]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.timing import interleave, print_report, ratio, spread, timed
from heal_core.engines.base import EngineConfig, ScoreRequest, ScoreResult
from heal_core.engines.loading import LoadedModel, load
from heal_core.engines.scoring import score
from heal_core.prompts import student_prompt
from heal_core.reference import Reference

QUESTION = "A farmer has 17 rows of 23 trees and sells 5 trees of each row. How many are left?"


def make_requests(
    loaded: LoadedModel, num_tokens: int, num_steps: int
) -> tuple[ScoreRequest, list[list[ScoreRequest]]]:
    """Return the text, and per step end (the prompt's first) the forms of the answer."""
    reference = Reference("306")
    rng = np.random.default_rng(0)
    special = set(loaded.tokenizer.all_special_ids)
    words = [n for n in range(min(loaded.description.vocabulary_size, len(loaded.tokenizer))) if n not in special]
    tokens = tuple(int(n) for n in rng.choice(words, num_tokens))
    prompt = student_prompt(QUESTION, reference.wording)
    ends = np.linspace(0, num_tokens, num_steps + 1).round().astype(int)
    forced = [
        [
            ScoreRequest(
                f"U{k}/{n}", prompt, tokens[:end], reference.wording.cue, text=form + reference.wording.closing
            )
            for n, form in enumerate(reference.forms)
        ]
        for k, end in enumerate(ends)
    ]
    return ScoreRequest("plain", prompt, token_ids=tokens), forced


def read(loaded: LoadedModel, calls: Sequence[Sequence[ScoreRequest]]) -> dict[str, ScoreResult]:
    """Return the scores of requests, call by call: what is not in one call shares nothing."""
    return {result.request_id: result for requests in calls for result in score(loaded, list(requests), lambda: None)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="deployments/lab/teacher")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--tokens", type=int, default=1000, help="of the trajectory; the lab's teacher takes up to 900")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="auto")
    asked = parser.parse_args()
    config = EngineConfig(model_name_or_path=asked.model, dtype=asked.dtype, device=asked.device)
    loaded = load(config, Path(asked.model))
    plain, forced = make_requests(loaded, asked.tokens, asked.steps)
    calls = {
        "packed": [[plain, *(request for forms in forced for request in forms)]],
        "naive": [[plain], *([request] for forms in forced for request in forms[:1])],
        "plain": [[plain]],
    }
    for each in calls.values():  # libraries and kernels are loaded
        read(loaded, each[:1])
    sides: dict[str, Callable[[], float]] = {
        side: partial(timed, partial(read, loaded, each)) for side, each in calls.items()
    }
    seconds = interleave(sides, asked.rounds)
    packed, naive = read(loaded, calls["packed"]), read(loaded, calls["naive"])
    figures = {
        "model": Path(asked.model).name,
        "dtype": loaded.description.dtype,
        "tokens": asked.tokens,
        "steps": asked.steps,
        "forms": len(forced[0]),
        "faster_than_naive": ratio(seconds["naive"], seconds["packed"]),
        "over_plain": ratio(seconds["packed"], seconds["plain"]),
        "seconds": {side: spread(taken) for side, taken in seconds.items()},
        "tokens_read": {
            name: sum(result.num_read_tokens or 0 for result in results.values())
            for name, results in (("packed", packed), ("naive", naive))
        },
        "largest_difference_nats": float(
            max(np.abs(packed[name].logprobs - result.logprobs).max() for name, result in naive.items())
        ),
    }
    print_report("P2", figures)


if __name__ == "__main__":
    main()
