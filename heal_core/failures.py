"""What happens when work fails: which errors are tried again, which cost a problem, and how much a run may lose.

A shard that failed is done again problem by problem; one that fails alone, while the engine is
seen to work, goes to the quarantine and is out of the run from there on. What does not belong here: running
shards (`tasks.shards`), noting what is out (`tasks.quarantine`).
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from heal_core.errors import (
    ConfigError,
    InputError,
    LimitReachedError,
    ModelError,
    RequestError,
    SandboxError,
    StoreError,
    TooManyFailuresError,
    TrainingError,
    TransientError,
)

_DELAY_FACTOR = 4.0
_MAX_DELAY_SECONDS = 600.0
_NOT_OF_A_PROBLEM = (
    ConfigError, InputError, LimitReachedError, ModelError, SandboxError, StoreError, TooManyFailuresError,
    TrainingError,
)  # fmt: skip


class FailuresConfig(BaseModel):
    """How often a shard is tried, and which share of a run's problems may fail before the run does."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_retries: int = Field(default=3, ge=0, le=10)
    """Further tries of a shard, where the error may pass."""
    retry_delay_seconds: float = Field(default=5.0, ge=0, le=600)
    """First pause; each further one is 4 times as long, up to 10 minutes, with a jitter of half its length."""
    max_quarantined_share: float = Field(default=0.05, ge=0, le=1)
    """Share of the problems that may fail, at least one, before the run does."""

    def delays_seconds(self) -> list[float]:
        """Return the pause before each retry, growing exponentially."""
        return [
            min(self.retry_delay_seconds * _DELAY_FACTOR**index, _MAX_DELAY_SECONDS)
            for index in range(self.max_retries)
        ]

    def max_quarantined(self, num_problems: int) -> int:
        """Return how many of a run's problems may fail; where any may, at least one."""
        return max(int(self.max_quarantined_share * num_problems), int(self.max_quarantined_share > 0))


def may_pass(error: BaseException) -> bool:
    """Return whether the same work may succeed when it is tried again: never for a user's mistake."""
    return isinstance(error, TransientError)


def may_be_of_a_problem(error: BaseException) -> bool:
    """Return whether the problems of a shard that failed so are worth trying one by one."""
    return isinstance(error, RequestError) or (
        isinstance(error, Exception) and not isinstance(error, _NOT_OF_A_PROBLEM)
    )
