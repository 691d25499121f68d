"""What values a setting takes, in words: from the schema that pydantic has of it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field

from heal_core.config_ranges import describe_choices, describe_default

Share = Annotated[float, Field(ge=0, le=1)]


class Inner(BaseModel):
    size: int = 1


class Example(BaseModel):
    plain: str = "a"
    switch: bool = False
    wall_seconds: float | None = Field(default=5.0, gt=0)
    limit: int | None = Field(default=None, ge=1)
    max_file_mib: int = Field(default=1, ge=1)
    share: float = Field(default=0.5, gt=0, lt=1)
    seed: int = Field(default=0, ge=0, lt=2**32)
    mode: Literal["a", "b"] = "a"
    only: Literal["a"] | int = "a"
    dtype: str = Field(default="x", pattern="^(x|y)$")
    name: str = Field(default="x", pattern=r"\S")
    words: tuple[str, ...] = ()
    kinds: list[Literal["a", "b"]] = []
    shares: tuple[Share, Share] = (0, 1)
    inner: Inner | None = None
    inners: tuple[Inner, ...] = ()
    values: dict[str, Any] = {}


@pytest.mark.parametrize(
    ("name", "choices"),
    [
        ("plain", "text"),
        ("switch", "true, false"),
        ("wall_seconds", "above 0 s, or none"),  # none is not what it has by default, so that it is worth saying
        ("limit", ">= 1"),
        ("max_file_mib", ">= 1 MiB"),
        ("share", "above 0, below 1"),
        ("seed", ">= 0, below 2^32"),
        ("mode", "`a`, `b`"),
        ("only", "`a`, or integer"),
        ("dtype", "`x`, `y`"),
        ("name", "text"),  # a pattern that lists no alternatives
        ("words", "list of texts"),
        ("kinds", "list of `a`, `b`"),
        ("shares", "list of 2, each 0 to 1"),
        ("inner", "group"),
        ("inners", "list of groups"),
        ("values", "names with values"),
    ],
)
def test_choices_are_those_of_the_schema(name: str, choices: str) -> None:
    assert describe_choices(name, Example.model_json_schema()["properties"][name]) == choices


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "none"),
        (True, "`true`"),
        ((2, 1, 2), "`[2, 1, 2]`"),
        (1 / 3, "`1/3`"),
        (1e-5, "`1e-5`"),
        (600.0, "`600.0`"),
        ({}, "`{}`"),
        ("auto", "`auto`"),
    ],
)
def test_defaults_are_written_as_in_yaml(value: Any, text: str) -> None:
    assert describe_default(value) == text
