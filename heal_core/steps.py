"""A completion cut into reasoning steps, by characters and by tokens.

The cut follows the text, never the tokenizer; tokens are then dealt to the steps.
What does not belong here: entropies (`profiles`) and where a trajectory breaks
(`breakpoints`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from heal_core.errors import ShapeError
from heal_core.records import Step

Separator = Literal["blank_line", "newline", "sentence"]

END_OF_THINKING = "</think>"
AUTO_MIN_STEPS = 9

# Each set of cuts contains the one before it, so that `auto` goes from coarse to fine.
# The runs are possessive or start at a character that cannot repeat inside them: linear time.
_NEWLINES = r"\r?\n(?:[ \t]*\r?\n)*+"
# "e.g. ", "Eq. " and the "1. " of a list end no sentence; a decimal point has no space after it.
_NO_SENTENCE_END = "".join(
    rf"(?<!\b{word})"
    for word in (
        r"e\.g",
        r"i\.e",
        "vs",
        "cf",
        "Eq",
        "eq",
        "Fig",
        "fig",
        "No",
        "Dr",
        "Mr",
        "Mrs",
        "Ms",
        "approx",
    )
) + "".join(rf"(?<!{line_start}{digits})" for line_start in (r"\A", r"\n") for digits in ("[0-9]", "[0-9][0-9]"))
_SEPARATORS: dict[Separator, re.Pattern[str]] = {
    "blank_line": re.compile(r"\r?\n(?:[ \t]*\r?\n)++"),
    "newline": re.compile(_NEWLINES),
    "sentence": re.compile(
        rf"(?=[.!?])(?<![.!?]){_NO_SENTENCE_END}[.!?]++[\"')\]*]*+(?:[ \t]*+{_NEWLINES}|\s++)"
        rf"|[\u3002\uff01\uff1f]++[\u300d\u300f\u201d]*+(?:[ \t]*+{_NEWLINES}|\s*+)"
        rf"|{_NEWLINES}"
    ),
}

_OPENING = re.compile(r"\s*+(?:<think>\s*+)?")
_CLOSERS = {"$$": "$$", "\\[": "\\]", "```": "```"}
_DELIMITER = re.compile(r"\$\$|(?<!\\)\\[\[\]]|`{3,}+")


class StepsConfig(BaseModel):
    """How reasoning is cut: where (definition D4), and the fewest tokens that make a step."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    step_separator: Literal["blank_line", "newline", "sentence", "auto"] = "blank_line"
    """Where reasoning is cut (D4)."""
    min_step_tokens: int = Field(default=8, ge=1)
    """A shorter step merges into the next."""


def split_steps(text: str, token_starts: np.ndarray, config: StepsConfig) -> tuple[Separator, tuple[Step, ...]]:
    """Return the separator that was used and the steps of a completion, in order.

    Joining the steps' characters gives `text` back; their token ranges partition 0..T,
    and none is empty. From `</think>` on everything is one last step, however short.
    An empty text has no steps.

    Args:
        text: The completion, as decoded.
        token_starts: Character offset in `text` at which each token begins, shape [T],
            ascending; equal offsets are allowed (tokens that are parts of one character).
        config: The separator, and the length below which a step merges into the next.

    Raises:
        ShapeError: If the offsets are not ascending within `text`, or a text has no tokens.

    Source: definition D4 (docs/method.md).
    """
    _check_offsets(text, token_starts)
    region_end = text.find(END_OF_THINKING)
    region = text if region_end < 0 else text[:region_end]
    spans = _protected_spans(region)
    wanted: Sequence[Separator] = tuple(_SEPARATORS) if config.step_separator == "auto" else (config.step_separator,)
    for separator in wanted:
        cuts = _cut(region, separator, spans)
        ends = _merge_short(cuts, token_starts, config.min_step_tokens)
        if len(ends) >= AUTO_MIN_STEPS:
            break
    return separator, _steps(_with_rest(ends, len(text), len(token_starts), has_tail=region_end >= 0))


def count_reasoning_steps(text: str, steps: Sequence[Step]) -> int:
    """Return K, the number of `steps` of the reasoning region: all but the one from `</think>` on."""
    has_tail = bool(steps) and text.startswith(END_OF_THINKING, steps[-1].start_char)
    return len(steps) - has_tail


def _check_offsets(text: str, token_starts: np.ndarray) -> None:
    if token_starts.ndim != 1:
        raise ShapeError(f"expected token_starts of shape [T], found {token_starts.shape}")
    if text and not len(token_starts):
        raise ShapeError(f"expected the tokens of a text of {len(text)} characters, found none")
    if not len(token_starts):
        return
    if token_starts[0] < 0 or token_starts[-1] > len(text) or bool(np.any(np.diff(token_starts) < 0)):
        raise ShapeError(
            f"expected ascending token_starts within 0..{len(text)}, found "
            f"{token_starts[0]}..{token_starts[-1]} over {len(token_starts)} tokens; "
            "were they computed on another text?"
        )


def _protected_spans(region: str) -> list[tuple[int, int]]:
    """Return the character ranges of display mathematics and code fences, ascending.

    An opener without its closer protects nothing: a completion cut inside a formula, or one
    stray mark, would otherwise swallow all the steps that follow.
    """
    marks = [(match.group()[:3], match.start(), match.end()) for match in _DELIMITER.finditer(region)]
    last_start = {mark: start for mark, start, _ in marks}
    spans = []
    closer, opened_at = None, 0
    for mark, start, end in marks:
        if closer is None:
            wanted = _CLOSERS.get(mark)
            if wanted is not None and last_start.get(wanted, -1) > start:
                closer, opened_at = wanted, start
        elif mark == closer:
            spans.append((opened_at, end))
            closer = None
    return spans


def _cut(region: str, separator: Separator, spans: Sequence[tuple[int, int]]) -> np.ndarray:
    """Return the offsets at which the pieces of `region` end, ascending, the last its length."""
    matches = [match.span() for match in _SEPARATORS[separator].finditer(region)]
    if not region:
        return np.zeros(0, dtype=np.int64)
    found = np.array(matches, dtype=np.int64).reshape(-1, 2)
    span_bounds = np.array(spans, dtype=np.int64).reshape(-1, 2)
    # The span that begins last at or before the separator is the only one that can hold it.
    nearest = np.searchsorted(span_bounds[:, 0], found[:, 0], side="right") - 1
    protected = np.zeros(len(found), dtype=bool)
    if len(span_bounds):
        protected = (nearest >= 0) & (found[:, 0] < span_bounds[nearest, 1])
    # A separator before the first words, such as the one after `<think>`, has no step to belong to.
    opening = _OPENING.match(region)
    first_words = opening.end() if opening else 0
    cuts = found[~protected & (found[:, 0] >= first_words), 1]
    return np.append(cuts[cuts < len(region)], len(region))


def _merge_short(cuts: np.ndarray, token_starts: np.ndarray, min_tokens: int) -> list[tuple[int, int]]:
    """Return the (character, token) ends of the steps once each short piece joined the next.

    What is left over at the end joins the step before; without one it is a step if it
    has a token at all.
    """
    token_ends = np.searchsorted(token_starts, cuts, side="left")
    ends: list[tuple[int, int]] = []
    start = 0
    end = (0, 0)
    for end in zip(cuts.tolist(), token_ends.tolist(), strict=True):
        if end[1] - start >= min_tokens:
            ends.append(end)
            start = end[1]
    if ends:
        ends[-1] = end
    elif end[1]:
        ends.append(end)
    return ends


def _with_rest(
    ends: list[tuple[int, int]], num_characters: int, num_tokens: int, *, has_tail: bool
) -> list[tuple[int, int]]:
    """Return `ends` with the tail as a step of its own, if it has tokens, and nothing left out."""
    if not num_characters:
        return []
    whole = (num_characters, num_tokens)
    if has_tail and (not ends or ends[-1][1] < num_tokens):
        return [*ends, whole]
    # Tokens that begin at the very end of the text (they decode to nothing) join the last step.
    return [*ends[:-1], whole]


def _steps(ends: Sequence[tuple[int, int]]) -> tuple[Step, ...]:
    starts = [(0, 0), *ends[:-1]]
    return tuple(Step(a, b, i, j) for (a, i), (b, j) in zip(starts, ends, strict=True)) if ends else ()
