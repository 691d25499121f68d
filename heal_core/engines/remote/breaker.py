"""A circuit breaker: after some failures in a row a server is left alone, and asked again now and then.

What does not belong here: what a failure is, and asking (`servers`).
"""

from __future__ import annotations

import time
from collections.abc import Callable

_MAX_FAILURES = 5
_FIRST_PAUSE_SECONDS = 2.0
_MAX_PAUSE_SECONDS = 60.0


class CircuitBreaker:
    """Closed while a server works; open after five failures in a row, until one trial of it succeeds.

    The pause before each trial is twice the one before, up to a minute.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._num_failures = 0
        self._pause_seconds = _FIRST_PAUSE_SECONDS
        self._next_trial: float | None = None
        self.last_failure = ""

    @property
    def is_open(self) -> bool:
        """Return whether the server is to be left alone."""
        return self._next_trial is not None

    @property
    def seconds_to_trial(self) -> float:
        """Return how long the server is left alone from now on, 0 where it is not."""
        return 0.0 if self._next_trial is None else max(0.0, self._next_trial - self._clock())

    def succeed(self) -> None:
        """Note that the server did what it was asked."""
        self._num_failures, self._pause_seconds, self._next_trial = 0, _FIRST_PAUSE_SECONDS, None

    def fail(self, why: str) -> None:
        """Note that it did not."""
        self._num_failures += 1
        self.last_failure = why
        if self._next_trial is not None and self.seconds_to_trial > 0:
            return  # asked before it was left alone
        if self._next_trial is not None or self._num_failures >= _MAX_FAILURES:
            self._next_trial = self._clock() + self._pause_seconds
            self._pause_seconds = min(2 * self._pause_seconds, _MAX_PAUSE_SECONDS)
