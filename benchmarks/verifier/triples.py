"""The hand-checked triples: a reference, an answer, and what a careful teacher says of it.

`triples.jsonl` has one a line. `correct` is the truth by the rules of docs/verifier.md; `answer`
is the content of the box of a short completion, `text` a whole completion; `unseen` marks those
written after the rules of `heal_core/verify` were settled; `note` says why where it is not plain.
"""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, model_validator

PATH = Path(__file__).with_name("triples.jsonl")


class Triple(BaseModel):
    """A line of the set."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    class_name: str = Field(alias="class", min_length=1)
    problem_type: str = "math"
    gold: str = Field(min_length=1)
    answer: str | None = None
    text: str | None = None
    correct: bool
    unseen: bool = False
    note: str = ""

    @model_validator(mode="after")
    def _has_one_answer(self) -> Triple:
        if (self.answer is None) == (self.text is None):
            raise ValueError("a triple has either an `answer` (the content of the box) or a whole `text`")
        return self

    @property
    def completion(self) -> str:
        """Return the text to grade."""
        return self.text if self.text is not None else f"So the answer is $\\boxed{{{self.answer}}}$."


def load_triples() -> list[Triple]:
    """Return all triples in the order of the file."""
    return [Triple.model_validate(json.loads(line)) for line in PATH.read_text(encoding="utf-8").splitlines()]
