"""One trajectory as the inspector shows it: its tokens with their entropies, cut into steps.

Texts are bounded here, so that no single one can fill a page; what is left out is counted. What does not belong here:
what is read (`store.inspector`), and which trajectories a page holds (`sampling`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from heal_core.breakpoints import BreakpointConfig
from heal_core.hints import clean_hint
from heal_core.profiles import profile_entropy
from heal_core.report.names import visible
from heal_core.steps import StepsConfig
from heal_core.store.inspector import TokenArrays

MAX_TOKEN_CHARS = 200
MAX_TEXT_CHARS = 20_000
MAX_NOTE_CHARS = 600
MAX_TOKENS = 16_000
_DIGITS = 4


def view_trajectory(
    row: Mapping[str, Any], arrays: TokenArrays | None, steps: StepsConfig, breakpoints: BreakpointConfig
) -> dict[str, Any]:
    """Return a trajectory ready for JSON.

    Args:
        row: Of `read_trajectory`.
        arrays: Its tokens; None where the parts do not have it.
        steps: How the run cuts steps, for texts without a stored profile (all but rollouts).
        breakpoints: How it finds breakpoints, likewise.

    Returns:
        `tokens` and `entropies` (nats; None in place of a number that is not finite) are aligned, with `radii` where
        entropies are intervals; `steps` has for each step its first token and mean entropy; `breakpoint` is a step's
        index, of rollouts only.
    """
    text = row["text"]
    shown = {
        "id": row["trajectory_id"],
        "kind": row["kind"],
        "listed": row["listed"],
        "problem_id": row["problem_id"],
        "question": bound(row["question"]),
        "answer": bound(row["answer"], MAX_NOTE_CHARS),
        "verdict": {name: bound(value, MAX_NOTE_CHARS) for name, value in (row["verdict"] or {}).items()},
        "finish_reason": row["finish_reason"],
        "sample_index": row["sample_index"],
        "num_tokens": row["num_tokens"],
        "parent": row["parent_id"],
        "prefix": bound(row["prefix"]),
        "hint": bound(clean_hint(row["hint"]) if row["hint"] else None),
        "decisions": [{name: bound(value, MAX_NOTE_CHARS) for name, value in one.items()} for one in row["decisions"]],
        "gates": [{name: bound(value, MAX_NOTE_CHARS) for name, value in one.items()} for one in row["gates"]],
        "score": _score(row["score"]),
        "repairs": row["repairs"],
        "entropy_source": row["entropy_source"] or "exact",
    }
    if arrays is None or not len(arrays.starts):
        return {**shown, "tokens": [bound(text)] if text else [], "entropies": [None] if text else [], "steps": []}
    tokens, num_left_out = _tokens(text, arrays.starts)
    return {
        **shown,
        "tokens": tokens,
        "num_left_out": num_left_out,
        "entropies": [_rounded(value) for value in arrays.entropies[: len(tokens)]],
        **({} if arrays.radii is None else {"radii": [_rounded(value) for value in arrays.radii[: len(tokens)]]}),
        **_steps(row, arrays, steps, breakpoints),
    }


def bound(value: Any, max_chars: int = MAX_TEXT_CHARS) -> Any:
    """Return a text of at most so many characters, which says how many are missing; other values as they are."""
    return _shortened(value, max_chars) if isinstance(value, str) else value


def _shortened(text: str, limit: int) -> str:
    """Return a text up to a limit, with signs that steer its layout made visible."""
    rest = len(text) - limit
    return visible(text) if rest <= 0 else f"{visible(text[:limit])}… ({rest:,} more characters)"


def _tokens(text: str, starts: np.ndarray) -> tuple[list[str], int]:
    """Return the text of each token, and how many tokens are left out at the end."""
    ends = [*starts[1:].tolist(), len(text)]
    pieces = [text[start:end] for start, end in zip(starts.tolist(), ends, strict=True)][:MAX_TOKENS]
    return [_shortened(piece, MAX_TOKEN_CHARS) for piece in pieces], max(0, len(starts) - MAX_TOKENS)


def _steps(
    row: Mapping[str, Any], arrays: TokenArrays, steps: StepsConfig, breakpoints: BreakpointConfig
) -> dict[str, Any]:
    stored = row["profile"]
    if stored is not None:
        return {
            "steps": _places(stored["step_start_tokens"], stored["step_entropies"], stored["step_entropy_radii"]),
            "breakpoint": stored["breakpoint_step"],
            "surge": _rounded(stored["surge_nats"]),
            "z_score": _rounded(stored["z_score"]),
            "window_size": stored["window_size"],
            "flat": stored["flat"],
            "is_certain": stored["is_certain"],
        }
    profile = profile_entropy(row["text"], arrays.starts, arrays.entropies, steps, breakpoints, arrays.radii)
    radii = None if profile.step_radii is None else profile.step_radii.tolist()
    return {"steps": _places([step.start_token for step in profile.steps], profile.step_entropies.tolist(), radii)}


def _places(starts: list[int], entropies: list[float], radii: list[float] | None) -> list[dict[str, Any]]:
    return [
        {"start": start, "entropy": _rounded(entropy), **({"radius": _rounded(radii[index])} if radii else {})}
        for index, (start, entropy) in enumerate(zip(starts, entropies, strict=True))
    ]


def _score(score: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if score is None:
        return None
    return {
        name: [_rounded(one) for one in value] if isinstance(value, list) else _rounded(value)
        for name, value in score.items()
    }


def _rounded(value: Any) -> Any:
    """Return a number of few digits; None in place of one that JSON cannot hold."""
    if not isinstance(value, float):
        return value
    return round(value, _DIGITS) if np.isfinite(value) else None
