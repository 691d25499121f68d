"""Content keys: the identity of everything HEAL stores.

`recipe_id` names whatever changes a text; `slot_id` a place for one sample; the row id
one attempt at filling it under a token limit. Demands (how many, how long, which
problems) are in none of them, so that asking for more never throws away what exists.
What does not belong here: deciding what is missing (`plan`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

STAGE_VERSIONS = {
    "rollout": 1,
    "hint": 1,
    "repair": 1,
    "guided": 1,
    "verdict": 3,
    "profile": 1,
    "score": 1,
    "checkpoint": 2,
    "run": 3,
}
"""Raised by hand when the code of a stage changes what it makes from the same inputs."""

_TEST_VERSIONS = {"continuation": 1, "shortcut": 1}
"""The same for texts of the validity test, which only some runs have: these are in no other run's id."""


def content_key(*parts: Any) -> str:
    """Return 32 hexadecimal digits (128 bits of SHA-256) over the JSON form of `parts`."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def recipe_key(kind: str, model: dict[str, Any], sampling: dict[str, Any], seed: int, template: str) -> str:
    """Return the id of a way to sample: stage version, model, sampling, seed and prompt template.

    Args:
        kind: `rollout`, `hint`, `guided`, `repair`, `score`, `continuation` or `shortcut`.
        model: What the engine says of itself (`EngineDescription.identity`).
        sampling: Sampling settings without `max_tokens`, which is a demand.
        seed: The run's seed.
        template: Whatever else shapes the prompt, as text; rendered prompts differ per
            problem, and the problem's id stands in the slot.
    """
    version = (STAGE_VERSIONS | _TEST_VERSIONS)[kind]
    return content_key("recipe", kind, version, model, sampling, seed, template)


def slot_key(kind: str, parent_ids: Iterable[str], recipe_id: str, sample_index: int) -> str:
    """Return the id of the place that one sample fills."""
    return content_key("slot", kind, list(parent_ids), recipe_id, sample_index)


def row_key(slot_id: str, limit_tokens: int) -> str:
    """Return the id of one attempt at a slot under a limit on completion tokens."""
    return content_key("row", slot_id, limit_tokens)
