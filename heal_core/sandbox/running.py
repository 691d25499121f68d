"""A program in its sandbox: wait for it, read what it says with a bound, and see that nothing of it is left.

What does not belong here: starting it (`run`).
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType

from heal_core.errors import SandboxError
from heal_core.sandbox.bubblewrap import FOLDER
from heal_core.sandbox.config import SandboxConfig
from heal_core.sandbox.processes import tree_memory_bytes

_LOOK_SECONDS = 0.05
_START_SECONDS = 60.0
_CHUNK_BYTES = 2**16


class Ended(StrEnum):
    """How a program ended: by itself, or by which limit it was killed."""

    EXITED = "exited"
    WALL = "wall_limit"
    CPU = "cpu_limit"
    MEMORY = "memory_limit"
    OUTPUT = "output_limit"
    STOPPED = "stopped"  # by who started it


@dataclass(frozen=True)
class SandboxResult:
    """What a program did.

    Attributes:
        ended: How it ended.
        exit_code: 128 + n after signal n, as a shell has it; None unless it ended by itself.
        stdout: What it wrote, up to the limit; and so `stderr`.
        seconds: From the start of the command to the death of its last process.
    """

    ended: Ended
    exit_code: int | None
    stdout: bytes
    stderr: bytes
    seconds: float


@dataclass(frozen=True)
class Pipes:
    """Descriptors of a program that was started: its `stdout` and `stderr`, and what follows.

    Attributes:
        started: Gives one byte when the limits are set.
        go: Takes one byte, upon which the command begins.
        info: Gives what bubblewrap says of itself; None without it.
    """

    stdout: int
    stderr: int
    started: int
    go: int
    info: int | None


class RunningProgram:
    """A program that runs: `wait` for it; leaving the context ends it."""

    def __init__(
        self, config: SandboxConfig, process: subprocess.Popen[bytes], pipes: Pipes, resources: ExitStack
    ) -> None:
        """Take over a process that was just started: bubblewrap, or the program where there is none.

        `resources` are closed when it has ended.
        """
        self._config = config
        self._process = process
        self._pipes = pipes
        self._outputs = {pipes.stdout: bytearray(), pipes.stderr: bytearray()}
        self._resources = resources
        self._is_stopped = False
        self._began_at: float | None = None
        self._first_id = (None if pipes.info is None else _read_first_process(pipes.info)) or process.pid
        self._watched = [_open_process(pid, resources) for pid in (process.pid, self._first_id)]

    def __enter__(self) -> RunningProgram:
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end()
        self._resources.close()

    def stop(self) -> None:
        """End it, from another thread than the one that waits."""
        self._is_stopped = True
        self._process.kill()

    def wait(self) -> SandboxResult:
        """Return how it ended, once every process of it is dead.

        Raises:
            SandboxError: If the sandbox could not be set up; the command did not start then.
        """
        begun_before = time.monotonic()
        ended = self._watch(begun_before + _START_SECONDS)
        self._end()
        if self._began_at is None and not self._is_stopped:
            said = bytes(self._read_rest(self._pipes.stderr)).decode(errors="replace").strip()
            raise SandboxError(
                f"the sandbox could not be set up: {said or 'it said nothing'} (exit code {self._process.returncode}). "
                "See docs/sandbox.md"
            )
        seconds = time.monotonic() - (self._began_at or begun_before)
        stdout, stderr = (bytes(self._read_rest(fd)) for fd in (self._pipes.stdout, self._pipes.stderr))
        if ended is Ended.EXITED and max(map(len, self._outputs.values())) > self._max_output_bytes:
            ended = Ended.OUTPUT
        exit_code = self._process.returncode
        exit_code = 128 - exit_code if exit_code < 0 else exit_code
        if self._is_stopped and ended is Ended.EXITED:
            ended = Ended.STOPPED
        elif ended is Ended.EXITED and exit_code == 128 + signal.SIGXCPU:
            ended = Ended.CPU
        bound = self._max_output_bytes
        return SandboxResult(
            ended, exit_code if ended is Ended.EXITED else None, stdout[:bound], stderr[:bound], seconds
        )

    @property
    def _max_output_bytes(self) -> int:
        return self._config.max_output_kib * 1024

    def _watch(self, deadline: float) -> Ended:
        """Return when the program has ended by itself, or why it has to."""
        poll = select.poll()
        for fd in (self._pipes.started, *self._outputs):
            poll.register(fd, select.POLLIN)
        is_over, _ = self._watched
        if is_over is not None:
            poll.register(is_over, select.POLLIN)
        look_at = time.monotonic() + _LOOK_SECONDS
        while self._process.poll() is None:
            now = time.monotonic()
            if now >= deadline:
                return Ended.WALL
            for fd, _ in poll.poll(max(min(deadline, look_at) - now, 0) * 1000):
                if fd == self._pipes.started:
                    poll.unregister(fd)
                    if os.read(fd, 1):
                        self._began_at = time.monotonic()
                        deadline = self._began_at + self._config.wall_seconds
                        with suppress(BrokenPipeError):  # it was killed meanwhile
                            os.write(self._pipes.go, b"1")
                elif fd in self._outputs:
                    chunk = os.read(fd, _CHUNK_BYTES)
                    self._outputs[fd] += chunk
                    if len(self._outputs[fd]) > self._max_output_bytes:
                        return Ended.OUTPUT
                    if not chunk:
                        poll.unregister(fd)
                elif fd == is_over:
                    poll.unregister(fd)
            if time.monotonic() >= look_at:
                folder = FOLDER if self._config.kind == "bubblewrap" else None
                if tree_memory_bytes(self._first_id, folder) > self._config.max_memory_mib * 2**20:
                    return Ended.MEMORY
                look_at = time.monotonic() + _LOOK_SECONDS
        return Ended.EXITED

    def _end(self) -> None:
        """Kill what is left, and return when it is dead."""
        if self._config.kind == "none":
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()
        for fd in self._watched:
            if fd is not None:
                # the first process in there ends after all others of its namespace
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(fd, signal.SIGKILL)
                _is_ready(fd)
        self._process.wait()

    def _read_rest(self, fd: int) -> bytearray:
        """Return all output, up to a little more than the limit; no writer is left."""
        while len(self._outputs[fd]) <= self._max_output_bytes and (chunk := os.read(fd, _CHUNK_BYTES)):
            self._outputs[fd] += chunk
        return self._outputs[fd]


def _is_ready(fd: int, seconds: float | None = None) -> bool:
    """Return whether there is something to read, or an end; without `seconds` wait until there is."""
    poll = select.poll()  # `select.select` knows no descriptor above 1,023
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(None if seconds is None else seconds * 1000))


def _read_first_process(info: int) -> int | None:
    """Return the id of the sandbox's first process; None when bubblewrap ended before there was one."""
    deadline = time.monotonic() + _START_SECONDS
    text = b""
    while _is_ready(info, max(deadline - time.monotonic(), 0)) and (chunk := os.read(info, 4096)):
        text += chunk
    try:
        return int(json.loads(text)["child-pid"])
    except ValueError:
        return None


def _open_process(process_id: int, resources: ExitStack) -> int | None:
    """Return a descriptor that is readable once a process is dead; None if it is already."""
    try:
        fd = os.pidfd_open(process_id)
    except ProcessLookupError:
        return None
    resources.callback(os.close, fd)
    return fd
