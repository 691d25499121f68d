"""Shortcuts built from natural continuations: an answer without the reasoning that leads to it.

Every built text is made of tokens that the teacher sampled, and concludes as a natural one does, so that it differs
from that in what it says: not in how it was written down, nor in how often it states the answer. What does not belong
here: sampling, scoring, and comparing (`comparison`).
Source: METHOD section 3, validity test (docs/method.md).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

import numpy as np

from heal_core.engines.base import SamplingConfig
from heal_core.keys import content_key, slot_key
from heal_core.plan import Slot
from heal_core.prompts import rationale_prompt
from heal_core.pure import find_span
from heal_core.records import Kind
from heal_core.reference import CodeReference
from heal_core.repair import BrokenPath, continuation_limit
from heal_core.steps import StepsConfig, split_steps
from heal_core.validity.tokens import Tokens, think_end


class TextKind(StrEnum):
    """What a text of the test is."""

    NATURAL = "natural"  # a verified continuation without a hint
    PASTED = "pasted"  # the same, but its conclusion is pasted after a random step of it
    RATIONALISED = "rationalised"  # written after the answer was asserted, and put in front of it
    BORROWED = "borrowed"  # the reasoning of another problem, with the right conclusion


SHORTCUTS = (TextKind.PASTED, TextKind.RATIONALISED, TextKind.BORROWED)

_STATEMENT = re.compile(r"\\f?boxed\s*\{(?!\s*\})")
_FENCE = re.compile(r"^[ \t]*```.*$", re.MULTILINE)


@dataclass(frozen=True)
class Continuation:
    """A verified continuation of a prefix without a hint: its own tokens, and the path it goes on from."""

    row_id: str
    path: BrokenPath
    tokens: Tokens
    steps: StepsConfig

    @cached_property
    def reasoning_ends(self) -> tuple[int, ...]:
        """Where each step ends that stands before the first one that asserts a*, in tokens; empty without such."""
        _, steps = split_steps(self.tokens.text, self.tokens.token_starts, self.steps)
        texts = [self.tokens.text[step.start_char : step.end_char] for step in steps]
        span = find_span(texts, self.path.reference, 0)
        chars = [*self.tokens.token_starts.tolist(), len(self.tokens.text)]
        # a token that begins in a step may be the first word of the next one, with the space between them
        ends = [step.end_token - (chars[step.end_token] > step.end_char) for step in steps[: span[1] if span else 0]]
        return tuple(end for end in ends if 0 < end <= self.closing_start)

    @cached_property
    def closing_start(self) -> int:
        """The first token of the line in which the answer is stated at the end; all tokens where it is not."""
        return statement_start(self.tokens, self.path, is_last=True)

    @property
    def closing(self) -> Tokens:
        """How the teacher itself states the answer at the end."""
        return self.tokens.cut(self.closing_start, len(self.tokens.token_ids))

    @property
    def ending(self) -> Tokens:
        """The closing, with the end of a thinking part before it."""
        return self.tokens.cut(min(think_end(self.tokens), self.closing_start), len(self.tokens.token_ids))

    @property
    def conclusion(self) -> Tokens:
        """The first step that asserts a* and all behind it. There is reasoning before it."""
        return self.tokens.cut(self.reasoning_ends[-1], len(self.tokens.token_ids))

    def reasoning(self, num_steps: int) -> Tokens:
        """Return the first steps of the reasoning."""
        return self.tokens.cut(0, self.reasoning_ends[num_steps - 1] if num_steps else 0)

    def whole_reasoning(self) -> Tokens:
        """Return all of it that can stand alone: without a first step that goes on from within a sentence."""
        ends = self.reasoning_ends
        is_within = bool(self.path.prefix) and not self.path.prefix[-1].isspace()
        return self.tokens.cut(ends[0] if is_within and len(ends) > 1 else 0, ends[-1])


@dataclass(frozen=True)
class Shortcut:
    """A built continuation of a path's prefix, with the sampled rows that it is made of."""

    kind: TextKind
    path: BrokenPath
    index: int
    tokens: Tokens
    sources: tuple[str, ...]

    def slot_id(self, recipe_id: str) -> str:
        """Return the place that it fills: its own tokens decide."""
        made = content_key(self.tokens.text, self.tokens.token_ids.tolist())
        parents = [self.path.problem_id, self.path.trajectory_id, f"cut at {len(self.path.prefix_token_ids)}"]
        return slot_key(Kind.SHORTCUT, [*parents, str(self.kind), made], recipe_id, self.index)


def statement_start(tokens: Tokens, path: BrokenPath, is_last: bool) -> int:
    """Return the first token of the line that states an answer: the last such line, or the first; T without any."""
    if isinstance(path.reference, CodeReference):
        offsets = [match.start() for match in _FENCE.finditer(tokens.text)][::2]
    else:
        offsets = [match.start() for match in _STATEMENT.finditer(tokens.text)]
    if not offsets:
        return len(tokens.token_ids)
    line = tokens.text.rfind("\n", 0, offsets[-1 if is_last else 0]) + 1
    return int(np.searchsorted(tokens.token_starts, line, side="left"))


def choose_prefixes(paths: Sequence[BrokenPath], max_prefixes: int | None, seed: int) -> list[BrokenPath]:
    """Return the prefixes to test on, in the order given; where they are too many, problems take turns.

    Args:
        paths: By problem, the first ones of each first.
    """
    if max_prefixes is None or len(paths) <= max_prefixes:
        return list(paths)
    turn: dict[str, int] = {}
    ranks = []
    for position, path in enumerate(paths):
        turn[path.problem_id] = turn.get(path.problem_id, -1) + 1
        ranks.append((turn[path.problem_id], content_key("validity prefix", seed, path.problem_id), position))
    return [paths[position] for position in sorted(position for *_, position in sorted(ranks)[:max_prefixes])]


def rationale_slot(
    donor: Continuation, recipe_id: str, index: int, sampling: SamplingConfig, line_break: Tokens
) -> Slot:
    """Return the slot of a justification: the teacher is told the answer, has just stated it, and must go on.

    It goes on from the prefix, the closing words of a natural text, and the first token of that text, without which a
    model would end its turn after the answer.

    Args:
        line_break: Of `find_line_break`, to stand after the answer.
    """
    path = donor.path
    said = donor.closing + line_break + donor.tokens.cut(0, 1)
    return Slot(
        Kind.CONTINUATION,
        path.problem_id,
        recipe_id,
        index,
        rationale_prompt(path.question, path.reference.told, path.reference.wording),
        continuation_limit(sampling, len(path.prefix_token_ids) + len(said.token_ids)),
        parent_id=donor.row_id,
        prefix_token_ids=(*path.prefix_token_ids, *said.token_ids.tolist()),
        prefix=path.prefix + said.text,
        cut_tokens=len(said.token_ids),
    )


def _close(reasoning: Tokens, donor: Continuation, line_break: Tokens) -> Tokens:
    """Return reasoning with the donor's ending behind it, on a line of its own."""
    stands_alone = not reasoning.text or reasoning.text.endswith("\n")
    return reasoning + donor.ending if stands_alone else reasoning + line_break + donor.ending


def _conclude(reasoning: Tokens, donor: Continuation, line_break: Tokens) -> Tokens:
    """Return reasoning with the donor's conclusion behind it, on a new line if and only if the donor's is on one.

    A break that no natural text has there would tell what is built by how it is laid out.
    """
    if not donor.reasoning(len(donor.reasoning_ends)).text.endswith("\n"):
        return reasoning.without_last_break() + donor.conclusion
    stands_alone = not reasoning.text or reasoning.text.endswith("\n")
    return reasoning + donor.conclusion if stands_alone else reasoning + line_break + donor.conclusion


def paste_answer(donor: Continuation, index: int, seed: int, line_break: Tokens) -> Shortcut | None:
    """Return a natural text that concludes after a random step, at least one before its place; None without any."""
    num_steps = len(donor.reasoning_ends)
    if not num_steps:
        return None
    drawn = int(content_key("pasted", seed, donor.row_id)[:15], 16)
    num_kept = 1 + drawn % (num_steps - 1) if num_steps > 1 else 0
    tokens = _conclude(donor.reasoning(num_kept), donor, line_break)
    return Shortcut(TextKind.PASTED, donor.path, index, tokens, (donor.row_id,))


def rationalise(
    donor: Continuation, rationale_id: str, rationale: Tokens, index: int, line_break: Tokens
) -> Shortcut | None:
    """Return the justification with the answer behind it, as if it had led there; None without natural reasoning.

    One that does not assert a* itself gets the natural text's conclusion, the others its ending: either way it is
    asserted in a step and at the end.

    Args:
        rationale: What was sampled on the slot of `rationale_slot`, whose last prefix token opens it.
    """
    if not donor.reasoning_ends:
        return None
    end = min(statement_start(rationale, donor.path, is_last=False), think_end(rationale))
    reasoning = donor.tokens.cut(0, 1) + rationale.cut(0, end)
    finish = _close if donor.path.reference.find_assertions(reasoning.text) else _conclude
    tokens = finish(reasoning, donor, line_break)
    return Shortcut(TextKind.RATIONALISED, donor.path, index, tokens, (donor.row_id, rationale_id))


def borrow_reasoning(
    donor: Continuation, others: Sequence[Continuation], index: int, seed: int, line_break: Tokens
) -> Shortcut | None:
    """Return the reasoning of another problem with this one's conclusion; None where either has no reasoning.

    Args:
        others: Natural texts of all problems.
    """
    candidates = [other for other in others if other.path.problem_id != donor.path.problem_id and other.reasoning_ends]
    if not candidates or not donor.reasoning_ends:
        return None
    other = min(candidates, key=lambda o: content_key("borrowed", seed, donor.row_id, o.row_id))
    tokens = _conclude(other.whole_reasoning(), donor, line_break)
    return Shortcut(TextKind.BORROWED, donor.path, index, tokens, (donor.row_id, other.row_id))
