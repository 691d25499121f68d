"""The engine's child process: `python -m heal_core.engines.worker FD`.

It loads the model, then serves one call at a time over the socket FD. Signs of life
come from the working loop itself, never from a thread that would hide a hang. An
error that is not HEAL's own ends the process; its traceback is in the log, and the
parent reports it. What does not belong here: watching over this process (`hf`).
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any

from heal_core.engines.base import EngineConfig, ScoreRequest, ScoreResult
from heal_core.engines.hf import Alive, Call, Done, Failed, Item, Ready
from heal_core.engines.loading import LoadedModel, load
from heal_core.errors import HealError

_BEAT_SECONDS = 0.5


class _CancelledError(Exception):
    """The parent does not want the rest of this call."""


class _Pulse:
    """Tells the parent, now and then, that work goes on; stops the work where the parent cancelled it."""

    def __init__(self, connection: Connection[Any, Any]) -> None:
        self._connection = connection
        self._last_seconds = time.monotonic()

    def __call__(self) -> None:
        now = time.monotonic()
        if now - self._last_seconds < _BEAT_SECONDS:
            return
        self._last_seconds = now
        self._connection.send(Alive())
        if self._connection.poll():
            raise _CancelledError


def main(arguments: list[str]) -> int:
    """Return 0 when the parent hung up, 1 when the model could not be loaded."""
    # Ctrl-C reaches the whole process group: what it means is for the parent to decide
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection: Connection[Any, Any] = Connection(int(arguments[0]))
    config, folder = connection.recv()
    try:
        loaded = load(config, folder)
    except HealError as error:
        connection.send(Failed(type(error).__name__, str(error)))
        return 1
    connection.send(Ready(loaded.description))
    while True:
        try:
            message = connection.recv()
        except EOFError:
            return 0
        if isinstance(message, Call):  # else a cancellation that came after the end of its call
            connection.send(_serve(loaded, config, message, connection))


def _serve(loaded: LoadedModel, config: EngineConfig, call: Call, connection: Connection[Any, Any]) -> Done | Failed:
    """Send the results of one call; return how it ended."""
    pulse = _Pulse(connection)
    try:
        for value in _results(loaded, config, call, pulse):
            connection.send(Item(value))
    except _CancelledError:
        return Done()
    except HealError as error:
        return Failed(type(error).__name__, str(error))
    return Done()


def _results(loaded: LoadedModel, config: EngineConfig, call: Call, pulse: _Pulse) -> Iterator[Any]:
    from heal_core.engines.reading import read
    from heal_core.engines.sampling import generate
    from heal_core.engines.scoring import score

    match call.method:
        case "generate":
            requests, sampling = call.arguments
            yield from generate(loaded, requests, sampling, config.batch_size, pulse)
        case "score":
            yield from score(loaded, call.arguments[0], pulse, config.score_tokens)
        case "read":

            def read_tokens(requests: Sequence[ScoreRequest]) -> Iterator[ScoreResult]:
                return score(loaded, requests, pulse, config.score_tokens)

            yield from read(loaded, call.arguments[0], read_tokens, pulse)
        case "count_prompt_tokens":
            for prompt in call.arguments[0]:
                pulse()
                yield len(loaded.prompt_ids(prompt))
        case unknown:
            raise HealError(f"the engine's child knows no call {unknown!r}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
