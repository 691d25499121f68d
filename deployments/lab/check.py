"""Measure whether the lab is fit for use, on its development problems, and print it.

    python -m deployments.lab.check [--problems 120] [--seed 0]

Bands and the histogram of c, how long the extremely hard are, where their wrong paths
first err, and repair with the teacher's own hint, with another problem's hint, and
without one. The limits are those of docs/lab.md. The last one, that rejection sampling
beats the untrained student, is read off the demo's table.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from deployments.lab import world
from heal_core.bands import BandsConfig, assign_band
from heal_core.breakpoints import BreakpointConfig
from heal_core.engines.base import EngineConfig, GenerationRequest, SamplingConfig
from heal_core.engines.hf import HfEngine
from heal_core.gates import check_hint
from heal_core.profiles import profile_entropy
from heal_core.prompts import hint_prompt, hinted_prompt, student_prompt
from heal_core.records import Band, Completion, EntropyProfile
from heal_core.steps import StepsConfig
from heal_core.verify.grade import extract_answer

FOLDER = Path(__file__).parent
NUM_GENERATIONS, NUM_PATHS, NUM_CONTINUATIONS = 16, 4, 5
SAMPLING = SamplingConfig(temperature=1.0, top_p=1.0, max_tokens=224)


@dataclass
class Path_:
    """A wrong rollout of an extremely hard problem, cut at its breakpoint."""

    question: str
    answer: str
    completion: Completion
    profile: EntropyProfile
    hint: str = ""
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def cut(self) -> tuple[str, tuple[int, ...], str]:
        """Return the kept text, its tokens, and the failed step."""
        assert self.profile.breakpoint is not None
        step = self.profile.steps[self.profile.breakpoint.step_index]
        text = self.completion.text
        kept = tuple(self.completion.token_ids[: step.start_token].tolist())
        return text[: step.start_char], kept, text[step.start_char : step.end_char]


def read_problems(count: int) -> list[tuple[str, str]]:
    lines = (FOLDER / "development.jsonl").read_text().splitlines()[:count]
    return [(row["problem"], row["answer"]) for row in map(json.loads, lines)]


def is_correct(text: str, answer: str) -> bool:
    return extract_answer(text) == answer


def sample(
    engine: HfEngine, seed: int, name: str, prompts: Sequence[tuple[str, tuple[int, ...]]], n: int
) -> list[list[Completion]]:
    """Return n completions of each (prompt, prefix), in order."""
    requests = [
        GenerationRequest(f"{seed}/{name}/{i}/{j}", prompt, prefix, SAMPLING.max_tokens - len(prefix))
        for i, (prompt, prefix) in enumerate(prompts)
        for j in range(n)
    ]
    done = {completion.slot_id: completion for completion in engine.generate(requests, SAMPLING)}
    return [[done[f"{seed}/{name}/{i}/{j}"] for j in range(n)] for i in range(len(prompts))]


def first_error(path: Path_) -> float | None:
    """Return where the path first leaves the true solution, as a share of its steps in (0, 1]."""
    truth, _ = world.solve(
        chain := world.parse_question(path.question), [world.TRUE_MEANING.get(w) for w, _ in chain.operations]
    )
    steps = path.completion.text.strip().split("\n\n")
    for index, (step, right) in enumerate(zip(steps, truth, strict=False)):
        if step != right:
            return (index + 1) / len(truth)
    return None


def repair_rate(engine: HfEngine, seed: int, name: str, paths: list[Path_], prompt_of: Callable[[Path_], str]) -> float:
    groups = sample(engine, seed, name, [(prompt_of(path), path.cut[1]) for path in paths], NUM_CONTINUATIONS)
    for path, group in zip(paths, groups, strict=True):
        path.counts[name] = sum(is_correct(path.cut[0] + c.text, path.answer) for c in group)
    return sum(path.counts[name] for path in paths) / (len(paths) * NUM_CONTINUATIONS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--problems", type=int, default=120)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--teacher", default=str(FOLDER / "teacher"))
    args = parser.parse_args()
    problems = read_problems(args.problems)
    with HfEngine(EngineConfig(model_name_or_path=args.teacher, dtype="float32", batch_size=256)) as engine:
        groups = sample(engine, args.seed, "rollout", [(student_prompt(q), ()) for q, _ in problems], NUM_GENERATIONS)
        counts = [sum(is_correct(c.text, a) for c in group) for (_, a), group in zip(problems, groups, strict=True)]
        bands = [assign_band(NUM_GENERATIONS, c, NUM_GENERATIONS, BandsConfig()) for c in counts]
        shares = {band: bands.count(band) / len(bands) for band in Band}
        print(f"c of {NUM_GENERATIONS}: " + " ".join(f"{c}:{n}" for c, n in sorted(Counter(counts).items())))
        limit("easy share", shares[Band.EASY], 0.4)
        limit("hard share", shares[Band.HARD], 0.2)
        limit("extremely hard share", shares[Band.EXTREMELY_HARD], 0.2)
        paths = [
            Path_(q, a, c, profile)
            for (q, a), group, band in zip(problems, groups, bands, strict=True)
            if band == Band.EXTREMELY_HARD
            for c in [c for c in group if not is_correct(c.text, a)][:NUM_PATHS]
            if (
                profile := profile_entropy(
                    c.text, c.token_starts, c.entropies, StepsConfig(min_step_tokens=1), BreakpointConfig()
                )
            ).breakpoint
        ]
        limit("median steps K of the extremely hard", statistics.median(len(p.profile.steps) for p in paths), 12)
        errors = [e for p in paths if (e := first_error(p)) is not None]
        print(
            f"first error: in the first third {share(e <= 1 / 3 for e in errors):.2f}, second {share(1 / 3 < e <= 2 / 3 for e in errors):.2f}, last {share(e > 2 / 3 for e in errors):.2f}"
        )
        at_unusual = share(any(word in p.cut[2] for word in world.TRUE_MEANING) for p in paths)
        print(f"breakpoints at a step with an unusual word: {at_unusual:.2f}")
        before = share(
            (e := first_error(p)) is not None and e * len(p.profile.steps) <= p.profile.breakpoint.step_index
            for p in paths
            if p.profile.breakpoint
        )
        print(f"paths that err before their breakpoint: {before:.2f}")
        hints = sample(
            engine, args.seed, "hint", [(hint_prompt(p.question, p.cut[0], p.cut[2], p.answer), ()) for p in paths], 3
        )
        tries = [
            (check_hint(c.text, p.answer, p.question).passed, c.text)
            for p, group in zip(paths, hints, strict=True)
            for c in group
        ]
        print(f"hint tries that pass the leak gate: {share(passed for passed, _ in tries):.2f}")
        for path, group in zip(paths, hints, strict=True):
            path.hint = next((c.text for c in group if check_hint(c.text, path.answer, path.question).passed), "")
        paths = [path for path in paths if path.hint]
        others = paths[:]
        random.Random(args.seed).shuffle(others)
        hinted = repair_rate(engine, args.seed, "hinted", paths, lambda p: hinted_prompt(p.question, p.hint))
        plain = repair_rate(engine, args.seed, "plain", paths, lambda p: student_prompt(p.question))
        partner = {id(p): o for p, o in zip(paths, others, strict=True)}
        mismatched = repair_rate(
            engine, args.seed, "mismatched", paths, lambda p: hinted_prompt(p.question, partner[id(p)].hint)
        )
        print(
            f"repair rate over {len(paths)} paths x {NUM_CONTINUATIONS}: hinted {hinted:.3f}, without {plain:.3f}, another problem's hint {mismatched:.3f}"
        )
        limit("hinted minus unhinted", hinted - plain, 0.15)
        limit("unhinted + 0.15 minus mismatched", plain + 0.15 - mismatched, 0.0)


def share(flags: object) -> float:
    values = list(flags)  # type: ignore[call-overload]
    return sum(values) / max(1, len(values))


def limit(name: str, value: float, at_least: float) -> None:
    print(f"{'fit    ' if value >= at_least else 'NOT FIT'} {name}: {value:.3f} (at least {at_least})")


if __name__ == "__main__":
    main()
