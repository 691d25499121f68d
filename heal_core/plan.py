"""From a demand to what is missing.

A demand is a set of slots, each with a limit on sampled tokens. The store knows the
attempts made at each slot; what is left over has to be sampled. Verdicts are likewise
demanded under a limit on time. Used by the tasks, and by anything that shows what a run
would do. What does not belong here: sampling, grading, SQL.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from heal_core.engines.base import GenerationRequest
from heal_core.keys import content_key, row_key, slot_key
from heal_core.records import FinishReason, Kind


@dataclass(frozen=True)
class Slot:
    """A place for one sample: who its parents are, how it is prompted, how long it may get.

    Attributes:
        parent_id: The wrong rollout that a hint or a repair belongs to.
        hint_id: The hint in a repair's prompt.
        prefix_token_ids: Token ids the answer already begins with.
        prefix: The same as text.
        limit_tokens: Limit on sampled tokens; a demand, not part of the identity.
        cut_tokens: Where the parent was cut; step and breakpoint settings decide it, so it is
            part of the identity of what is sampled from the cut.
    """

    kind: Kind
    problem_id: str
    recipe_id: str
    sample_index: int
    prompt: str
    limit_tokens: int
    parent_id: str | None = None
    hint_id: str | None = None
    prefix_token_ids: tuple[int, ...] = ()
    prefix: str = ""
    cut_tokens: int | None = None

    @property
    def slot_id(self) -> str:
        parents = [part for part in (self.problem_id, self.parent_id, self.hint_id) if part]
        parents.append(f"prompt {content_key(self.prompt)}")
        if self.cut_tokens is not None:
            parents.append(f"cut at {self.cut_tokens}")
        return slot_key(self.kind, parents, self.recipe_id, self.sample_index)

    @property
    def row_id(self) -> str:
        return row_key(self.slot_id, self.limit_tokens)

    def request(self) -> GenerationRequest:
        """Return the request that fills the slot."""
        return GenerationRequest(self.slot_id, self.prompt, self.prefix_token_ids, self.limit_tokens)


@dataclass(frozen=True)
class Attempt:
    """One stored row of a slot."""

    row_id: str
    slot_id: str
    limit_tokens: int
    num_tokens: int
    finish_reason: FinishReason


@dataclass(frozen=True)
class UsedRow:
    """The attempt a run uses for a slot; `cut` when it counts as truncated there, as one that was given up does."""

    row_id: str
    cut: bool


def meets(attempt: Attempt, limit_tokens: int) -> bool:
    """Return whether an attempt answers a demand.

    A finished one does if it fits the limit, a cut one if it was given at least as much.
    A finished one that is longer than the limit does too: under the limit it would have
    been cut, which is known without sampling. So does one that was given up as hopeless: it
    would be given up at the same place under every limit, or cut before it.
    """
    return attempt.finish_reason is not FinishReason.LENGTH or attempt.limit_tokens >= limit_tokens


def find_missing(slots: Sequence[Slot], attempts: Mapping[str, Sequence[Attempt]]) -> list[Slot]:
    """Return the slots that no attempt answers, in the order given."""
    return [
        slot
        for slot in slots
        if not any(meets(attempt, slot.limit_tokens) for attempt in attempts.get(slot.slot_id, ()))
    ]


def choose_row(attempts: Sequence[Attempt], limit_tokens: int) -> UsedRow:
    """Return which attempt a run uses: one that ended within the limit, else the nearest to the limit.

    Attempts that other runs add later, under higher limits, do not change the choice, so a
    run that is resumed goes on with the rows that it began with.

    One with no fewer tokens than the limit counts as cut: the end of the turn takes a token too,
    so an attempt under that limit would have been.

    Raises:
        ValueError: If there is no attempt.
    """
    best = min(
        attempts,
        key=lambda a: (_is_cut(a, limit_tokens), not meets(a, limit_tokens), abs(a.limit_tokens - limit_tokens)),
    )
    return UsedRow(best.row_id, _is_cut(best, limit_tokens))


def _is_cut(attempt: Attempt, limit_tokens: int) -> bool:
    return attempt.finish_reason is not FinishReason.STOP or attempt.num_tokens >= limit_tokens


GAVE_UP = frozenset({"timeout", "verifier_died", "sandbox_failed"})
"""Reasons of a verdict that another try, with more time, may not have."""


@dataclass(frozen=True)
class GradedAttempt:
    """One stored verdict; `limit_seconds` is None where it was not noted (before schema 0002)."""

    verdict_id: str
    trajectory_id: str
    verifier: tuple[str, str]
    reason: str | None
    limit_seconds: float | None


def choose_verdict(verdicts: Sequence[GradedAttempt], limit_seconds: float) -> str | None:
    """Return the id of the verdict that answers a demand; None when the text must be graded (again).

    One that gave up answers only if it was given at least as much time. Of several that
    answer, the one with the least time counts, so that later ones change no earlier run.

    Args:
        verdicts: Those of one verifier on one trajectory, in the order in which they were stored.
        limit_seconds: The time limit of this run.
    """
    answering = [v for v in verdicts if v.reason not in GAVE_UP or (v.limit_seconds or 0) >= limit_seconds]
    return min(answering, key=lambda v: v.limit_seconds or 0).verdict_id if answering else None
