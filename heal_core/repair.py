"""GEAR's repair: which wrong paths are continued, from where, and under what prompts.

What does not belong here: finding the breakpoint (`breakpoints`), judging a hint
(`hints`), sampling (`fill`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

from heal_core.engines.base import SamplingConfig
from heal_core.plan import Slot
from heal_core.prompts import guided_prompt, hint_prompt, hinted_prompt, student_prompt
from heal_core.quotas import QuotaConfig
from heal_core.records import Kind, Step
from heal_core.reference import Reference


class RepairConfig(BaseModel):
    """How many paths are repaired and how often. Source: dossier (10 x 20), docs/method.md."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_paths: int = Field(default=10, ge=0)
    """Wrong paths repaired per extremely hard problem; with 0 nothing is repaired."""
    num_generations: int = Field(default=20, ge=1)
    """Continuations per path."""
    quota: QuotaConfig | None = None
    """Ends the repairs of a problem that has enough; none: never."""

    @model_serializer(mode="wrap")
    def _leave_out_what_is_not_set(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # a run's id is made of its settings: it keeps the id that it had before there were quotas
        settings: dict[str, Any] = handler(self)
        return {name: value for name, value in settings.items() if name != "quota" or value is not None}


class GuidedConfig(BaseModel):
    """How many solutions are drawn with the answer in sight, per problem of the hard band."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_generations: int = Field(default=8, ge=0)
    """Solutions drawn with the answer in sight, per hard problem."""


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


@dataclass(frozen=True)
class BrokenPath:
    """A wrong rollout cut at its breakpoint: what is kept, and the step that failed."""

    trajectory_id: str
    problem_id: str
    question: str
    reference: Reference
    prefix: str
    prefix_token_ids: tuple[int, ...]
    failed_step: str


@dataclass(frozen=True)
class Hint:
    """What a path is continued under: an accepted hint with the row it was cleaned from, or the answer, of no row."""

    hint_id: str | None
    text: str


def tell_answers(paths: Sequence[BrokenPath]) -> dict[str, Hint]:
    """Return the answer by path, as the arm `answer` tells it. Source: definition D6."""
    return {path.trajectory_id: Hint(None, path.reference.told) for path in paths}


def conditioned_prompt(question: str, hint: Hint, reference: Reference) -> str:
    """Return the prompt under which a kept prefix is continued, which no training example ever has.

    That of a told answer is the one of guided samples. Source: definition D6.
    """
    if hint.hint_id is None:
        return guided_prompt(question, hint.text, reference.wording)
    return hinted_prompt(question, hint.text, reference.wording)


def kept_prefix(steps: Sequence[Step], breakpoint_step: int) -> tuple[int, int]:
    """Return how many characters and tokens stand before the step at the breakpoint.

    The repair backs up one step: steps 1..b-1 are kept. Source: dossier.
    """
    step = steps[breakpoint_step]
    return step.start_char, step.start_token


def continuation_limit(sampling: SamplingConfig, num_prefix_tokens: int) -> int:
    """Return how many tokens a continuation may have: prefix and continuation share the base limit."""
    return max(1, sampling.max_tokens - num_prefix_tokens)


def hint_slot(path: BrokenPath, recipe_id: str, try_index: int, sampling: SamplingConfig) -> Slot:
    """Return the slot of one try at a hint; only its prompt shows the answer."""
    return Slot(
        Kind.HINT,
        path.problem_id,
        recipe_id,
        try_index,
        hint_prompt(path.question, path.prefix, path.failed_step, path.reference.told, path.reference.wording),
        sampling.max_tokens,
        parent_id=path.trajectory_id,
        cut_tokens=len(path.prefix_token_ids),
    )


def repair_slot(path: BrokenPath, hint: Hint, recipe_id: str, sample_index: int, sampling: SamplingConfig) -> Slot:
    """Return the slot of one continuation: in its prompt stands the hint without the answer, or the answer."""
    prompt = conditioned_prompt(path.question, hint, path.reference)
    return _continuation(Kind.REPAIR, path, prompt, hint.hint_id, recipe_id, sample_index, sampling)


def plain_slot(
    path: BrokenPath, recipe_id: str, sample_index: int, sampling: SamplingConfig, kind: Kind = Kind.REPAIR
) -> Slot:
    """Return the slot of one continuation under the student prompt: of the control B4, or of the validity test."""
    prompt = student_prompt(path.question, path.reference.wording)
    return _continuation(kind, path, prompt, None, recipe_id, sample_index, sampling)


def _continuation(
    kind: Kind,
    path: BrokenPath,
    prompt: str,
    hint_id: str | None,
    recipe_id: str,
    sample_index: int,
    sampling: SamplingConfig,
) -> Slot:
    return Slot(
        kind,
        path.problem_id,
        recipe_id,
        sample_index,
        prompt,
        continuation_limit(sampling, len(path.prefix_token_ids)),
        parent_id=path.trajectory_id,
        hint_id=hint_id,
        prefix_token_ids=path.prefix_token_ids,
        prefix=path.prefix,
        cut_tokens=len(path.prefix_token_ids),
    )
