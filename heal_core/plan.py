"""From a demand to what is missing.

A demand is a set of slots, each with a limit on sampled tokens. The store knows the
attempts made at each slot; what is left over has to be sampled. Used by the tasks, and
by anything that shows what a run would do. What does not belong here: sampling, SQL.
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
    """The attempt a run uses for a slot; `cut` when it counts as truncated there."""

    row_id: str
    cut: bool


def meets(attempt: Attempt, limit_tokens: int) -> bool:
    """Return whether an attempt answers a demand.

    A finished one does if it fits the limit, a cut one if it was given at least as much.
    A finished one that is longer than the limit does too: under the limit it would have
    been cut, which is known without sampling.
    """
    return attempt.finish_reason is FinishReason.STOP or attempt.limit_tokens >= limit_tokens


def find_missing(slots: Sequence[Slot], attempts: Mapping[str, Sequence[Attempt]]) -> list[Slot]:
    """Return the slots that no attempt answers, in the order given."""
    return [
        slot
        for slot in slots
        if not any(meets(attempt, slot.limit_tokens) for attempt in attempts.get(slot.slot_id, ()))
    ]


def choose_row(attempts: Sequence[Attempt], limit_tokens: int) -> UsedRow:
    """Return which attempt a run uses: the finished one, else the longest.

    One with no fewer tokens than the limit counts as cut: the end of the turn takes a token too,
    so an attempt under that limit would have been.

    Raises:
        ValueError: If there is no attempt.
    """
    best = max(
        attempts,
        key=lambda a: (a.finish_reason is FinishReason.STOP, a.num_tokens, -a.limit_tokens, a.row_id),
    )
    return UsedRow(best.row_id, best.finish_reason is FinishReason.LENGTH or best.num_tokens >= limit_tokens)
