"""What a check of `heal doctor` says: a finding with its remedy.

A new check stands in the module of what it looks at (environment, workspace, models, memory,
problems, engine) and gets its line in `checkup`. What does not belong here: how findings are
shown (`flows.cli.doctor`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warn", "fail"]

GIB = 2**30


@dataclass(frozen=True)
class Finding:
    """What one check found; `remedy` is a command or an edit, and empty only where all is well."""

    check: str
    state: State
    found: str
    remedy: str = ""

    def __post_init__(self) -> None:
        assert (self.state == "ok") == (not self.remedy), self


def describe_size(num_bytes: float) -> str:
    """Return a size as a person reads it."""
    return f"{num_bytes / GIB:,.1f} GiB" if num_bytes >= GIB / 10 else f"{num_bytes / 2**20:,.1f} MiB"
