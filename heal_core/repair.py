"""GEAR's repair: which wrong paths are continued, and from where.

What does not belong here: finding the breakpoint (`breakpoints`), writing the hint
(`hints`), sampling.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field

from heal_core.engines.base import SamplingConfig
from heal_core.records import Step


class RepairConfig(BaseModel):
    """How many paths are repaired and how often. Source: dossier (10 x 20), docs/method.md."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_paths: int = Field(default=10, ge=1)
    num_generations: int = Field(default=20, ge=1)


class GuidedConfig(BaseModel):
    """How many solutions are drawn with the answer in sight, per problem of the hard band."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_generations: int = Field(default=8, ge=0)


@dataclass(frozen=True)
class WrongPath:
    """A wrong rollout of an extremely hard problem."""

    trajectory_id: str
    problem_id: str
    sample_index: int
    truncated: bool


def choose_paths(paths: Sequence[WrongPath], max_paths: int) -> list[WrongPath]:
    """Return the paths to repair: by sample index, finished ones before truncated ones."""
    return sorted(paths, key=lambda path: (path.truncated, path.sample_index))[:max_paths]


def kept_prefix(steps: Sequence[Step], breakpoint_step: int) -> tuple[int, int]:
    """Return how many characters and tokens stand before the step at the breakpoint.

    The repair backs up one step: steps 1..b-1 are kept. Source: dossier.
    """
    step = steps[breakpoint_step]
    return step.start_char, step.start_token


def continuation_limit(sampling: SamplingConfig, num_prefix_tokens: int) -> int:
    """Return how many tokens a continuation may have: prefix and continuation share the base limit."""
    return max(1, sampling.max_tokens - num_prefix_tokens)
