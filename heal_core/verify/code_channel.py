"""Messages with a process in the sandbox: lines of JSON over a socket whose other side is not trusted.

What does not belong here: what is said (`code`), what a value looks like (`code_values`).
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Mapping
from typing import Any

SEND_SECONDS = 60.0


class Fault(Exception):
    """Why a test did not pass."""


class Late(Fault):
    """The other side took too long."""


class Gone(Fault):
    """The other side closed its end."""


class Channel:
    """Lines of JSON over a socket whose other side is not trusted."""

    def __init__(self, connection: socket.socket, max_bytes: int) -> None:
        """Take over our end."""
        self._connection = connection
        self._max_bytes = max_bytes
        self._rest = bytearray()

    def send(self, message: Mapping[str, Any]) -> None:
        """Write a line.

        Raises:
            Fault: If the other side does not take it.
        """
        self._connection.settimeout(SEND_SECONDS)
        try:
            self._connection.sendall(json.dumps(message).encode() + b"\n")
        except TimeoutError:
            raise Late from None
        except OSError:
            raise Gone from None

    def receive(self, seconds: float) -> dict[str, Any]:
        """Return the next line.

        Raises:
            Fault: If none comes in time, or it is none.
        """
        deadline = time.monotonic() + seconds
        while (end := self._rest.find(b"\n")) < 0:
            if len(self._rest) > self._max_bytes:
                raise Fault("output_limit")
            self._connection.settimeout(max(deadline - time.monotonic(), 1e-3))
            try:
                chunk = self._connection.recv(2**16)
            except TimeoutError:
                raise Late from None
            except OSError:
                raise Gone from None
            if not chunk:
                raise Gone
            self._rest += chunk
        line = bytes(self._rest[:end])
        del self._rest[: end + 1]
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            message = None
        if not isinstance(message, dict):
            raise Fault("runtime_error")
        return message
