"""Measure whether the lab is fit for use, on its development problems, and print it.

    python -m deployments.lab.check [--problems 120] [--seed 0]

Bands and the histogram of c, how long the extremely hard are, where their wrong paths
first err, and repair with the teacher's own hint, with another problem's hint, and
without one. The limits are those of docs/lab.md. The last of them, that rejection
sampling beats the untrained student, is read off the demo's table.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from deployments.lab import world
from heal_core.bands import BandsConfig, assign_band
from heal_core.breakpoints import BreakpointConfig
from heal_core.engines.base import Engine, EngineConfig, GenerationRequest, SamplingConfig
from heal_core.engines.hf import HfEngine
from heal_core.gates import check_hint
from heal_core.profiles import profile_entropy
from heal_core.prompts import hint_prompt, hinted_prompt, student_prompt
from heal_core.records import Band, Completion, EntropyProfile
from heal_core.repair import kept_prefix
from heal_core.steps import StepsConfig
from heal_core.verify.grade import extract_answer

FOLDER = Path(__file__).parent
NUM_GENERATIONS, NUM_PATHS, NUM_CONTINUATIONS, NUM_HINTS = 16, 4, 5, 3
SAMPLING = SamplingConfig(temperature=1.0, top_p=1.0, max_tokens=224)


@dataclass(frozen=True)
class BrokenPath:
    """A wrong rollout of an extremely hard problem, cut at its breakpoint."""

    question: str
    answer: str
    text: str
    profile: EntropyProfile
    prefix: str
    prefix_token_ids: tuple[int, ...]
    failed_step: str


class Sampler:
    """Draws n completions of many prompts, seeded by name."""

    def __init__(self, engine: Engine, seed: int) -> None:
        self.engine, self.seed = engine, seed

    def __call__(self, name: str, prompts: Sequence[tuple[str, tuple[int, ...]]], n: int) -> list[list[Completion]]:
        """Return n completions of each (prompt, prefix), in order."""
        ids = [[f"{self.seed}/{name}/{i}/{j}" for j in range(n)] for i in range(len(prompts))]
        requests = [
            GenerationRequest(slot_id, prompt, prefix, SAMPLING.max_tokens - len(prefix))
            for (prompt, prefix), group in zip(prompts, ids, strict=True)
            for slot_id in group
        ]
        done = {completion.slot_id: completion for completion in self.engine.generate(requests, SAMPLING)}
        return [[done[slot_id] for slot_id in group] for group in ids]


def read_problems(count: int) -> list[tuple[str, str]]:
    lines = (FOLDER / "development.jsonl").read_text().splitlines()[:count]
    return [(row["problem"], row["answer"]) for row in map(json.loads, lines)]


def is_correct(text: str, answer: str) -> bool:
    return extract_answer(text) == answer


def check_bands(problems: list[tuple[str, str]], groups: list[list[Completion]]) -> list[BrokenPath]:
    """Print the bands against their limits; return the wrong paths of the extremely hard."""
    counts = [sum(is_correct(c.text, a) for c in group) for (_, a), group in zip(problems, groups, strict=True)]
    bands = [assign_band(NUM_GENERATIONS, c, NUM_GENERATIONS, BandsConfig()) for c in counts]
    print(f"c of {NUM_GENERATIONS}: " + " ".join(f"{c}:{n}" for c, n in sorted(Counter(counts).items())))
    compare("easy share", bands.count(Band.EASY) / len(bands), 0.4)
    compare("hard share", bands.count(Band.HARD) / len(bands), 0.2)
    compare("extremely hard share", bands.count(Band.EXTREMELY_HARD) / len(bands), 0.2)
    paths = []
    for (question, answer), group, band in zip(problems, groups, bands, strict=True):
        if band == Band.EXTREMELY_HARD:
            wrong = [completion for completion in group if not is_correct(completion.text, answer)]
            paths += [cut(question, answer, completion) for completion in wrong[:NUM_PATHS]]
    return paths


def cut(question: str, answer: str, completion: Completion) -> BrokenPath:
    profile = profile_entropy(
        completion.text,
        completion.token_starts,
        completion.entropies,
        StepsConfig(min_step_tokens=1),
        BreakpointConfig(),
    )
    assert profile.breakpoint is not None, "lab solutions have at least two steps"
    num_chars, num_tokens = kept_prefix(profile.steps, profile.breakpoint.step_index)
    step = profile.steps[profile.breakpoint.step_index]
    return BrokenPath(
        question,
        answer,
        completion.text,
        profile,
        completion.text[:num_chars],
        tuple(completion.token_ids[:num_tokens].tolist()),
        completion.text[step.start_char : step.end_char],
    )


def first_error(path: BrokenPath) -> int | None:
    """Return the index of the first step that leaves the true solution."""
    chain = world.parse_question(path.question)
    truth, _ = world.solve(chain, [world.TRUE_MEANING.get(word) for word, _ in chain.operations])
    pairs = enumerate(zip(path.text.strip().split("\n\n"), truth, strict=False))
    return next((index for index, (step, right) in pairs if step != right), None)


def check_paths(paths: list[BrokenPath]) -> None:
    """Print how long the paths are, where they first err and where they break."""
    compare("median steps K of the extremely hard", statistics.median(len(p.profile.steps) for p in paths), 12)
    errors = [(index, path) for path in paths if (index := first_error(path)) is not None]
    places = [(index + 1) / len(path.profile.steps) for index, path in errors]
    print(
        f"first error: in the first third {share(p <= 1 / 3 for p in places):.2f}, "
        f"in the second {share(1 / 3 < p <= 2 / 3 for p in places):.2f}, later {share(p > 2 / 3 for p in places):.2f}"
    )
    unusual = share(any(word in path.failed_step for word in world.TRUE_MEANING) for path in paths)
    early = share(index < path.profile.breakpoint.step_index for index, path in errors if path.profile.breakpoint)
    print(f"breakpoints at a step with an unusual word: {unusual:.2f}; paths that err before it: {early:.2f}")


def write_hints(sample: Sampler, paths: list[BrokenPath]) -> list[tuple[BrokenPath, str]]:
    """Return the paths with the first of the teacher's hints that passes the leak gate."""
    prompts = [(hint_prompt(p.question, p.prefix, p.failed_step, p.answer), ()) for p in paths]
    hinted, passed = [], []
    for path, group in zip(paths, sample("hint", prompts, NUM_HINTS), strict=True):
        good = [c.text for c in group if check_hint(c.text, path.answer, path.question).passed]
        passed += [len(good) / NUM_HINTS]
        hinted += [(path, good[0])] if good else []
    print(f"hint tries that pass the leak gate: {statistics.mean(passed):.2f}")
    return hinted


def repair_rate(
    sample: Sampler, name: str, hinted: list[tuple[BrokenPath, str]], prompt_of: Callable[[BrokenPath, str], str]
) -> float:
    prompts = [(prompt_of(path, hint), path.prefix_token_ids) for path, hint in hinted]
    groups = sample(name, prompts, NUM_CONTINUATIONS)
    return share(
        is_correct(path.prefix + c.text, path.answer)
        for (path, _), group in zip(hinted, groups, strict=True)
        for c in group
    )


def check_repair(sample: Sampler, paths: list[BrokenPath], seed: int) -> None:
    """Print the repair rates with the fitting hint, without, and with another problem's."""
    hinted = write_hints(sample, paths)
    fitting = repair_rate(sample, "hinted", hinted, lambda path, hint: hinted_prompt(path.question, hint))
    plain = repair_rate(sample, "plain", hinted, lambda path, _: student_prompt(path.question))
    foreign = mismatch(hinted, seed)
    mismatched = repair_rate(sample, "mismatched", foreign, lambda path, hint: hinted_prompt(path.question, hint))
    print(
        f"repair rate over {len(hinted)} paths x {NUM_CONTINUATIONS}: hinted {fitting:.3f}, "
        f"without {plain:.3f}, another problem's hint {mismatched:.3f}"
    )
    compare("hinted minus unhinted", fitting - plain, 0.15)
    verdict = "fit    " if mismatched - plain < 0.15 else "NOT FIT"
    print(f"{verdict} another problem's hint minus unhinted: {mismatched - plain:.3f} (below 0.15)")


def mismatch(hinted: list[tuple[BrokenPath, str]], seed: int) -> list[tuple[BrokenPath, str]]:
    """Return each path with the hint of a path of another problem."""
    rng = random.Random(seed)
    return [
        (path, rng.choice([hint for other, hint in hinted if other.question != path.question])) for path, _ in hinted
    ]


def share(flags: Iterable[bool]) -> float:
    values = list(flags)
    return sum(values) / max(1, len(values))


def compare(name: str, value: float, at_least: float) -> None:
    print(f"{'fit    ' if value >= at_least else 'NOT FIT'} {name}: {value:.3f} (at least {at_least})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--problems", type=int, default=120)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--teacher", default=str(FOLDER / "teacher"))
    args = parser.parse_args()
    problems = read_problems(args.problems)
    with HfEngine(EngineConfig(model_name_or_path=args.teacher, dtype="float32", batch_size=256)) as engine:
        sample = Sampler(engine, args.seed)
        paths = check_bands(
            problems, sample("rollout", [(student_prompt(q), ()) for q, _ in problems], NUM_GENERATIONS)
        )
        check_paths(paths)
        check_repair(sample, paths, args.seed)


if __name__ == "__main__":
    main()
