"""Settings of the sandbox in which model-written code runs."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class SandboxConfig(BaseModel):
    """What a program may use until it is killed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["bubblewrap", "none"] = "bubblewrap"
    """Where programs run ([sandbox.md](sandbox.md)); `none` is no isolation at all, only limits
    (`--unsafe-no-sandbox`): for a machine that may be lost.
    """
    wall_seconds: float = Field(default=10.0, gt=0)
    """Longest time of one test on the clock."""
    cpu_seconds: int = Field(default=10, ge=1)
    """Longest CPU time of one process; of one that answers all tests, `code_seconds`."""
    max_memory_mib: int = Field(default=1024, ge=64)
    """Address space of a process, and resident memory of all of a program together."""
    max_processes: int = Field(default=16, ge=4)
    """Processes and threads at a time."""
    max_file_mib: int = Field(default=16, ge=1)
    """Size of a file."""
    max_tmp_mib: int = Field(default=64, ge=1)
    """Size of `/tmp`, the only folder that it can write; it is memory."""
    max_output_kib: int = Field(default=1024, ge=1)
    """What is read of a program's stdout, and of its stderr."""
