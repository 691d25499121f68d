"""Starting the server of `model_server.py`: each is a fork of one process that has imported torch and transformers."""

from __future__ import annotations

import json
import multiprocessing
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

_FORKS = multiprocessing.get_context("forkserver")
_START_SECONDS = 120


@dataclass(frozen=True)
class TestServer:
    """A running server; `url` is its base URL."""

    __test__ = False
    url: str
    process: ForkServerProcess

    def fail(self, *faults: str, always: str | None = None) -> None:
        """Let the next requests fail so, one each; or all of them."""
        self._call("/faults", {"always": always} if always else list(faults))

    @property
    def seen(self) -> dict[str, Any]:
        """Return what it was asked, and how many answers nobody waited for."""
        seen: dict[str, Any] = self._call("/seen")
        return seen

    def kill(self) -> None:
        """End it at once, whatever it is doing."""
        self.process.kill()
        self.process.join()

    def _call(self, path: str, body: Any = None) -> Any:
        request = urllib.request.Request(
            self.url.removesuffix("/v1") + path, None if body is None else json.dumps(body).encode()
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.load(response)


@contextmanager
def serve(folder: Path, *arguments: str) -> Iterator[TestServer]:
    """Yield a server of the model in a folder."""
    _FORKS.set_forkserver_preload(["tests.model_server"])
    ours, theirs = _FORKS.Pipe()
    process = _FORKS.Process(target=_run, args=([str(folder), *arguments], theirs), daemon=True)
    process.start()
    theirs.close()
    assert ours.poll(_START_SECONDS), "the server of the model did not start"
    server = TestServer(f"http://127.0.0.1:{ours.recv()}/v1", process)
    try:
        yield server
    finally:
        server.kill()


def _run(arguments: Sequence[str], port: Connection) -> None:
    from tests.model_server import main

    main(arguments, port.send)
