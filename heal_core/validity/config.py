"""The settings of PURE's validity test. What does not belong here: PURE's own (`pure`)."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

VALIDITY_VERSION = 2
"""Raised by hand when the code of the test makes other texts or numbers of the same inputs."""

NUM_SHORTCUT_KINDS = 3
"""Kinds of shortcuts that are built beside each natural text (`shortcuts.SHORTCUTS`)."""


class ValidityConfig(BaseModel):
    """How large the test is. Source: METHOD section 3, validity test (docs/method.md).

    `max_paths` wrong rollouts of each hard training problem give a prefix, at most `max_prefixes` in all. Of each,
    `num_generations` continuations are sampled without a hint; `max_per_prefix` verified ones are the natural texts,
    and as many shortcuts of each kind are built beside them. Intervals rest on `num_resamples` of the problems.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_paths: int = Field(default=4, ge=1)
    max_prefixes: int | None = Field(default=None, ge=1)
    num_generations: int = Field(default=8, ge=1)
    max_per_prefix: int = Field(default=2, ge=1)
    num_resamples: int = Field(default=10_000, ge=100)
