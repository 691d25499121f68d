"""The published layouts of rollouts: a row of a file -> the generations that it holds, each with how it ended.

`openr1`: a problem per row with lists, as in OpenR1-Math (Parquet). `nemo-skills`: a line per generation, as
NeMo-Skills writes output-rs*.jsonl and OpenMathReasoning is published. What does not belong here: reading rows
(`sources`), what question and answer a row has (`problems`), and whether a model can read a text (`engines.reading`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from heal_core.errors import InputError
from heal_core.records import FinishReason
from heal_core.sources.row import Refusal

RolloutFormat = Literal["openr1", "nemo-skills"]

OPENR1_COLUMN = "generations"
NEMO_COLUMNS = ("_full_generation", "generation", "generated_solution")
"""Where a line of NeMo-Skills has its text: whole where the reasoning was cut off for grading, else as it is."""

_NEMO_REASONING = "reasoning_content"
_NEMO_MODE, _ATTEMPT_MODE = "inference_mode", "cot"
"""How a text of OpenMathReasoning was written; in another mode (tir, genselect) it is no attempt at the problem."""
_MODEL = "generation_model"
_FINISH: dict[str, FinishReason] = {
    **dict.fromkeys(("stop", "eos", "eos_token", "stop_sequence", "end_turn"), FinishReason.STOP),
    **dict.fromkeys(("length", "max_tokens"), FinishReason.LENGTH),
}
"""How servers say that a text ended, and that it was cut."""


_SURROGATE = re.compile("[\ud800-\udfff]")
"""Half of a pair; looked for in C, since a file may hold 10 GB of text."""


@dataclass(frozen=True)
class Generation:
    """One text of a row; `model` is who wrote it, None where the row does not say."""

    text: str
    finish_reason: FinishReason
    model: str | None


def detect_format(columns: Iterable[str], place: str) -> RolloutFormat:
    """Return the layout that a file's columns are those of.

    Raises:
        InputError: If they are of none.
    """
    found = set(columns)
    if OPENR1_COLUMN in found:
        return "openr1"
    if not found.isdisjoint(NEMO_COLUMNS):
        return "nemo-skills"
    raise InputError(
        f"{place} holds no rollouts: it has the columns {', '.join(sorted(found))}. Expected {OPENR1_COLUMN} (a list "
        f"of texts, as OpenR1 has it) or one of {', '.join(NEMO_COLUMNS)} (a text per line, as NeMo-Skills writes it)."
    )


def check_format(name: str) -> RolloutFormat | None:
    """Return the layout that a user named; None for `auto`.

    Raises:
        InputError: If there is none of this name.
    """
    for known in get_args(RolloutFormat):
        if name == known:
            return known  # type: ignore[no-any-return]  # get_args loses the type
    if name == "auto":
        return None
    raise InputError(f"--format {name}: expected auto, {', '.join(get_args(RolloutFormat))}.")


def generations_of(row: Mapping[str, Any], layout: RolloutFormat) -> list[Generation | Refusal]:
    """Return what a row holds, in its order; at least one entry, so that every row is accounted for."""
    return _READERS[layout](row)


def _openr1(row: Mapping[str, Any]) -> list[Generation | Refusal]:
    texts = row.get(OPENR1_COLUMN)
    if not isinstance(texts, list) or not texts:
        return [Refusal(f"no_generations: {OPENR1_COLUMN} is {_describe(texts)}, expected a list of texts")]
    reasons, complete = row.get("finish_reasons"), row.get("is_reasoning_complete")
    for name, values in (("finish_reasons", reasons), ("is_reasoning_complete", complete)):
        if values is not None and (not isinstance(values, list) or len(values) != len(texts)):
            refusal = Refusal(f"lists_differ: {len(texts)} {OPENR1_COLUMN}, {name} is {_describe(values)}")
            return [refusal for _ in texts]
    return [
        _generation(text, _reason_of(reasons, complete, index), row.get(_MODEL)) for index, text in enumerate(texts)
    ]


def _reason_of(reasons: Sequence[Any] | None, complete: Sequence[Any] | None, index: int) -> Any:
    """Return how a text of OpenR1 ended; where that is not noted, one that never came to an answer was cut."""
    if reasons is not None and reasons[index] is not None:
        return reasons[index]
    return "length" if complete is not None and complete[index] is False else None


def _nemo_skills(row: Mapping[str, Any]) -> list[Generation | Refusal]:
    column = next((name for name in NEMO_COLUMNS if row.get(name) is not None), None)
    if column is None:
        return [Refusal(f"no_generation: expected a text in one of {', '.join(NEMO_COLUMNS)}")]
    if row.get(_NEMO_REASONING):
        return [Refusal(f"reasoning_apart: it is in {_NEMO_REASONING}, so {column} holds only what came after it")]
    mode = row.get(_NEMO_MODE)
    if mode is not None and mode != _ATTEMPT_MODE:
        return [Refusal(f"other_mode: {_NEMO_MODE} is {mode!r}, expected {_ATTEMPT_MODE}: an attempt without tools")]
    return [_generation(row[column], row.get("finish_reason"), row.get(_MODEL))]


def _generation(text: Any, reason: Any, model: Any) -> Generation | Refusal:
    if not isinstance(text, str):
        return Refusal(f"bad_type: a generation is {_describe(text)}, expected text")
    if _SURROGATE.search(text):
        return Refusal("bad_unicode: a generation holds half of a surrogate pair")
    if not text.strip():
        return Refusal("empty_text: a generation is blank")
    if reason is not None and (not isinstance(reason, str) or reason not in _FINISH):
        return Refusal(f"unknown_finish_reason: {reason!r}, expected one of {', '.join(_FINISH)}")
    finish_reason = FinishReason.STOP if reason is None else _FINISH[reason]
    return Generation(text, finish_reason, model if isinstance(model, str) and model else None)


def _describe(value: Any) -> str:
    return f"a list of {len(value)}" if isinstance(value, list) else type(value).__name__


_READERS: dict[RolloutFormat, Callable[[Mapping[str, Any]], list[Generation | Refusal]]] = {
    "openr1": _openr1,
    "nemo-skills": _nemo_skills,
}
