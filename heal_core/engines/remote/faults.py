"""What may go wrong between a request and its answer, as the client tells it to who decides what to do.

Private to `remote`: what leaves it is one of `heal_core.errors`.
"""

from __future__ import annotations


class FaultError(Exception):
    """Base of these."""


class BusyError(FaultError):
    """The server asks to be left alone for so many seconds."""

    def __init__(self, what: str, seconds: float) -> None:
        super().__init__(what)
        self.seconds = seconds


class FailureError(FaultError):
    """The request failed, and may succeed when it is tried again: no connection, an error of the server, silence."""


class NonsenseError(FailureError):
    """What came is no answer to what was asked; nothing of it is used."""


class RefusalError(FaultError):
    """The server will never answer this one request."""


class UnusableError(FaultError):
    """The server will answer none: it wants another key, or has no such model."""
