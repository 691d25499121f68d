"""The settings of PURE's validity test. What does not belong here: PURE's own (`pure`)."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

VALIDITY_VERSION = 4
"""Raised by hand when the code of the test makes other texts or numbers of the same inputs."""

NUM_SHORTCUT_KINDS = 3
"""Kinds of shortcuts that are built beside each natural text (`shortcuts.SHORTCUTS`)."""


class ValidityConfig(BaseModel):
    """How large the test is. Source: METHOD section 3, validity test (docs/method.md).

    Prefixes of wrong rollouts are continued without a hint; verified continuations are the natural texts, beside
    which shortcuts are built.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_paths: int = Field(default=4, ge=1)
    """Validity test (`heal validate-pure`, `auto`): wrong rollouts of each hard training problem whose prefix is
    continued.
    """
    max_prefixes: int | None = Field(default=None, ge=1)
    """Most prefixes in all; problems take turns."""
    num_generations: int = Field(default=8, ge=1)
    """Continuations of a prefix without a hint."""
    max_per_prefix: int = Field(default=2, ge=1)
    """Verified ones of them that are used, the natural texts; as many shortcuts of each kind are built."""
    num_resamples: int = Field(default=10_000, ge=100)
    """Resamples of the problems, for intervals."""
