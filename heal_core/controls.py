"""The controls beside HEAL: which of them a run has, and what they do at random, decided by content keys alone.

Works on ids and indices; sampling, scoring and training are done as for HEAL itself. What does not belong here:
the equal-tokens baseline's sums (`equal_tokens`), and comparing the arms (`contrasts`, `ablation`).
Source: METHOD section 6 (docs/method.md).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

from heal_core.arms import CONTINUED, CONTROLS, HEAL, NUM_SHARED_STAGES
from heal_core.curriculum import STAGES, Stage
from heal_core.keys import content_key


class ControlsConfig(BaseModel):
    """Which controls are trained beside HEAL: B1 to B8, and `answer_told`, which compares the two arms of hints."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rejection_sampling: bool = True
    """Train B1."""
    equal_tokens: bool = True
    """Sample and train B2."""
    without_repairs: bool = False
    """Train B3 ([ablation.md](ablation.md))."""
    unhinted: bool = False
    """Train B4."""
    random_breakpoint: bool = False
    """Train B5."""
    random_drop: bool = False
    """Train B6."""
    shuffled: bool = False
    """Train B7."""
    mismatched_hint: bool = False
    """Train B8."""
    answer_told: bool = False
    """Train an arm whose paths are continued with the answer in sight."""
    ceiling_samples: int = Field(default=0, ge=0)
    """Plain samples per extremely hard training problem, those of the run and of B2 among them, to see what stays
    unsolved; 0 samples none.
    """

    @model_serializer(mode="wrap")
    def _leave_out_what_is_off(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # a run's id is made of its settings: it keeps the id that it had when there were B1 and B2 alone
        settings: dict[str, Any] = handler(self)
        first = ("rejection_sampling", "equal_tokens")
        return {name: value for name, value in settings.items() if name in first or value}

    @property
    def arms(self) -> tuple[str, ...]:
        """Return the arms that are trained, HEAL the first."""
        return (HEAL, *(arm for arm in CONTROLS if getattr(self, arm)))

    @property
    def continued(self) -> tuple[str, ...]:
        """Return those of them that continue wrong paths in a way of their own."""
        return tuple(arm for arm in CONTINUED if getattr(self, arm))


def num_trained_stages(arms: Sequence[str]) -> int:
    """Return how many stages these arms train, those that they share counted once."""
    return sum(len(STAGES) - NUM_SHARED_STAGES.get(arm, 0) for arm in arms)


MIN_WINDOW_SIZE = 3
"""Below it a random step of the window is too often the breakpoint itself, and B5 compares nothing (definition D5)."""


def random_step(trajectory_id: str, window_size: int, seed: int) -> int:
    """Return a step within the window of a breakpoint, counted from 0, each equally likely.

    Args:
        window_size: Surges in the window, >= 1: the steps 1..window_size, of which one is the breakpoint.

    Source: METHOD section 6, control B5 (docs/method.md).
    """
    return 1 + _draw("random_breakpoint", seed, trajectory_id) % window_size


def mismatch_hints(problem_of: Mapping[str, str], seed: int) -> dict[str, str]:
    """Return for each hinted path another one, of another problem, whose hint it gets.

    All paths are put in an order by hash, problem by problem, and each takes the one that is as far ahead as the
    largest problem has paths: so no two share a hint, and some have none where one problem has more than half of all.

    Args:
        problem_of: The problem of each hinted path.

    Source: METHOD section 6, control B8 (docs/method.md).
    """
    paths: dict[str, list[str]] = defaultdict(list)
    for path in sorted(problem_of, key=lambda path: _draw("mismatched_hint", seed, path)):
        paths[problem_of[path]].append(path)
    order = [
        path for problem in sorted(paths, key=lambda p: _draw("mismatched_hint", seed, p)) for path in paths[problem]
    ]
    shift = max((len(own) for own in paths.values()), default=0)
    given = {path: order[(index + shift) % len(order)] for index, path in enumerate(order)}
    return {path: other for path, other in given.items() if problem_of[path] != problem_of[other]}


def drop_at_random(candidates: Mapping[str, str], num_dropped: Mapping[str, int], seed: int) -> frozenset[str]:
    """Return rows to drop: of each problem as many as PURE did, whichever comes first by hash.

    Args:
        candidates: The problem of each row that PURE decided on.
        num_dropped: How many of them PURE dropped or rejected, by problem.

    Source: METHOD section 6, control B6 (docs/method.md).
    """
    rows: dict[str, list[str]] = defaultdict(list)
    for row in sorted(candidates, key=lambda row: _draw("random_drop", seed, row)):
        rows[candidates[row]].append(row)
    return frozenset(row for problem, own in rows.items() for row in own[: num_dropped.get(problem, 0)])


def random_rank(row_id: str, seed: int) -> float:
    """Return what the cap ranks a row by in place of its PURE score, within [0, 1)."""
    return _draw("random_rank", seed, row_id) / 2**64


def shuffle_exposures(stages: Sequence[Stage], seed: int) -> dict[str, tuple[str, ...]]:
    """Return what each stage shows when the curriculum's exposures are shuffled over all of it.

    Each example stands as often as the three stages show it in all; a stage shows as many as it did, within one epoch.

    Source: METHOD section 6, control B7 (docs/method.md).
    """
    exposures = [
        (row_id, stage.name, epoch) for stage in stages for epoch in range(stage.epochs) for row_id in stage.row_ids
    ]
    exposures.sort(key=lambda exposure: _draw("shuffled", seed, *exposure))
    shown: dict[str, tuple[str, ...]] = {}
    start = 0
    for stage in stages:
        end = start + stage.epochs * len(stage.row_ids)
        shown[stage.name] = tuple(row_id for row_id, *_ in exposures[start:end])
        start = end
    assert list(shown) == list(STAGES[: len(shown)])
    return shown


def _draw(*parts: Any) -> int:
    """Return a number below 2^64 that is decided by `parts` alone."""
    return int(content_key(*parts)[:16], 16)
