"""When readers get a new copy of the store: often, but not too often, and what was put off by itself in time."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from heal_core.errors import StoreError

logger = logging.getLogger("heal")


class Publisher:
    """Copies at most every so many seconds, and so that it takes at most a share of the time.

    Args:
        copy: Makes the copy, holding the lock. A `StoreError` of it is a warning where nobody waits for it.
        lock: Held whenever something here changes; re-entrant.
        min_seconds: Shortest time from the end of a copy to the beginning of the next.
        max_share: Largest share of the time that copying may take, by how long it last took.
    """

    def __init__(self, copy: Callable[[], None], lock: threading.RLock, min_seconds: float, max_share: float) -> None:
        self._copy = copy
        self._lock = lock
        self._min_seconds = min_seconds
        self._max_share = max_share
        self._copied_at: float | None = None
        self._copy_seconds = 0.0
        self._timer: threading.Timer | None = None

    def publish(self, force: bool = False) -> bool:
        """Copy if the time has come, or in any case with `force`; return whether it was done."""
        with self._lock:
            wait = self._seconds_left()
            if not force and wait > 0:
                self._publish_later(wait)
                return False
            self.put_off()
            started = time.monotonic()
            self._copy()
            self._copied_at = time.monotonic()
            self._copy_seconds = self._copied_at - started
            return True

    def put_off(self) -> None:
        """Do not copy by itself what is waiting."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def _seconds_left(self) -> float:
        if self._copied_at is None:
            return 0.0
        interval = max(self._min_seconds, self._copy_seconds / self._max_share)
        return self._copied_at + interval - time.monotonic()

    def _publish_later(self, seconds: float) -> None:
        if self._timer is None:
            self._timer = threading.Timer(seconds, self._publish_due)
            self._timer.daemon = True
            self._timer.start()

    def _publish_due(self) -> None:
        with self._lock:
            if self._timer is not threading.current_thread():
                return  # copied or put off meanwhile
            self._timer = None
            try:
                self.publish(force=True)
            except StoreError as error:
                # the rows are durable, and the next append meets the same fault in the run's own thread
                logger.warning("readers still see the store of before: %s", error)
