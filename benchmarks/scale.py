"""The sums of docs/scale.md: tokens, GPU hours, bytes and what saturates first, for 10^3, 10^5 and 10^7 problems.

    python -m benchmarks.scale          the tables of the page, in Markdown

Nothing runs here. What a job asks for comes from its recipe; `MEASURED` is what was measured, where the page says; what
is only assumed stands in `JOBS`: replace it with what `heal plan`, or a first hundred problems, say of your own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from heal_core.config import RunConfig, load_config

RECIPES = Path(__file__).parents[1] / "deployments" / "recipes"
SIZES = (10**3, 10**5, 10**7)
WEEK_SECONDS = 7 * 24 * 3600


@dataclass(frozen=True)
class Measured:
    """What does not depend on the job; docs/scale.md says with which commands it was measured.

    Attributes:
        array_bytes: Of a token's id, log-probability, entropy and offset in the parts.
        radius_bytes: Of the half width of its entropy's interval, where entropies come from the most probable tokens.
        text_bytes: Of its text in the parts.
        row_bytes: Of the rest of a trajectory's row in the parts.
        index_text_bytes: Of its text in the index.
        index_row_bytes: Of the rest of a trajectory and what hangs on it in the index.
        index_limit_bytes: From this size on, readers see news only every four minutes.
        process_tokens_per_second: What one HEAL process takes in from servers.
        verified_share: Of the repairs, on the lab.
    """

    array_bytes: float = 9.0
    radius_bytes: float = 3.6
    text_bytes: float = 1.1
    row_bytes: float = 118
    index_text_bytes: float = 1.2
    index_row_bytes: float = 390
    index_limit_bytes: float = 10e9
    process_tokens_per_second: float = 20_000
    verified_share: float = 0.3


MEASURED = Measured()


@dataclass(frozen=True)
class Job:
    """A recipe and what is assumed of its teacher and problems.

    Attributes:
        name: How the page calls it.
        recipe: What it asks for: N, paths, repairs, guided samples.
        answer_tokens: Mean length of an answer; a repair samples `new_share` of it.
        hint_tokens: Mean length of a hint, thinking included.
        num_steps: Steps of an answer, each of which PURE asks about.
        extremely_hard, hard: Shares of the problems.
        hint_tries: Tries per hint.
        new_share: What is sampled of a repaired answer; the rest is kept.
        sampled_per_second, read_per_second: Tokens per second and GPU.
    """

    name: str
    recipe: str
    answer_tokens: int
    hint_tokens: int
    num_steps: int
    sampled_per_second: float
    read_per_second: float
    extremely_hard: float = 0.15
    hard: float = 0.20
    hint_tries: float = 1.3
    new_share: float = 0.8


JOBS = (
    Job("short", "single-gpu.yaml", 700, 60, 12, sampled_per_second=1_500, read_per_second=8_000),
    Job("long", "paper-scale.yaml", 8_000, 1_000, 120, sampled_per_second=700, read_per_second=6_000),
)


@dataclass(frozen=True)
class Phase:
    """What a phase does for one problem, on average over all."""

    name: str
    num_texts: float
    sampled_tokens: float
    read_tokens: float = 0.0

    @property
    def parts_bytes(self) -> float:
        per_token = MEASURED.array_bytes + MEASURED.radius_bytes + MEASURED.text_bytes
        return self.sampled_tokens * per_token + self.num_texts * MEASURED.row_bytes

    @property
    def index_bytes(self) -> float:
        return self.sampled_tokens * MEASURED.index_text_bytes + self.num_texts * MEASURED.index_row_bytes


def phases_of(job: Job, config: RunConfig) -> list[Phase]:
    """Return what each phase does for one problem, on average."""
    answer = job.answer_tokens
    paths = job.extremely_hard * config.repair.max_paths
    repairs = paths * config.repair.num_generations
    hints = paths * job.hint_tries
    guided = job.hard * config.guided.num_generations
    # a forced answer after each step: together half the steps times the length; twice more with and without the hint
    read = repairs * MEASURED.verified_share * answer * (job.num_steps / 2 + 2)
    own = [
        Phase("rollouts", config.rollouts.num_generations, config.rollouts.num_generations * answer),
        Phase("hints", hints, hints * job.hint_tokens),
        Phase("repairs", repairs, repairs * answer * job.new_share),
        Phase("guided", guided, guided * answer),
        Phase("PURE scores", 0, 0, read),
    ]
    beyond = sum(phase.sampled_tokens for phase in own[1:])
    return [*own, Phase("B2, equal tokens", beyond / answer, beyond)] if config.controls.equal_tokens else own


@dataclass(frozen=True)
class Sums:
    """What a job takes for a number of problems."""

    num_problems: int
    sampled_tokens: float
    read_tokens: float
    gpu_hours: float
    parts_bytes: float
    index_bytes: float

    @property
    def gpus_for_a_week(self) -> int:
        return math.ceil(self.gpu_hours * 3600 / WEEK_SECONDS)

    @property
    def num_processes(self) -> int:
        """Return how many HEAL processes take in what is sampled within a week."""
        return math.ceil(self.sampled_tokens / WEEK_SECONDS / MEASURED.process_tokens_per_second)

    @property
    def num_workspaces(self) -> int:
        """Return how many workspaces keep each index below its limit, and each process within what it can take in."""
        return max(self.num_processes, math.ceil(self.index_bytes / MEASURED.index_limit_bytes))

    @property
    def first(self) -> str:
        """Return what is the first to ask for several workspaces."""
        if self.num_workspaces == 1:
            return "the GPUs"
        return "HEAL's process" if self.num_processes == self.num_workspaces else "the index"


def sum_up(job: Job, phases: Sequence[Phase], num_problems: int) -> Sums:
    """Return what a job takes for so many problems."""
    sampled = num_problems * sum(phase.sampled_tokens for phase in phases)
    read = num_problems * sum(phase.read_tokens for phase in phases)
    return Sums(
        num_problems,
        sampled,
        read,
        (sampled / job.sampled_per_second + read / job.read_per_second) / 3600,
        num_problems * sum(phase.parts_bytes for phase in phases),
        num_problems * sum(phase.index_bytes for phase in phases),
    )


def markdown() -> Iterator[str]:
    """Yield the lines of the page's tables."""
    for job in JOBS:
        phases = phases_of(job, load_config(RECIPES / job.recipe))
        yield f"| {job.name}, per problem | texts | tokens sampled | tokens read again | kB of parts |"
        yield "|---|---|---|---|---|"
        for phase in phases:
            yield (
                f"| {phase.name} | {phase.num_texts:.1f} | {_short(phase.sampled_tokens)} | "
                f"{_short(phase.read_tokens)} | {phase.parts_bytes / 1e3:,.0f} |"
            )
        one = sum_up(job, phases, 1)
        texts = sum(phase.num_texts for phase in phases)
        yield (
            f"| **all** | {texts:.1f} | {_short(one.sampled_tokens)} | {_short(one.read_tokens)} | "
            f"{one.parts_bytes / 1e3:,.0f} |"
        )
        yield ""
    yield (
        "| job | problems | sampled | read | GPU hours | GPUs for a week | parts | index | workspaces | "
        "what is full first |"
    )
    yield "|---|---|---|---|---|---|---|---|---|---|"
    for job in JOBS:
        phases = phases_of(job, load_config(RECIPES / job.recipe))
        for size in SIZES:
            sums = sum_up(job, phases, size)
            yield (
                f"| {job.name} | 10^{round(math.log10(size))} | {_short(sums.sampled_tokens)} | "
                f"{_short(sums.read_tokens)} | {_short(sums.gpu_hours)} | {sums.gpus_for_a_week:,} | "
                f"{_short(sums.parts_bytes)}B | {_short(sums.index_bytes)}B | {sums.num_workspaces:,} | {sums.first} |"
            )


def cost(job: Job) -> str:
    """Return what a job's recipe takes as it is, in one line."""
    config = load_config(RECIPES / job.recipe)
    num_problems = sum(source.sample or 0 for source in config.problems.sources or () if source.split == "train")
    sums = sum_up(job, phases_of(job, config), num_problems)
    return (
        f"{num_problems:,} problems: {_short(sums.sampled_tokens)} tokens sampled, {_short(sums.read_tokens)} read, "
        f"{_short(sums.gpu_hours)} GPU hours, {_short(sums.parts_bytes)}B of parts"
    )


def _short(number: float) -> str:
    """Return a number with two digits and a decimal prefix."""
    for power, prefix in ((12, " T"), (9, " G"), (6, " M"), (3, " k")):
        if number >= 0.995 * 10**power:
            return f"{_two_digits(number / 10**power)}{prefix}"
    return _two_digits(number) if number else "0"


def _two_digits(number: float) -> str:
    return f"{number:.1f}" if number < 9.95 else f"{float(f'{number:.2g}'):,.0f}"


def main() -> None:
    """Print the tables."""
    print("\n".join(markdown()))


if __name__ == "__main__":
    main()
