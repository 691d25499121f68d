"""What an imported rollout is called in the store: who wrote it, and which teacher read it.

The file is not in it, so that a file that grows, moves or is written in another layout brings only what is new. What
does not belong here: the keys of what HEAL samples (`heal_core/keys.py`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from heal_core.keys import content_key, row_key
from heal_core.prompts import student_prompt
from heal_core.records import FinishReason, Kind
from heal_core.reference import Reference

IMPORTED = "imported"
"""`recipes.kind` of what was not sampled by HEAL."""

UNKNOWN_WRITER = "unknown"

_VERSION = 1
"""Raised by hand when the code of an import makes other rows of the same texts."""


def template_of(reference: Reference) -> str:
    """Return the prompt that a teacher sees before an attempt at a problem of this kind, with an empty slot."""
    return student_prompt("{}", reference.wording)


def reading_key(teacher: Mapping[str, Any], template: str) -> str:
    """Return the id of a way to read texts: the teacher (`identify_model`) and the prompt that it sees before them.

    Token ids, log-probabilities and entropies follow from it, so a run uses only what its own teacher has read.
    """
    return content_key("reading", _VERSION, dict(teacher), template)


def recipe_row(writer: str, teacher: Mapping[str, Any], teacher_name: str, template: str) -> dict[str, Any]:
    """Return the stored recipe of the texts of one writer as one teacher reads them after one prompt."""
    reading_id = reading_key(teacher, template)
    settings = {
        "writer": writer,
        "reading_id": reading_id,
        "read_by": teacher_name,
        "model": dict(teacher),
        "template": template,
    }
    return {
        "recipe_id": content_key("recipe", IMPORTED, reading_id, writer),
        "kind": IMPORTED,
        "model_name_or_path": writer,
        "settings": json.dumps(settings, sort_keys=True),
    }


@dataclass(frozen=True)
class TextKey:
    """An imported text's place in the store.

    `occurrence` counts the same text of a problem within one file, from 0: a model may well write the same twice.
    """

    problem_id: str
    recipe_id: str
    text: str
    finish_reason: FinishReason
    occurrence: int

    @cached_property
    def slot_id(self) -> str:
        parts = (self.problem_id, self.recipe_id, content_key(self.text), str(self.finish_reason), self.occurrence)
        return content_key("slot", IMPORTED, Kind.ROLLOUT, *parts)

    @cached_property
    def row_id(self) -> str:
        return row_key(self.slot_id, 0)  # nobody knows under which limit it was written
