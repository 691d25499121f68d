"""The server of `heal view`: a socket of this machine alone, until it is told to end.

What does not belong here: what is answered (`app`), and the command (`flows.cli.view`).
"""

from __future__ import annotations

import socket
from contextlib import suppress
from types import FrameType
from urllib.parse import urlencode

import uvicorn

from heal_core.errors import InputError
from heal_core.store.workspace import Workspace
from heal_core.view.app import make_app
from heal_core.view.gate import TOKEN, Keys
from heal_core.view.live import LiveRun
from heal_core.view.search import Searches

HOST = "127.0.0.1"
MAX_HEAD_BYTES = 1_000_000
"""Of a request; a query of SQL stands in its first line."""
_SECONDS_TO_END = 2


class ViewServer:
    """A server whose port is taken; it answers once `run` is called."""

    def __init__(self, workspace: Workspace, run: str, port: int) -> None:
        """Take the port.

        Args:
            workspace: Whose store is shown.
            run: The run that is shown first: the beginning of its id, `last` or `previous`.
            port: On loopback; 0 takes a free one.

        Raises:
            InputError: If it cannot be had.
        """
        try:
            self._socket = socket.create_server((HOST, port), backlog=128)
        except (OSError, OverflowError) as error:
            why = error.strerror if isinstance(error, OSError) else "there is no such port"
            raise InputError(
                f"port {port} cannot be had: {why}. Another --port may be free; 0 takes any that is."
            ) from error
        self._keys = Keys()
        self._searches = Searches(workspace)
        self._app = make_app(LiveRun(workspace, run), self._searches, self.port, self._keys)

    @property
    def port(self) -> int:
        """Return the port that was taken."""
        return int(self._socket.getsockname()[1])

    @property
    def address(self) -> str:
        """Return the address that lets a browser in."""
        return self._address(self._keys.token)

    def issue_address(self) -> str:
        """Return an address that lets a browser in once."""
        return self._address(self._keys.issue_ticket())

    def run(self) -> None:
        """Answer until Ctrl-C or SIGTERM; a query that runs is given up then."""
        config = uvicorn.Config(
            self._app,
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            h11_max_incomplete_event_size=MAX_HEAD_BYTES,
            timeout_graceful_shutdown=_SECONDS_TO_END,
        )
        with self._socket, suppress(KeyboardInterrupt):
            _Server(config, self._searches).run(sockets=[self._socket])

    def _address(self, key: str) -> str:
        return f"http://{HOST}:{self.port}/?{urlencode({TOKEN: key})}"


class _Server(uvicorn.Server):
    """Gives up the query that runs when it is asked to end."""

    def __init__(self, config: uvicorn.Config, searches: Searches) -> None:
        super().__init__(config)
        self._searches = searches

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._searches.end()
        super().handle_exit(sig, frame)
