"""Which verified examples train the student, and in which stage (METHOD sections 3 and 5).

Works on row ids: rendering examples and training are `sft`'s, verdicts, gates and PURE
come before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from heal_core.errors import InputError, ShapeError
from heal_core.keys import content_key

STAGES: tuple[Literal["I", "II", "III"], ...] = ("I", "II", "III")

Epochs = Annotated[int, Field(ge=1)]


class CurriculumConfig(BaseModel):
    """How many examples a problem may give, how alike they may be, and the epochs of stages I, II, III."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_per_problem: int = Field(default=4, ge=1)
    """Base, guided and repaired examples per problem, each."""
    max_jaccard: float = Field(default=0.8, gt=0, le=1)
    """Examples of a problem must be less alike."""
    ngram_tokens: int = Field(default=20, ge=1)
    """Length of the token n-grams that are compared."""
    epochs: tuple[Epochs, Epochs, Epochs] = (2, 1, 2)
    """Epochs of stages I, II, III."""


@dataclass(frozen=True)
class CapCandidate:
    """A text that may become an example.

    Attributes:
        path_id: The wrong path it repairs; its own row id for a base or guided sample.
        score: Lower is kept first: the PURE score, or the sample index of an unscored text.
        token_ids: The response, shape [T].
    """

    row_id: str
    problem_id: str
    path_id: str
    score: float
    token_ids: np.ndarray


@dataclass(frozen=True)
class CapResult:
    """The kept rows, best first within a problem, and for every other row why it was dropped."""

    kept: tuple[str, ...]
    reasons: dict[str, str]


@dataclass(frozen=True)
class Stage:
    """A stage of SFT: every example once, in training order; `num_new` of them in no stage before."""

    name: Literal["I", "II", "III"]
    row_ids: tuple[str, ...]
    num_new: int
    epochs: int


def cap_candidates(candidates: Sequence[CapCandidate], config: CurriculumConfig) -> CapResult:
    """Return which candidates are kept: few per problem, one per wrong path, none nearly a copy.

    Candidates are tried by ascending score, ties by row id, so the order given does not matter.
    A dropped one has the first reason that holds of "same_path", "near_duplicate" (n-gram
    Jaccard >= `max_jaccard` with a kept one of its problem) and "over_cap".

    Raises:
        ShapeError: If a row id stands twice.

    Source: METHOD section 3, "Cap" (docs/method.md).
    """
    _check_distinct([candidate.row_id for candidate in candidates])
    by_problem: dict[str, list[CapCandidate]] = {}
    for candidate in sorted(candidates, key=lambda c: (c.problem_id, c.score, c.row_id)):
        by_problem.setdefault(candidate.problem_id, []).append(candidate)
    kept: list[str] = []
    reasons: dict[str, str] = {}
    for group in by_problem.values():
        paths: set[str] = set()
        texts: list[frozenset[bytes]] = []
        for candidate in group:
            grams = _ngrams(candidate.token_ids, config.ngram_tokens)
            if candidate.path_id in paths:
                reasons[candidate.row_id] = "same_path"
            elif any(_jaccard(grams, other) >= config.max_jaccard for other in texts):
                reasons[candidate.row_id] = "near_duplicate"
            elif len(texts) == config.max_per_problem:
                reasons[candidate.row_id] = "over_cap"
            else:
                kept.append(candidate.row_id)
                paths.add(candidate.path_id)
                texts.append(grams)
    return CapResult(tuple(kept), reasons)


def build_stages(
    base: Sequence[str],
    guided: Sequence[str],
    repairs: Sequence[str],
    config: CurriculumConfig,
    seed: int = 0,
) -> tuple[Stage, Stage, Stage]:
    """Return the three stages, each holding the one before: base, + guided, + repairs.

    Args:
        base: Row ids of the kept base rollouts, D_I.
        guided: Row ids of the kept guided samples of the hard band.
        repairs: Row ids of the kept repairs of the extremely hard.
        seed: Decides, with stage and row id alone, the order within a stage.

    Raises:
        InputError: If `base` is empty.
        ShapeError: If a row id stands twice.

    Source: METHOD section 5, definition D10 (docs/method.md).
    """
    if not base:
        raise InputError(
            "stage I needs at least one verified rollout of a training problem, found none; "
            "add easier problems, raise num_generations, or check that the verifier reads the answers"
        )
    _check_distinct([*base, *guided, *repairs])
    members: list[str] = []
    stages: list[Stage] = []
    for name, new, epochs in zip(STAGES, (base, guided, repairs), config.epochs, strict=True):
        members.extend(new)
        stages.append(Stage(name, stage_order(members, name, seed), len(new), epochs))
    return stages[0], stages[1], stages[2]


def stage_order(row_ids: Sequence[str], stage: str, seed: int) -> tuple[str, ...]:
    """Return the order in which a stage shows its examples: decided by seed, stage and row id alone."""
    return tuple(sorted(row_ids, key=lambda row_id: content_key("stage_order", seed, stage, row_id)))


def _check_distinct(row_ids: Sequence[str]) -> None:
    seen: set[str] = set()
    for row_id in row_ids:
        if row_id in seen:
            raise ShapeError(f"row {row_id} stands twice among the examples; each must be given once")
        seen.add(row_id)


def _ngrams(token_ids: np.ndarray, size: int) -> frozenset[bytes]:
    """Return the token n-grams of a text as bytes; a text shorter than one is its only gram."""
    tokens = np.ascontiguousarray(token_ids, dtype=np.int64)
    return frozenset(tokens[i : i + size].tobytes() for i in range(max(1, tokens.size - size + 1)))


def _jaccard(left: frozenset[bytes], right: frozenset[bytes]) -> float:
    return len(left & right) / len(left | right)
