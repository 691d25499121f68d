"""What a problem's type needs beyond its answer, as canonical JSON in `Problem.spec`; "" where nothing is.

What does not belong here: how it is read from a row (`problem_types`), how it is graded (`verify`),
what it means for hints and scores (`reference`).
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

_Spec = TypeVar("_Spec", bound=BaseModel)


class AnswerSpec(BaseModel):
    """How an answer that is a value is compared: types math, numeric and exact.

    Attributes:
        accepted: Other answers that are right as well.
        absolute_tolerance: Largest difference of a number, written as a decimal.
        relative_tolerance: The same as a share of the reference.
        unit: What the reference is measured in; an answer may leave it out, or be in a unit that converts to it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    accepted: tuple[str, ...] = ()
    absolute_tolerance: str | None = None
    relative_tolerance: str | None = None
    unit: str | None = None


class ChoiceSpec(BaseModel):
    """The options of a multiple choice: their texts by label, in the order in which they are shown."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    options: dict[str, str] = Field(min_length=2)

    @model_validator(mode="after")
    def _check_labels(self) -> ChoiceSpec:
        if len({label.casefold() for label in self.options}) < len(self.options):
            raise ValueError(f"options: labels must differ, found {', '.join(self.options)}")
        return self


class GymSpec(BaseModel):
    """What the scorer of a generator of reasoning-gym needs: type reasoning_gym.

    Attributes:
        generator: Its name there.
        config: Its settings, as a source gave them; `curriculum` likewise.
        entry: The entry that it made, packed (`gym.entry`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    generator: str
    config: dict[str, Any] = {}
    curriculum: dict[str, int] | int | None = None
    entry: dict[str, Any]


def write_spec(spec: BaseModel) -> str:
    """Return the spec as text, the same for the same contents; "" where it says nothing."""
    fields = spec.model_dump(mode="json", exclude_defaults=True)
    # the order of options is what is shown, so keys within a field stay as they are
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")) if fields else ""


@lru_cache(maxsize=4096)
def read_spec(kind: type[_Spec], text: str) -> _Spec:
    """Return the spec that `write_spec` wrote; the default one of "".

    Raises:
        pydantic.ValidationError: If it is another type's.
    """
    fields: dict[str, Any] = json.loads(text) if text else {}
    return kind.model_validate(fields)
