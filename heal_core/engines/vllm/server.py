"""One running `vllm serve`: started under a guard, watched, ended.

It listens on a unix domain socket in a folder of its own: no port can be taken by another, and no other user of the
machine can ask it. What does not belong here: how it is called (`command`), and asking it (`remote`).
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import httpx

from heal_core.children import start_child
from heal_core.engines.child_log import ChildLog
from heal_core.engines.vllm import guard
from heal_core.errors import EngineStalledError, ModelError

_POLL_SECONDS = 0.2
_EXIT_SECONDS = 20.0  # the guard's grace, and some


class VllmServer:
    """A `vllm serve` that was just started.

    Args:
        command: Returns the whole command, given where the server is to listen.
        environment: Its environment.
        name: What it is called in messages.
        log_path: Gets its output; a temporary file by default.
    """

    def __init__(
        self,
        command: Callable[[Path], Sequence[str]],
        environment: Mapping[str, str],
        name: str,
        log_path: Path | None,
    ) -> None:
        self._name = name
        # not in the workspace: a socket's path has at most 107 characters
        self._folder = Path(tempfile.mkdtemp(prefix="heal-vllm-"))
        self.socket = self._folder / "socket"
        self._log = ChildLog(log_path)
        self._process: subprocess.Popen[bytes] | None = start_child(
            [sys.executable, "-P", guard.__file__, str(self._folder), *command(self.socket)],
            env=environment,
            stdout=self._log.file,
            stderr=subprocess.STDOUT,
            own_session=True,  # what Ctrl-C means is for HEAL to decide
            death_signal=signal.SIGTERM,
        )

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def await_ready(self, deadline: float) -> None:
        """Wait until it answers, at most until `deadline` on the monotonic clock.

        Raises:
            ModelError: If it ended, as it does with a setting or a model that it cannot serve.
            EngineStalledError: If it took too long.
        """
        transport = httpx.HTTPTransport(uds=str(self.socket))
        with httpx.Client(transport=transport, timeout=10.0) as client:
            while not _answers(client):
                if not self.is_running:
                    raise ModelError(f"{self._name}: vLLM could not serve it. {self._ended()}")
                if time.monotonic() > deadline:
                    raise EngineStalledError(
                        f"{self._name}: vLLM was not ready in time; where loading takes so long, raise "
                        f"launch.start_seconds. End of its log:\n{self._log.tail()}"
                    )
                time.sleep(_POLL_SECONDS)

    def check(self) -> None:
        """Check that it runs.

        Raises:
            EngineStalledError: If it has ended.
        """
        if not self.is_running:
            raise EngineStalledError(
                f"{self._name}: its vLLM server died; the next call starts a fresh one. If it ran out of memory, lower "
                f"launch.max_concurrency, or give it less by launch.args. {self._ended()}"
            )

    def ask_to_end(self) -> None:
        """Have it end, without waiting until it has."""
        if self._process is not None:
            self._process.terminate()

    def close(self) -> None:
        """End it and all that it started; safe to call twice."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(_EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._log.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _ended(self) -> str:
        code = None if self._process is None else self._process.poll()
        return f"Exit code {code}, end of its log:\n{self._log.tail()}"


def _answers(client: httpx.Client) -> bool:
    """Return whether a server is up; while it loads there is no socket, or nobody behind it."""
    try:
        return client.get("http://vllm/health").status_code == 200
    except httpx.HTTPError:
        return False
