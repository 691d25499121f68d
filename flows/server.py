"""A Prefect server for one run, where the environment names no other.

Prefect would start one by itself, but leaves it behind when the run is killed, and loses
it to Ctrl-C before the end of the run could be noted. What does not belong here: a
server that outlives a run (`prefect server start`).
"""

from __future__ import annotations

import atexit
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

from flows import layout
from heal_core.children import child_environment, start_child

_OF_THE_SERVER = {
    "PREFECT__SERVER_EPHEMERAL": "1",
    "PREFECT__SERVER_FINAL": "1",
    "PREFECT_UI_ENABLED": "0",
    "PREFECT_API_BLOCKS_REGISTER_ON_START": "0",  # kinds of saved settings, which no run uses; it takes a second
    # nobody reads the events of a server that ends with its run, and nothing is triggered by them
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_ENABLED": "0",
    "PREFECT_SERVER_SERVICES_TRIGGERS_ENABLED": "0",
}
_NAMES_A_SERVER = ("PREFECT_API_URL", "PREFECT_PROFILE", "PREFECT_HOME")


def is_named() -> bool:
    """Return whether the environment names a server, or a place whose profile may name one."""
    return any(name in os.environ for name in _NAMES_A_SERVER)


def start_server(log_path: Path) -> None:
    """Start a server that ends with this process, and set `PREFECT_API_URL` to it.

    To be called before Prefect is imported.
    """
    server, os.environ["PREFECT_API_URL"] = launch(log_path)
    atexit.register(server.kill)


def launch(log_path: Path, **settings: str) -> tuple[subprocess.Popen[bytes], str]:
    """Return a server that ends with this process at the latest, and its address.

    It listens at once, so that the first request waits while it still starts.

    Args:
        log_path: Where its output is added.
        settings: What it finds in its environment besides ours; `PREFECT_HOME` has to be in one of them.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener, log_path.open("ab") as log:
        server = start_child(
            [sys.executable, "-m", "flows.server", str(listener.fileno())],
            pass_fds=(listener.fileno(),),
            env=child_environment(**_OF_THE_SERVER, **settings),
            stdout=log,
            stderr=log,
        )
        return server, f"http://127.0.0.1:{listener.getsockname()[1]}/api"


def main(arguments: list[str]) -> None:
    """Serve on the socket with the given file descriptor until killed."""
    # both reach the whole process group: the run decides when its server may go
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    layout.prepare(Path(os.environ["PREFECT_HOME"]))
    import uvicorn

    config = uvicorn.Config("prefect.server.api.server:create_app", factory=True, log_level="error", lifespan="on")
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=int(arguments[0]))])


if __name__ == "__main__":
    main(sys.argv[1:])
