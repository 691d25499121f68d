"""Several servers that serve one model: who is asked, how often, and when one is left alone.

A request is tried again after a failure, on another server where there is one; one that asks for time gets it; one
that fails in a row is left alone until a trial of it succeeds. What does not belong here: what is asked
(`completions`, `chat`), and the connection (`client`).
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TypeVar

from heal_core.engines.remote.breaker import CircuitBreaker
from heal_core.engines.remote.client import Client
from heal_core.engines.remote.faults import BusyError, FailureError, FaultError, RefusalError, UnusableError
from heal_core.errors import ConfigError, EngineStalledError, RequestError

_MAX_BACKOFF_SECONDS = 30.0
_POLL_SECONDS = 1.0

Result = TypeVar("Result")


@dataclass
class _Server:
    client: Client
    breaker: CircuitBreaker = field(default_factory=CircuitBreaker)
    num_in_flight: int = 0
    busy_until: float = 0.0
    busy_why: str = ""
    asked_again: str = ""  # the time of day
    trial: asyncio.Task[None] | None = None

    @property
    def busy_seconds(self) -> float:
        return max(0.0, self.busy_until - time.monotonic())

    @property
    def is_ready(self) -> bool:
        return not self.breaker.is_open and self.busy_seconds == 0.0


class Servers:
    """Asks servers, with tries. All methods belong to one event loop.

    Args:
        clients: One per server.
        max_concurrency: Requests in flight at each.
        max_tries: How often one request is tried that fails.
        patience_seconds: After so long without any good answer the servers are given up.
        is_alive: A small request that a server that works answers.
        on_state: Told, in words, when the state changes; an empty text when all is well.
    """

    def __init__(
        self,
        clients: Sequence[Client],
        max_concurrency: int,
        max_tries: int,
        patience_seconds: float,
        is_alive: Callable[[Client], Awaitable[object]],
        on_state: Callable[[str], None],
    ) -> None:
        self._servers = [_Server(client) for client in clients]
        self._max_concurrency = max_concurrency
        self._max_tries = max_tries
        self._patience_seconds = patience_seconds
        self._is_alive = is_alive
        self._on_state = on_state
        self._state = ""
        self._changed = asyncio.Condition()
        self._home: dict[str, _Server] = {}
        self._life = time.monotonic()

    @property
    def capacity(self) -> int:
        """Return how many requests may be in flight at all servers together."""
        return self._max_concurrency * len(self._servers)

    def begin_call(self) -> None:
        """Start to count the time without an answer anew, and forget where groups were asked."""
        self._life = time.monotonic()
        self._home.clear()

    def note_life(self) -> None:
        """Note that something good came from a server."""
        self._life = time.monotonic()

    async def close(self) -> None:
        """Close the connections; what was not well with the servers is no concern any more."""
        if self._state:
            self._state = ""
            self._on_state("")
        for server in self._servers:
            if server.trial is not None:
                server.trial.cancel()
            await server.client.close()

    async def ask(self, name: str, group: str, request: Callable[[Client], Awaitable[Result]]) -> Result:
        """Return the answer to one request, tried on whichever server is ready.

        Args:
            name: What is asked, for messages: a slot's id.
            group: Requests of one group go to the same server while that works, for its prefix cache.
            request: Asks one server.

        Raises:
            RequestError: If servers refuse it, or it failed `max_tries` times.
            ConfigError: If a server wants another key or has no such model.
            EngineStalledError: If no server gave a good answer for so long.
        """
        num_tries, avoided = 0, None
        while True:
            server = await self._take(group, avoided)
            try:
                result = await request(server.client)
            except BusyError as fault:
                server.busy_until = time.monotonic() + fault.seconds
                server.busy_why = server.client.describe(fault)
                server.asked_again = _time_of_day(fault.seconds)
            except RefusalError as fault:
                server.breaker.succeed()  # it is the request that is at fault
                self.note_life()
                told = server.client.describe(fault)
                raise RequestError(f"{name}: {server.client.base_url} refuses it: {told}") from None
            except UnusableError as fault:
                raise ConfigError(f"{server.client.base_url}: {server.client.describe(fault)}") from None
            except FailureError as fault:
                num_tries, avoided = num_tries + 1, server
                told = server.client.describe(fault)
                self._fail(server, told)
                if num_tries >= self._max_tries:
                    raise RequestError(
                        f"{name}: failed {num_tries} times, the last time at {server.client.base_url}: {told}"
                    ) from None
            else:
                server.breaker.succeed()
                self.note_life()
                self._tell()
                return result
            finally:
                await self._give_back(server)
            self._tell()
            if avoided is server:  # full jitter: requests that failed together do not come back together
                await asyncio.sleep(random.uniform(0, min(2.0**num_tries, _MAX_BACKOFF_SECONDS)))

    def describe(self) -> str:
        """Return what is not well, an empty text where all is."""
        return "; ".join(filter(None, map(_describe, self._servers)))

    async def _take(self, group: str, avoided: _Server | None) -> _Server:
        """Wait for a server that can take a request."""
        async with self._changed:
            while True:
                free = [s for s in self._servers if s.is_ready and s.num_in_flight < self._max_concurrency]
                others = [server for server in free if server is not avoided] or free
                if others:
                    server = self._choose(group, others)
                    server.num_in_flight += 1
                    return server
                self._check_patience()
                try:
                    # not wait_for: before Python 3.12 it may swallow a cancellation, and the call would go on unheard
                    async with asyncio.timeout(_POLL_SECONDS):
                        await self._changed.wait()
                except TimeoutError:
                    self._tell()

    def _choose(self, group: str, free: Sequence[_Server]) -> _Server:
        idlest = min(free, key=lambda server: server.num_in_flight)
        home = self._home.setdefault(group, idlest)
        # the work of a large group is shared rather than left to one server while others idle
        return home if home in free and home.num_in_flight < self._max_concurrency else idlest

    async def _give_back(self, server: _Server) -> None:
        server.num_in_flight -= 1
        async with self._changed:
            self._changed.notify_all()

    def _check_patience(self) -> None:
        if any(server.is_ready for server in self._servers):
            return  # they work, and are at their limit
        patience = self._patience_seconds + max(server.busy_seconds for server in self._servers)
        if time.monotonic() - self._life > patience:
            raise EngineStalledError(f"no good answer for {self._patience_seconds:g} s: {self.describe()}")

    def _fail(self, server: _Server, why: str) -> None:
        was_open = server.breaker.is_open
        server.breaker.fail(why)
        if server.breaker.is_open and not was_open:
            server.asked_again = _time_of_day(server.breaker.seconds_to_trial)
        if server.breaker.is_open and server.trial is None:
            server.trial = asyncio.get_running_loop().create_task(self._try_again(server))

    async def _try_again(self, server: _Server) -> None:
        """Ask a server that is left alone now and then, until it works."""
        while server.breaker.is_open:
            self._tell()
            await asyncio.sleep(server.breaker.seconds_to_trial * random.uniform(1.0, 1.2))
            try:
                await self._is_alive(server.client)
            except FaultError as fault:
                server.breaker.fail(server.client.describe(fault))
                server.asked_again = _time_of_day(server.breaker.seconds_to_trial)
            else:
                server.breaker.succeed()
        server.trial = None
        self._tell()
        async with self._changed:
            self._changed.notify_all()

    def _tell(self) -> None:
        state = self.describe()
        if state != self._state:
            self._state = state
            self._on_state(state)


def _describe(server: _Server) -> str:
    url, breaker = server.client.base_url, server.breaker
    if breaker.is_open:
        return f"{url} fails ({breaker.last_failure}), tried again at {server.asked_again}"
    if server.busy_seconds > 0:
        return f"{url} is busy ({server.busy_why}), asked again at {server.asked_again}"
    return ""


def _time_of_day(seconds_from_now: float) -> str:
    return f"{datetime.now() + timedelta(seconds=seconds_from_now):%H:%M:%S}"
