"""A program that a model wrote against the tests of its problem: run in the sandbox, judged outside.

What a test expects never comes near the program: what it printed or returned is compared here, or, where a
dataset brings test programs, in a second sandbox that sees only values (`code_checker`). What does not belong
here: the sandbox (`heal_core.sandbox`), taking the program from its text (`code_text`), what is equal
(`code_outputs`), where tests come from (`code_rows`).
"""

from __future__ import annotations

import json
import math
import signal
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from heal_core.errors import SandboxError
from heal_core.records import VerdictLabel
from heal_core.sandbox.config import SandboxConfig
from heal_core.sandbox.run import Sandbox
from heal_core.sandbox.running import Ended, RunningProgram, SandboxResult
from heal_core.verify.code_channel import Channel, Fault, Gone, Late
from heal_core.verify.code_outputs import outputs_equal, values_equal
from heal_core.verify.code_tests import CodeTests
from heal_core.verify.code_values import Handle, decode

_FAULTS = {
    Ended.WALL: "time_limit",
    Ended.CPU: "time_limit",
    Ended.MEMORY: "memory_limit",
    Ended.OUTPUT: "output_limit",
}
_OUTCOMES = {"failed": "failed_test", "raised": "runtime_error", "not_loaded": "runtime_error"}
_SLACK_SECONDS = 5.0  # for what watches over the solution inside the sandbox
_GRACE_SECONDS = 2.0
_START_SECONDS = 60.0

Outcome = tuple[VerdictLabel, str | None]


def read_tests(spec: str) -> CodeTests | None:
    """Return the tests in a problem's spec, None where they cannot be read; not kept, since some are of many MiB."""
    try:
        return CodeTests.model_validate(json.loads(spec))
    except (ValueError, RecursionError):
        return None


def grade_code(code: str | None, tests: CodeTests | None, config: SandboxConfig, code_seconds: float) -> Outcome:
    """Return the outcome of a program: correct when every test passes, else wrong with the first that does not.

    Reasons, with the number of the test from 1: "failed_test: 3", "runtime_error: 3", "time_limit: 3",
    "memory_limit: 3", "output_limit: 3"; "no_code". Unverifiable: "bad_tests" that cannot be read,
    "unsupported_test: 3" that hands the program what is no plain data, "sandbox_failed".

    Args:
        code: The program (`code_text.find_code`).
        tests: The problem's (`read_tests`).
        config: The limits; `wall_seconds` and `cpu_seconds` are those of one test.
        code_seconds: Time for all tests together.
    """
    if tests is None:
        return VerdictLabel.UNVERIFIABLE, "bad_tests"
    if code is None:
        return VerdictLabel.WRONG, "no_code"
    try:
        reason = _Run(tests, code, config, code_seconds).find_fault()
    except SandboxError:
        return VerdictLabel.UNVERIFIABLE, "sandbox_failed"
    if reason is None:
        return VerdictLabel.CORRECT, None
    is_ours = reason.startswith("unsupported_test")
    return VerdictLabel.UNVERIFIABLE if is_ours else VerdictLabel.WRONG, reason


def max_seconds(code_seconds: float) -> float:
    """Return after which time a grading that has not ended is stuck."""
    return code_seconds + 2 * (_START_SECONDS + _SLACK_SECONDS + _GRACE_SECONDS)


@dataclass
class _Run:
    """One program with its tests and limits; `deadline` is known when it has begun."""

    tests: CodeTests
    code: str
    config: SandboxConfig
    code_seconds: float
    deadline: float = math.inf

    def find_fault(self) -> str | None:
        """Return which test does not pass and why, None when all do."""
        if self.tests.programs:
            return self._find_fault_of_programs()
        ours, theirs = socket.socketpair()
        with ours, self._solution(theirs) as solution:
            channel = Channel(ours, self._max_bytes)
            number = 0
            try:
                self._begin(channel)
                if self.tests.calls:
                    self._load(channel)
                for number, fault in enumerate(self._faults(channel), start=1):
                    if fault is not None:
                        return f"{fault}: {number}"
            except Late:
                return f"time_limit: {number + 1}"
            except Gone:
                return f"{solution.find_fault()}: {number + 1}"
            except Fault as fault:
                return f"{fault}: {number + 1}"
        return None

    def _faults(self, channel: Channel) -> Iterator[str | None]:
        for test in self.tests.stdin:
            seconds = self._seconds()
            channel.send({"stdin": test.input, "seconds": seconds, "max_bytes": self._max_output_bytes})
            answer = channel.receive(seconds + _SLACK_SECONDS)
            yield _fault_of_output(answer, test.output)
        for call in self.tests.calls:
            channel.send({"name": self.tests.entry_point, "args": _as_values(call.args)})
            answer = channel.receive(self._seconds())
            yield self._fault_of_value(answer, call.expected)

    def _begin(self, channel: Channel) -> None:
        """Wait until the other side is there, which on a busy machine is no fault of the solution."""
        try:
            channel.receive(_START_SECONDS)
        except Late:
            raise SandboxError(f"what runs the solution did not answer within {_START_SECONDS:g} s") from None
        self.deadline = time.monotonic() + self.code_seconds

    def _load(self, channel: Channel) -> None:
        channel.send({"load": True})
        if "raised" in channel.receive(self._seconds()):
            raise Fault("runtime_error")

    def _fault_of_value(self, answer: Mapping[str, Any], expected: Any) -> str | None:
        if "value" not in answer:
            return "runtime_error"
        try:
            value = decode(answer["value"], Handle)
            is_wrapped = self.tests.is_wrapped and isinstance(expected, list) and len(expected) == 1
            equal = values_equal(value, expected) or (is_wrapped and values_equal(value, expected[0]))
        except (ValueError, RecursionError):
            return "failed_test"
        return None if equal else "failed_test"

    def _find_fault_of_programs(self) -> str | None:
        """Return which test program does not pass; it runs in a sandbox of its own."""
        near, far = socket.socketpair()
        ours, theirs = socket.socketpair()
        given = {
            "programs": self.tests.programs,
            "preamble": self.tests.preamble,
            "entry_point": self.tests.entry_point,
        }
        files = {"tests.json": json.dumps(given).encode()}
        with ours, near, self._solution(far) as solution, self._checker(near, theirs, files):
            channel = Channel(ours, self._max_bytes)
            for number in range(1, len(self.tests.programs) + 1):
                try:
                    if number == 1:
                        self._begin(channel)
                    outcome = channel.receive(self._seconds()).get("outcome")
                except Late:
                    return f"time_limit: {number}"
                except Gone:
                    return f"{solution.find_fault()}: {number}"
                except Fault as fault:
                    return f"{fault}: {number}"
                if outcome != "passed":
                    return f"{_OUTCOMES.get(str(outcome), 'unsupported_test')}: {number}"
        return None

    @contextmanager
    def _solution(self, theirs: socket.socket) -> Iterator[_Program]:
        """Yield the process that runs the solution at the other end of a socket."""
        kind = "programs" if self.tests.stdin else "calls"
        texts = {"preamble.py": self.tests.preamble, "solution.py": self.code}
        files = {name: text.encode(errors="replace") for name, text in texts.items()}
        with theirs, self._start("code_solution", [str(theirs.fileno()), kind], files, [theirs.fileno()]) as program:
            theirs.close()
            yield program

    @contextmanager
    def _checker(self, near: socket.socket, theirs: socket.socket, files: Mapping[str, bytes]) -> Iterator[_Program]:
        fds = [near.fileno(), theirs.fileno()]
        with theirs, self._start("code_checker", list(map(str, fds)), files, fds) as program:
            theirs.close()
            near.close()  # so that each side sees when the other is gone
            yield program

    @contextmanager
    def _start(
        self, script: str, arguments: Sequence[str], files: Mapping[str, bytes], fds: Sequence[int]
    ) -> Iterator[_Program]:
        sources = {
            f"{name}.py": Path(__file__).with_name(f"{name}.py").read_bytes() for name in (script, "code_values")
        }
        sandbox = Sandbox(self._limits())
        # no -E: the hashes of texts, and so the order of sets, are fixed by the environment
        command = [sandbox.python, "-S", "-s", f"{script}.py", *arguments]
        with sandbox.start(command, files={**sources, **files}, pass_fds=fds) as running, _Program(running) as program:
            yield program

    def _limits(self) -> SandboxConfig:
        """Return the limits of a process that runs all tests."""
        largest = max((len(test.input) * 4 for test in self.tests.stdin), default=0)
        file_mib = max(self.config.max_file_mib, math.ceil(largest / 2**20))
        changes: dict[str, Any] = {
            "wall_seconds": self.code_seconds + _SLACK_SECONDS,
            "max_file_mib": file_mib,
            "max_tmp_mib": self.config.max_tmp_mib + file_mib,
        }
        if not self.tests.stdin:  # where each test has a process of its own
            changes["cpu_seconds"] = math.ceil(self.code_seconds)
        return self.config.model_copy(update=changes)

    def _seconds(self) -> float:
        """Return how long the next test may take."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise Late
        return min(left, self.config.wall_seconds)

    @cached_property
    def _max_output_bytes(self) -> int:
        """How much a program may print: the limit, or what a test expects and half as much again."""
        longest = max((len(test.output.encode()) for test in self.tests.stdin), default=0)
        return max(self.config.max_output_kib * 1024, longest * 3 // 2)

    @property
    def _max_bytes(self) -> int:
        return self._max_output_bytes * 8  # as JSON, and with what stderr said


class _Program:
    """A process in the sandbox whose limits act in a thread of their own."""

    def __init__(self, running: RunningProgram) -> None:
        """Begin to wait for it."""
        self._running = running
        self._executor = ThreadPoolExecutor(max_workers=1)
        self._future: Future[SandboxResult] = self._executor.submit(running.wait)

    def __enter__(self) -> _Program:
        return self

    def __exit__(self, *exception: object) -> None:
        self._running.stop()
        self._executor.shutdown()
        if exception[0] is None and not self._future.cancelled():
            self._future.result()  # raises when the sandbox could not be set up

    def find_fault(self) -> str:
        """Return why it is gone."""
        try:
            result = self._future.result(_GRACE_SECONDS)
        except TimeoutError:  # it only closed its end
            return "runtime_error"
        return _FAULTS.get(result.ended, "runtime_error")


def _fault_of_output(answer: Mapping[str, Any], expected: str) -> str | None:
    if answer.get("ended") == "late" or answer.get("exit_code") == -signal.SIGXCPU:
        return "time_limit"
    if answer.get("ended") == "large":
        return "output_limit"
    if answer.get("exit_code") != 0:
        last = str(answer.get("stderr", "")).strip().rpartition("\n")[2]
        return "memory_limit" if last.startswith("MemoryError") else "runtime_error"
    return None if outputs_equal(str(answer.get("stdout", "")), expected) else "failed_test"


def _as_values(args: Sequence[Any]) -> list[Any]:
    """Return JSON values as `code_values` writes them."""
    return [_as_value(value) for value in args]


def _as_value(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {"dict": [[key, _as_value(item)] for key, item in value.items()]}
    if isinstance(value, (list, tuple)):
        return [_as_value(item) for item in value]
    return value
