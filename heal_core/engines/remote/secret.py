"""The key of a server, and keeping it out of everything that is written down.

What does not belong here: where it is sent (`client`).
"""

from __future__ import annotations

import os
import re

from heal_core.engines.server_config import ServerConfig
from heal_core.errors import ConfigError

_MASK = "[redacted]"
_MIN_LENGTH = 4
"""Shorter ones are no secrets, and removing them would garble texts."""
_CREDENTIALS = re.compile(r"(?<=://)[^/\s@]+@")
_BEARER = re.compile(r"(?i)(bearer\s+)[\w.~+/=-]{8,}")


class Secret:
    """The key that a server wants; never shown, not even by `repr`.

    Raises:
        ConfigError: If it cannot be sent; what then fails would show it.
    """

    def __init__(self, config: ServerConfig) -> None:
        self._key = os.environ.get(config.api_key_variable, "").strip()
        self.variable = config.api_key_variable
        if not self._key.isascii() or not self._key.isprintable() or " " in self._key:
            raise ConfigError(
                f"the variable {self.variable} holds spaces, line breaks or letters beyond ASCII, which no key has; "
                "set it to the key alone"
            )

    @property
    def is_set(self) -> bool:
        return bool(self._key)

    def headers(self) -> dict[str, str]:
        """Return what goes with each request."""
        return {"Authorization": f"Bearer {self._key}"} if self._key else {}

    def redact(self, text: str) -> str:
        """Return a text, such as a server's answer, without the key or what looks like one."""
        if len(self._key) >= _MIN_LENGTH:
            text = text.replace(self._key, _MASK)
        return _BEARER.sub(rf"\1{_MASK}", _CREDENTIALS.sub(f"{_MASK}@", text))
