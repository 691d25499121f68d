"""P4: repairs, 10 prefixes with 20 continuations each, beside transformers' `generate` and beside vLLM's `n`.

    python -m benchmarks.repair hf --rounds 5
    python -m benchmarks.repair vllm --rounds 5 --block-size 32

Prefixes are the first 60 % of rollouts of the lab's teacher. `hf`: HEAL's engine, with exact entropies, beside a
`generate(num_return_sequences=20)` per prefix. `vllm`: HEAL's engine (200 requests, seeded, with log-probabilities,
intervals of entropies) beside a plain client of the same server, which asks for `n=20` once per prefix, all at the
same time, without log-probabilities; and one that asks for as many log-probabilities as HEAL. The server's prefix cache
is emptied before each turn. How many tokens of prompt were computed is compared with the ideal: each prefix once.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from benchmarks.rollouts import LAB, read_prompts
from benchmarks.timing import interleave, print_report, ratio, spread, timed
from benchmarks.transformers_peer import TransformersPeer
from heal_core.chat import render_prompt_ids
from heal_core.engines.base import Engine, EngineConfig, GenerationRequest, SamplingConfig
from heal_core.engines.hf import HfEngine
from heal_core.engines.server_config import LaunchConfig
from heal_core.engines.vllm.command import MODEL_NAME
from heal_core.engines.vllm.engine import VllmEngine

_KEPT_SHARE = 0.6
_WAIT_SECONDS = 600.0


@dataclass(frozen=True)
class Prefix:
    """A problem with the beginning of an answer; `input_ids` are prompt and beginning."""

    prompt: str
    token_ids: tuple[int, ...]
    input_ids: tuple[int, ...]


@dataclass
class Counts:
    """What one side generated and computed, one number per round."""

    completion_tokens: list[int] = field(default_factory=list)
    prefill_tokens: list[int] = field(default_factory=list)


def make_prefixes(model: str, num: int, sampling: SamplingConfig) -> list[Prefix]:
    """Return beginnings of rollouts, of different problems."""
    prompts = read_prompts(num)
    requests = [GenerationRequest(f"prefix-{i}", prompt, (), sampling.max_tokens) for i, prompt in enumerate(prompts)]
    with HfEngine(EngineConfig(model_name_or_path=model)) as engine:
        sampled = {
            completion.slot_id: completion.token_ids.tolist() for completion in engine.generate(requests, sampling)
        }
    tokenizer = TransformersPeer(model).tokenizer
    prefixes = []
    for i, prompt in enumerate(prompts):
        ids = sampled[f"prefix-{i}"]
        kept = tuple(ids[: int(_KEPT_SHARE * len(ids))])
        prefixes.append(Prefix(prompt, kept, (*render_prompt_ids(tokenizer, prompt), *kept)))
    return prefixes


def heal_side(engine: Engine, prefixes: Sequence[Prefix], num: int, sampling: SamplingConfig, counts: Counts) -> None:
    """Continue all prefixes through an engine of HEAL."""
    round_number = len(counts.completion_tokens)
    requests = [
        GenerationRequest(f"{round_number}-{i}-{sample}", prefix.prompt, prefix.token_ids, sampling.max_tokens)
        for i, prefix in enumerate(prefixes)
        for sample in range(num)
    ]
    found = list(engine.generate(requests, sampling))
    counts.completion_tokens.append(sum(len(completion.token_ids) + 1 for completion in found))
    counts.prefill_tokens.append(sum(c.num_prompt_tokens - (c.num_cached_tokens or 0) for c in found))


def measure_hf(asked: argparse.Namespace, prefixes: Sequence[Prefix], sampling: SamplingConfig) -> dict[str, Any]:
    """Return the figures of the engine `hf` beside transformers."""
    peer, counts = TransformersPeer(asked.model), {"heal": Counts(), "transformers": Counts()}

    def transformers() -> None:
        numbers = [peer.generate(prefix.input_ids, asked.samples, sampling) for prefix in prefixes]
        counts["transformers"].completion_tokens.append(sum(numbers))

    with HfEngine(EngineConfig(model_name_or_path=asked.model, batch_size=asked.batch_size)) as engine:
        _ = engine.description
        sides: dict[str, Callable[[], float]] = {
            "heal": lambda: timed(lambda: heal_side(engine, prefixes, asked.samples, sampling, counts["heal"])),
            "transformers": lambda: timed(transformers),
        }
        seconds = interleave(sides, asked.rounds)
    return _figures(seconds, counts)


def measure_vllm(asked: argparse.Namespace, prefixes: Sequence[Prefix], sampling: SamplingConfig) -> dict[str, Any]:
    """Return the figures of the engine `vllm` beside plain clients of the same server."""
    counts = {"heal": Counts(), "n": Counts(), "n_with_logprobs": Counts()}
    launch = LaunchConfig(
        args=("--block-size", str(asked.block_size), *asked.vllm_arg),
        environment={"VLLM_SERVER_DEV_MODE": "1"},  # so that its cache can be emptied
        max_concurrency=asked.concurrency,
        top_logprobs=asked.top_logprobs,
    )
    config = EngineConfig(model_name_or_path=asked.model, engine="vllm", launch=launch)
    with VllmEngine(config, Path(asked.log) if asked.log else None) as engine:
        _ = engine.description
        (socket,) = engine.socket_paths

        def side(name: str, work: Callable[[], None]) -> Callable[[], float]:
            def run() -> float:
                with httpx.Client(transport=httpx.HTTPTransport(uds=socket)) as client:
                    client.post("http://vllm/reset_prefix_cache", timeout=60).raise_for_status()
                return timed(work)

            return run

        def heal() -> None:
            heal_side(engine, prefixes, asked.samples, sampling, counts["heal"])

        def plain(name: str, top_logprobs: int | None) -> Callable[[], None]:
            return lambda: asyncio.run(
                _ask_for_n(socket, prefixes, asked.samples, sampling, top_logprobs, counts[name])
            )

        sides = {
            "heal": side("heal", heal),
            "n": side("n", plain("n", None)),
            "n_with_logprobs": side("n_with_logprobs", plain("n_with_logprobs", asked.top_logprobs)),
        }
        seconds = interleave(sides, asked.rounds)
    return _figures(seconds, counts)


async def _ask_for_n(
    socket: str,
    prefixes: Sequence[Prefix],
    num: int,
    sampling: SamplingConfig,
    top_logprobs: int | None,
    counts: Counts,
) -> None:
    """Ask for all continuations of each prefix in one request."""
    body = {"model": MODEL_NAME, "n": num, "max_tokens": sampling.max_tokens, "logprobs": top_logprobs}
    body |= {"temperature": sampling.temperature, "top_p": sampling.top_p}
    transport = httpx.AsyncHTTPTransport(uds=socket)
    async with httpx.AsyncClient(transport=transport, timeout=_WAIT_SECONDS) as client:
        answers = await asyncio.gather(
            *(
                client.post("http://vllm/v1/completions", json={**body, "prompt": list(prefix.input_ids)})
                for prefix in prefixes
            )
        )
    counts.completion_tokens.append(
        sum(answer.raise_for_status().json()["usage"]["completion_tokens"] for answer in answers)
    )


def _figures(seconds: dict[str, list[float]], counts: dict[str, Counts]) -> dict[str, Any]:
    per_token = {
        name: [s / n for s, n in zip(values, counts[name].completion_tokens, strict=True)]
        for name, values in seconds.items()
    }
    peers = [name for name in seconds if name != "heal"]
    return {
        "seconds": {name: spread(values) for name, values in seconds.items()},
        "completion_tokens": {name: side.completion_tokens for name, side in counts.items()},
        "prefill_tokens": counts["heal"].prefill_tokens,
        "heal_is_faster": {name: ratio(seconds[name], seconds["heal"]) for name in peers},
        "heal_is_faster_per_token": {name: ratio(per_token[name], per_token["heal"]) for name in peers},
    }


def main() -> None:
    """Print a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engine", choices=["hf", "vllm"])
    parser.add_argument("--model", default=str(LAB / "teacher"))
    parser.add_argument("--prefixes", type=int, default=10)
    parser.add_argument("--samples", type=int, default=20)
    parser.add_argument("--max-tokens", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=64, help="of HEAL's engine hf")
    parser.add_argument("--block-size", type=int, default=32, help="of vLLM's cache, in tokens")
    parser.add_argument("--concurrency", type=int, default=64, help="requests of HEAL in flight at vLLM")
    parser.add_argument("--top-logprobs", type=int, default=20)
    parser.add_argument(
        "--vllm-arg", action="append", default=[], help="further arguments, as --vllm-arg=--enforce-eager"
    )
    parser.add_argument("--log", help="a file for vLLM's output")
    asked = parser.parse_args()
    sampling = SamplingConfig(temperature=0.8, top_p=0.95, max_tokens=asked.max_tokens)
    prefixes = make_prefixes(asked.model, asked.prefixes, sampling)
    measure = measure_hf if asked.engine == "hf" else measure_vllm
    ideal = sum(len(prefix.input_ids) for prefix in prefixes)
    figures = measure(asked, prefixes, sampling)
    print_report("repair", {**vars(asked), "ideal_prefill_tokens": ideal, **figures})


if __name__ == "__main__":
    main()
