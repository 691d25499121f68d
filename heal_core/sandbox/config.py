"""Settings of the sandbox in which model-written code runs."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class SandboxConfig(BaseModel):
    """What a program may use until it is killed.

    Attributes:
        kind: `bubblewrap`, or `none`: no isolation at all, only limits. For a machine that may be lost.
        wall_seconds: Longest time on the clock.
        cpu_seconds: Longest CPU time of one process.
        max_memory_mib: Address space of one process, and resident memory of all of them together.
        max_processes: Processes and threads at a time.
        max_file_mib: Size of one file.
        max_tmp_mib: Size of the only folder that can be written, /tmp; it is memory.
        max_output_kib: What is read of stdout, and of stderr.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["bubblewrap", "none"] = "bubblewrap"
    wall_seconds: float = Field(default=10.0, gt=0)
    cpu_seconds: int = Field(default=10, ge=1)
    max_memory_mib: int = Field(default=1024, ge=64)
    max_processes: int = Field(default=16, ge=4)
    max_file_mib: int = Field(default=16, ge=1)
    max_tmp_mib: int = Field(default=64, ge=1)
    max_output_kib: int = Field(default=1024, ge=1)
