"""Prefect's server and worker as child processes that are started, watched and stopped.

What does not belong here: what is deployed, and what becomes of flow runs.
"""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from deployments.api import PrefectApi
from flows.layout import copy_kept
from heal_core.children import child_environment, start_child
from heal_core.errors import ConfigError, HealError

_SETTLED_SECONDS = 30.0
_MAX_DELAY_SECONDS = 60.0
_STARTUP_SECONDS = 180.0
_NAMES_ANOTHER_SERVER = ("PREFECT_API_KEY", "PREFECT_PROFILE", "PREFECT_SERVER_API_HOST", "PREFECT_SERVER_API_PORT")


class ServerError(HealError, RuntimeError):
    """Prefect's server, or a command to it, did not do what it was started for."""


class Child:
    """A command of Prefect that runs until it is stopped, and is started again if it ends by itself."""

    def __init__(self, name: str, arguments: Sequence[str], log_path: Path) -> None:
        self.name = name
        self.log_path = log_path
        self._command = [sys.executable, "-m", "prefect", "--no-prompt", *arguments]
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._num_early_ends = 0

    def start(self) -> None:
        """Start it; its output is added to the log."""
        with self.log_path.open("ab") as log:
            self._process = start_child(
                self._command,
                env=child_environment(),
                stdout=log,
                stderr=log,
                own_session=True,  # Ctrl-C is ours to answer: the server must outlive the runs
            )
        self._started = time.monotonic()

    @property
    def exit_code(self) -> int | None:
        """How it ended; None while it runs."""
        return None if self._process is None else self._process.poll()

    def restart_if_ended(self) -> str | None:
        """Start it again if it has ended, and return how; one that keeps ending is started less and less often."""
        exit_code, lived_seconds = self.exit_code, time.monotonic() - self._started
        if exit_code is None:
            if lived_seconds > _SETTLED_SECONDS:
                self._num_early_ends = 0
            return None
        if lived_seconds < min(2.0**self._num_early_ends, _MAX_DELAY_SECONDS):
            return None
        self._num_early_ends += 1
        self.start()
        return f"{self.name} ended with exit code {exit_code} and was started again; see {self.log_path}"

    def stop(self, seconds: float) -> None:
        """Ask it to end, and kill it if it has not after so long."""
        if self._process is None or self.exit_code is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def use_server(home: Path, port: int) -> str:
    """Set this process's environment, which children inherit, to a server of our own; return its address."""
    for name in _NAMES_ANOTHER_SERVER:
        os.environ.pop(name, None)
    address = f"http://127.0.0.1:{port}"
    os.environ.update(
        {
            "PREFECT_HOME": str(home),
            "PREFECT_API_URL": f"{address}/api",
            **_without_proxy("NO_PROXY"),
            **_without_proxy("no_proxy"),
            "DO_NOT_TRACK": "1",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        }
    )
    # kept in memory, the slots of a concurrency limit are forgotten when the server restarts: a run
    # that holds one is ended, and a slot whose run was killed is never free again
    os.environ.setdefault(
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE", "prefect.server.concurrency.lease_storage.filesystem"
    )
    os.environ.setdefault("PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED", "events,flow_runs")  # those of 90 days ago
    os.environ.setdefault("PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT", "false")
    return address


def _without_proxy(name: str) -> dict[str, str]:
    """Return the variable, of which there are two spellings, with our address added."""
    return {name: ",".join(filter(None, [os.environ.get(name), "127.0.0.1"]))}


def new_server(home: Path, port: int) -> Child:
    """Return the server, not yet started; a new home gets a copy of an empty database, if one is kept."""
    logs = home / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    copy_kept(home)
    return Child("server", ["server", "start", "--host", "127.0.0.1", "--port", str(port)], logs / "server.log")


def wait_until_healthy(server: Child, api: PrefectApi) -> None:
    """Return when the server answers.

    Raises:
        ServerError: If it ends before, or does not answer in some minutes.
    """
    deadline = time.monotonic() + _STARTUP_SECONDS
    while not api.is_healthy():
        if server.exit_code is not None:
            raise ServerError(
                f"Prefect's server ended with exit code {server.exit_code}:\n{last_lines(server.log_path)}"
            )
        if time.monotonic() > deadline:
            raise ServerError(f"Prefect's server does not answer after {_STARTUP_SECONDS:.0f} s; see {server.log_path}")
        time.sleep(0.2)


@contextmanager
def only_one(home: Path, port: int) -> Iterator[None]:
    """Hold `home` and check the port.

    Raises:
        ConfigError: If another process holds `home`, or something listens on the port.
    """
    home.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(home / "in-use", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(descriptor, 64, 0).decode(errors="replace").split() or ["unknown", "unknown"]
            raise ConfigError(
                f"a server already runs with {home}: process {holder[0]}, http://127.0.0.1:{holder[-1]}. "
                "Stop it with Ctrl-C or `kill`, or set HEAL_PREFECT_HOME and HEAL_PORT for a second one."
            ) from error
        _check_free(port)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()} {port}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _check_free(port: int, seconds: float = 5) -> None:
    """Wait a little for the server of a predecessor that was killed a moment ago."""
    deadline = time.monotonic() + seconds
    while True:
        with closing(socket.socket()) as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return
        if time.monotonic() > deadline:
            raise ConfigError(
                f"port {port} of 127.0.0.1 is taken, perhaps by another Prefect server. "
                f"Choose another one: HEAL_PORT={port + 100} make deploy-local"
            )
        time.sleep(0.2)


def run_prefect(arguments: Sequence[str], log_path: Path, folder: Path) -> None:
    """Run a command of Prefect in `folder` to its end.

    Raises:
        ServerError: If it fails; with what it said last.
    """
    with log_path.open("wb") as log:
        command = [sys.executable, "-m", "prefect", "--no-prompt", *arguments]
        done = subprocess.run(command, cwd=folder, env=child_environment(), stdout=log, stderr=subprocess.STDOUT)
    if done.returncode != 0:
        raise ServerError(f"`prefect {' '.join(arguments)}` failed:\n{last_lines(log_path)}")


def last_lines(path: Path, num: int = 20) -> str:
    return "\n".join(path.read_text(errors="replace").splitlines()[-num:])
