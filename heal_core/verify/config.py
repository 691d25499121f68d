"""Settings of the verifier."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from heal_core.sandbox.config import SandboxConfig


class VerifyConfig(BaseModel):
    """How answers are graded: in worker processes that are killed at a limit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    timeout_seconds: float = Field(default=5.0, gt=0)
    """Longest time on one answer, from when a worker takes it; then it is `unverifiable`, and graded again only under a
    higher limit ([`heal verify`](store.md#verifying-again)).
    """
    num_workers: int = Field(default=2, ge=1)
    """Processes that grade at the same time."""
    max_tasks_per_worker: int = Field(default=2000, ge=1)
    """Answers after which a process is replaced, since sympy's caches grow."""
    max_memory_gib: float = Field(default=4.0, ge=0.5)
    """Address space of one process."""
    code_seconds: float = Field(default=60.0, gt=0)
    """Longest time on all tests of one program, in place of `timeout_seconds`."""
    sandbox: SandboxConfig = SandboxConfig()


DEFAULTS = VerifyConfig()
