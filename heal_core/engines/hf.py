"""The `hf` engine: transformers in a watched child process.

This module is the parent's side and the messages between the two; it imports neither
torch nor transformers. A child that dies or falls silent is killed and reported, and
the next call starts a fresh one. What does not belong here: sampling, scoring,
loading, which run in the child (`worker`).
"""

from __future__ import annotations

import contextlib
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from heal_core import errors
from heal_core.children import child_environment, start_child
from heal_core.engines.base import (
    EngineConfig,
    EngineDescription,
    GenerationRequest,
    GivenText,
    SamplingConfig,
    ScoreRequest,
    ScoreResult,
    UnreadableText,
)
from heal_core.engines.child_log import ChildLog
from heal_core.engines.identity import resolve_folder
from heal_core.engines.loading import check_model_folder
from heal_core.errors import EngineStalledError, HealError, ModelError
from heal_core.records import Completion

_LOADING_SECONDS = 3600.0  # imports and weights, during which the child gives no sign of life
_CANCEL_SECONDS = 10.0
_EXIT_SECONDS = 5.0


@dataclass(frozen=True)
class Call:
    """Parent to child: run an engine method."""

    method: str
    arguments: tuple[Any, ...]


@dataclass(frozen=True)
class Cancel:
    """Parent to child: stop the running call."""


@dataclass(frozen=True)
class Ready:
    """Child to parent: the model is loaded."""

    description: EngineDescription


@dataclass(frozen=True)
class Alive:
    """Child to parent: still working."""


@dataclass(frozen=True)
class Item:
    """Child to parent: one result of the running call."""

    value: Any


@dataclass(frozen=True)
class Done:
    """Child to parent: the call ended."""


@dataclass(frozen=True)
class Failed:
    """Child to parent: the call, or loading, ended with one of HEAL's errors."""

    error: str
    message: str


class HfEngine:
    """An `Engine` (see `engines.base`) that runs transformers in a child process.

    A hub id is fetched and the folder checked at once; the child starts at the first use and stays until `close`.

    Args:
        config: Which model runs where.
        log_path: Gets the child's output; a temporary file by default.

    Raises:
        ModelError: If the model cannot be found, or lacks weights or tokenizer.
    """

    def __init__(self, config: EngineConfig, log_path: Path | None = None) -> None:
        self._folder = resolve_folder(config)
        check_model_folder(self._folder)
        self.config = config
        self._log_path = log_path
        self._log: ChildLog | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection[Any, Any] | None = None
        self._description: EngineDescription | None = None
        self._is_busy = False

    def __enter__(self) -> HfEngine:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def description(self) -> EngineDescription:
        """What the loaded model is; loads it at first use."""
        if self._description is None:
            self._start()
        assert self._description is not None
        return self._description

    def generate(self, requests: Sequence[GenerationRequest], sampling: SamplingConfig) -> Iterator[Completion]:
        """Yield each completion as it finishes; leaving the loop early stops the child's work.

        See `Engine.generate`; a request's own `max_tokens` is the limit.
        """
        return self._call("generate", tuple(requests), sampling)

    def score(self, requests: Sequence[ScoreRequest]) -> Iterator[ScoreResult]:
        """Yield teacher-forced scores; see `Engine.score`."""
        return self._call("score", tuple(requests))

    def read(self, texts: Sequence[GivenText]) -> Iterator[Completion | UnreadableText]:
        """Yield given texts as completions; see `Engine.read`."""
        return self._call("read", tuple(texts))

    def count_prompt_tokens(self, prompts: Sequence[str]) -> list[int]:
        """Return the length of each rendered prompt in tokens."""
        return list(self._call("count_prompt_tokens", tuple(prompts)))

    def close(self) -> None:
        """End the child process; safe to call twice. A later call starts a new one."""
        self._kill()
        if self._log is not None:
            self._log.close()
            self._log = None

    def _call(self, method: str, *arguments: Any) -> Iterator[Any]:
        if self._is_busy:
            raise HealError(f"{method}: the engine is busy with another call; finish or close that first")
        if self._process is None:
            self._start()
        self._is_busy, is_over = True, False
        deadline = time.monotonic() + self.config.call_seconds
        try:
            self._send(Call(method, arguments))
            while not is_over:
                if time.monotonic() > deadline:
                    raise self._stalled(f"was not done with {method} after {self.config.call_seconds:g} s")
                match self._receive(self.config.stall_seconds):
                    case Item(value):
                        yield value
                    case Done():
                        is_over = True
                    case Failed() as failure:
                        is_over = True
                        raise _error(failure)
        finally:
            self._is_busy = False
            if not is_over and self._process is not None:
                self._cancel()

    def _start(self) -> None:
        """Start a child and wait until its model is loaded."""
        ours, theirs = socket.socketpair()
        # without these, a child that stops in the middle of a message would block us for ever
        limit = struct.pack("ll", int(self.config.stall_seconds) + 1, 0)
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            ours.setsockopt(socket.SOL_SOCKET, option, limit)
        if self._log is None:
            self._log = ChildLog(self._log_path)
        with theirs:
            self._process = start_child(
                [sys.executable, "-P", "-m", "heal_core.engines.worker", str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                env=self._environment(),
                stdout=self._log.file,
                stderr=subprocess.STDOUT,
            )
        self._connection = Connection(ours.detach())
        self._send((self.config, self._folder))
        match self._receive(_LOADING_SECONDS):
            case Ready(description):
                self._check_unchanged(description)
            case Failed() as failure:
                self._kill()
                raise _error(failure)

    def _check_unchanged(self, description: EngineDescription) -> None:
        if self._description not in (None, description):
            self._kill()
            raise ModelError(
                f"{self.config.model_name_or_path}: the model changed on disk since this run loaded it; "
                "start the run again"
            )
        self._description = description

    def _environment(self) -> dict[str, str]:
        settings = {
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_OFFLINE": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "TRANSFORMERS_VERBOSITY": "error",
        }
        if self.config.num_threads is not None:
            settings["OMP_NUM_THREADS"] = str(self.config.num_threads)
        return child_environment(**settings)

    def _send(self, message: Any) -> None:
        assert self._connection is not None
        try:
            self._connection.send(message)
        except OSError as error:
            raise self._stalled(f"did not take a message ({error})") from error

    def _receive(self, seconds: float) -> Any:
        """Return the child's next message; kill it where none comes in time."""
        if self._connection is None:
            raise HealError(f"{self.config.model_name_or_path}: the engine was closed during a call")
        try:
            if self._connection.poll(seconds):
                return self._connection.recv()
        except (EOFError, OSError) as error:
            self._await_exit()
            raise self._stalled("died") from error
        raise self._stalled(f"gave no sign of life for {seconds:g} s")

    def _await_exit(self) -> None:
        """Give a child that hung up the time to leave its exit code."""
        assert self._process is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_EXIT_SECONDS)

    def _cancel(self) -> None:
        """Stop the running call and take what it still sends; a child that does not answer is killed."""
        try:
            self._send(Cancel())
            while not isinstance(self._receive(_CANCEL_SECONDS), Done | Failed):
                pass
        except EngineStalledError:
            self._kill()

    def _stalled(self, what: str) -> EngineStalledError:
        exit_code = self._kill()
        return EngineStalledError(
            f"{self.config.model_name_or_path}: the engine's child {what} (exit code {exit_code}); "
            f"the next call starts a fresh one. If it ran out of memory, lower batch_size. "
            f"End of its log:\n{self._log.tail() if self._log else ''}"
        )

    def _kill(self) -> int | None:
        """End the child; return its exit code where it had died by itself."""
        process, connection = self._process, self._connection
        self._process = self._connection = None
        if connection is not None:
            connection.close()
        if process is None:
            return None
        exit_code = process.poll()
        process.kill()
        process.wait()
        return exit_code


def _error(failure: Failed) -> HealError:
    """Return the error that the child met, as the same type."""
    kind = getattr(errors, failure.error, HealError)
    error: HealError = kind(failure.message)
    return error
