"""Bad seams (gate G8): a continuation that does not go on from what it was given.

It restarts, says a kept step again, or thinks twice. Looks at wording alone; the steps that a breakpoint cut are
`steps` and `breakpoints`.
Source: METHOD section 4, gate G8 (docs/method.md).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from heal_core.gate_rules import find_first
from heal_core.steps import StepsConfig, split_steps

MIN_COPY_CHARS = 20
"""Shorter sentences, spaces not counted, recur in good reasoning: "So x = 5."."""
_OPENING_CHARS = 200
_END_OF_SENTENCE = re.compile(r"[.!?:](?=\s)|[。!?:\n]")  # a full-width sign needs no space after it


def find_bad_seam(kept: str, continuation: str, restarts: Sequence[str]) -> str | None:
    """Return what is wrong where a continuation joins the kept steps, None where nothing is.

    Args:
        kept: What stands before it; empty where nothing was kept, and then only think tags are looked at.
        restarts: Patterns of a beginning that starts anew.
    """
    if (tag := _doubled_tag(kept, continuation)) is not None:
        return f"a second {tag}"
    if not kept.strip():
        return None
    opening = _opening(continuation)
    for pattern in restarts:
        if (start := find_first(pattern, opening)) is not None:
            return f"begins anew: {opening[start : start + 60]!r}"
    first = next((unit for unit in _sentences(continuation) if len(_squeeze(unit)) >= MIN_COPY_CHARS), None)
    if first is not None and _squeeze(first) in {_squeeze(unit) for unit in _sentences(kept)}:
        return f"says a kept step again: {' '.join(first.split())[:60]!r}"
    return None


def natural_seam(text: str, token_starts: np.ndarray, config: StepsConfig) -> int | None:
    """Return where a text that was written in one piece would have been cut: its false positives are counted there.

    That is the place which definition D5 takes where no surge is positive; None of a text with fewer than two steps.

    Args:
        token_starts: Character offsets of the tokens, shape [T].
    """
    _, steps = split_steps(text, token_starts, config)
    if len(steps) < 2:
        return None
    return steps[max(2, -(-len(steps) // 6)) - 1].start_char


def _doubled_tag(kept: str, continuation: str) -> str | None:
    """Return the think tag that a text has twice; after kept steps the thinking is open, whoever opened it."""
    if continuation.count("<think>") > (0 if kept.strip() else 1):
        return "<think>"
    return "</think>" if (kept + continuation).count("</think>") > 1 else None


def _opening(continuation: str) -> str:
    """Return the first sentence, without what stands before its first word."""
    text = continuation.lstrip()[:_OPENING_CHARS]
    end = _END_OF_SENTENCE.search(text, 1)
    return text[: end.end()] if end else text


def _sentences(text: str) -> list[str]:
    """Return the sentences and lines of a text, the finest cut of definition D4."""
    return [unit for unit in re.split(r"(?<=[.!?])\s+|(?<=[。!?])|\n+", text) if unit.strip()]


def _squeeze(text: str) -> str:
    return re.sub(r"\s", "", text).casefold()
