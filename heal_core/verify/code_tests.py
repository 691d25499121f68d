"""The tests of a code problem, as they are stored in its spec.

What does not belong here: reading them from rows (`code_rows`), running them (`code`).
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, model_validator

_FROZEN = ConfigDict(frozen=True, extra="forbid")


class StdinTest(BaseModel):
    """What a program prints for an input."""

    model_config = _FROZEN

    input: str
    output: str


class CallTest(BaseModel):
    """What a function returns for its arguments, as JSON values."""

    model_config = _FROZEN

    args: tuple[Any, ...]
    expected: Any


class CodeTests(BaseModel):
    """The tests of a problem, of one of three kinds.

    Attributes:
        reference: Whether the problem's answer is a solution, or what the tests expect.
        stdin: The solution is a program that reads and prints.
        calls: It has the function `entry_point`, alone or in a class Solution, that returns values.
        programs: Test programs that call `entry_point`, in order; each passes when it ends without an exception.
        entry_point: The function's name.
        is_wrapped: An expected value may stand in a list of its own, as APPS has it.
        preamble: What stands before a solution and before a test program: imports, functions that the problem gives.
    """

    model_config = _FROZEN

    reference: Literal["solution", "outputs"] = "solution"
    stdin: tuple[StdinTest, ...] = ()
    calls: tuple[CallTest, ...] = ()
    programs: tuple[str, ...] = ()
    entry_point: str = ""
    is_wrapped: bool = False
    preamble: str = ""

    @model_validator(mode="after")
    def _check_kind(self) -> CodeTests:
        kinds = [name for name in ("stdin", "calls", "programs") if getattr(self, name)]
        if len(kinds) != 1:
            raise ValueError(
                f"expected tests of one kind (stdin, calls, programs), found {' and '.join(kinds) or 'none'}"
            )
        if (self.calls or self.programs) and not self.entry_point.isidentifier():
            raise ValueError(f"entry_point: expected the name of a function, found {self.entry_point!r}")
        return self
