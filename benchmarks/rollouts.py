"""P3: many rollouts per problem, HEAL's engine `hf` beside transformers' `generate`.

    python -m benchmarks.rollouts --rounds 5

Both sides sample 16 rollouts of each of 64 problems of the lab with its teacher, with the same settings. HEAL's come
with the exact entropy and log-probability of every token; transformers is asked once per problem
(`num_return_sequences`) and gives neither. Models are loaded before. Seconds per token are compared too, since the two
sides draw different texts.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

from benchmarks.timing import interleave, print_report, ratio, spread, timed
from benchmarks.transformers_peer import TransformersPeer
from heal_core.chat import render_prompt_ids
from heal_core.engines.base import EngineConfig, GenerationRequest, SamplingConfig
from heal_core.engines.hf import HfEngine
from heal_core.prompts import student_prompt

LAB = Path(__file__).parents[1] / "deployments" / "lab"


def read_prompts(num: int) -> list[str]:
    """Return the prompts of the lab's first problems."""
    lines = (LAB / "problems.jsonl").read_text(encoding="utf-8").splitlines()[:num]
    return [student_prompt(json.loads(line)["problem"]) for line in lines]


def main() -> None:
    """Print a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(LAB / "teacher"))
    parser.add_argument("--problems", type=int, default=64)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--max-tokens", type=int, default=300)
    parser.add_argument("--batch-size", type=int, default=64, help="HEAL's, as in its settings")
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    sampling = SamplingConfig(temperature=0.8, top_p=0.95, max_tokens=asked.max_tokens)
    prompts = read_prompts(asked.problems)
    peer = TransformersPeer(asked.model)
    inputs = [render_prompt_ids(peer.tokenizer, prompt) for prompt in prompts]
    tokens: dict[str, list[int]] = {"heal": [], "transformers": []}

    with HfEngine(EngineConfig(model_name_or_path=asked.model, batch_size=asked.batch_size)) as engine:
        _ = engine.description  # waits until it is loaded

        def heal(round_number: int) -> int:
            requests = [
                GenerationRequest(f"{round_number}-{index}-{sample}", prompt, (), asked.max_tokens)
                for index, prompt in enumerate(prompts)
                for sample in range(asked.samples)
            ]
            return sum(len(completion.token_ids) + 1 for completion in engine.generate(requests, sampling))

        def transformers(round_number: int) -> int:
            return sum(peer.generate(ids, asked.samples, sampling) for ids in inputs)

        def side(name: str, sample: Callable[[int], int]) -> Callable[[], float]:
            def run() -> float:
                return timed(lambda: tokens[name].append(sample(len(tokens[name]))))

            return run

        sides = {"heal": side("heal", heal), "transformers": side("transformers", transformers)}
        seconds = interleave(sides, asked.rounds)
    per_token = {name: [s / n for s, n in zip(seconds[name], tokens[name], strict=True)] for name in seconds}
    print_report(
        "rollouts",
        {
            **vars(asked),
            "seconds": {name: spread(values) for name, values in seconds.items()},
            "tokens": tokens,
            "heal_is_faster": ratio(seconds["transformers"], seconds["heal"]),
            "heal_is_faster_per_token": ratio(per_token["transformers"], per_token["heal"]),
        },
    )


if __name__ == "__main__":
    main()
