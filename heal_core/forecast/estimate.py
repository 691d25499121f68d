"""A figure that is expected, with what it rests on.

What does not belong here: where figures come from (`collect`) and what is made of them (`sums`).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Estimate:
    """A figure; `basis` says what it rests on, such as `measured on 480 rollouts`."""

    value: float
    basis: str


@dataclass(frozen=True)
class PerSample:
    """What one sample of a kind takes: tokens, tokens of prompt and prefix, seconds of the engine if they are known."""

    tokens: Estimate
    prompt_tokens: Estimate
    seconds: Estimate | None = None


@dataclass(frozen=True)
class Expectations:
    """What is expected of a run, each figure with its basis.

    Attributes:
        rollout: What an attempt of the teacher takes; then the other kinds. `answer` is a student's.
        extra: What a rollout takes that B2 draws: those are of the harder problems, and longer.
        score: What a repair takes that is scored: its tokens are those that the scorer reads.
        paths_per_problem: Wrong paths to repair of an extremely hard problem.
        broken_share: Of those, the share that has a breakpoint.
        hints_per_path: Tries at a hint, per path with a breakpoint.
        hinted_share: Of those paths, the share that gets a hint.
        scored_share: Of the repairs, the share that comes to PURE.
        base_examples: Examples per training problem; then guided ones per hard, repairs per extremely hard problem.
        step: What an optimizer step takes: tokens read, and seconds; None where it is not known.
        bytes_per_token: Of a sampled text in the parts.
        bytes_per_trajectory: Of a row in the index and in its published copy together.
    """

    rollout: PerSample
    hint: PerSample
    repair: PerSample
    guided: PerSample
    answer: PerSample
    extra: PerSample
    score: PerSample
    paths_per_problem: Estimate
    broken_share: Estimate
    hints_per_path: Estimate
    hinted_share: Estimate
    scored_share: Estimate
    base_examples: Estimate
    guided_examples: Estimate
    repair_examples: Estimate
    step: PerSample | None
    bytes_per_token: Estimate
    bytes_per_trajectory: Estimate
