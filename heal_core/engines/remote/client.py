"""One request to one server, and its answer as it streams; every way in which that goes wrong has a name (`faults`).

What does not belong here: trying again (`servers`), and what is asked (`completions`).
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import orjson

from heal_core.engines.remote.faults import (
    BusyError,
    FailureError,
    FaultError,
    NonsenseError,
    RefusalError,
    UnusableError,
)
from heal_core.engines.remote.secret import Secret

_CONNECT_SECONDS = 10.0
_END_SECONDS = 1.0
_PAUSE_SECONDS = 5.0
_MIN_PAUSE_SECONDS = 0.5
"""What asks for less would be asked all the time, and never given up."""
_MAX_PAUSE_SECONDS = 600.0
_BUSY = (429, 503)
_NO_ACCESS = (401, 403)
_GONE = (404, 405, 501)
_MAY_PASS = (408, 409, 425)
_MAX_SHOWN_CHARS = 300
_MAX_TOLD_CHARS = 500


class Client:
    """Speaks to one server.

    Args:
        base_url: Up to and with /v1.
        secret: The key.
        request_seconds: The longest that one request may take.
        silence_seconds: The longest that nothing may come.
        max_connections: How many requests there may be at once.
        socket_path: A unix domain socket instead of the URL's host.
    """

    def __init__(
        self,
        base_url: str,
        secret: Secret,
        request_seconds: float,
        silence_seconds: float,
        max_connections: int,
        socket_path: str | None = None,
    ) -> None:
        self.base_url = base_url
        self._secret = secret
        self._request_seconds = request_seconds
        self._silence_seconds = silence_seconds
        limits = httpx.Limits(max_connections=max_connections + 4, max_keepalive_connections=max_connections)
        self._http = httpx.AsyncClient(
            headers=secret.headers(),
            timeout=httpx.Timeout(silence_seconds, connect=_CONNECT_SECONDS, pool=None),
            limits=limits,
            # without a transport of its own it goes through the proxies that the environment names
            transport=None if socket_path is None else httpx.AsyncHTTPTransport(uds=socket_path, limits=limits),
        )

    async def close(self) -> None:
        await self._http.aclose()

    def describe(self, fault: FaultError) -> str:
        """Return what went wrong in one line, without the key, which servers may repeat anywhere in an answer."""
        return " ".join(self._secret.redact(str(fault)).split())[:_MAX_TOLD_CHARS]

    async def get(self, url: str) -> Any:
        """Return the JSON at a path below the base URL, or at a whole URL.

        Raises:
            FaultError: If there is none.
        """
        async with self._sent("GET", url if "://" in url else self.base_url + url, None) as response:
            return self._parse(await response.aread())

    async def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """Return the JSON that answers a request.

        Raises:
            FaultError: If there is none.
        """
        async with self._sent("POST", self.base_url + path, body) as response:
            return self._parse(await response.aread())

    async def stream(self, path: str, body: Mapping[str, Any]) -> AsyncGenerator[Any, None]:
        """Yield the pieces of a streamed answer, up to its end.

        Raises:
            FaultError: If it breaks off, or is none.
        """
        async with self._sent("POST", self.base_url + path, body) as response:
            lines = response.aiter_lines()
            async for line in lines:
                if not line.startswith("data:"):
                    continue
                data = line[5:].strip()
                if data == "[DONE]":
                    await _read_to_end(lines)
                    return
                yield self._parse(data)
            raise FailureError("the answer broke off")

    @asynccontextmanager
    async def _sent(self, method: str, url: str, body: Mapping[str, Any] | None) -> AsyncIterator[httpx.Response]:
        try:
            async with (
                asyncio.timeout(self._request_seconds),
                self._http.stream(method, url, json=body) as response,
            ):
                if response.status_code >= 300:
                    raise self._fault(response, await response.aread())
                yield response
        except TimeoutError as error:
            raise FailureError(f"no whole answer within {self._request_seconds:g} s") from error
        except httpx.ConnectTimeout as error:
            raise FailureError(f"no connection within {_CONNECT_SECONDS:g} s") from error
        except httpx.TimeoutException as error:
            raise FailureError(f"nothing came for {self._silence_seconds:g} s") from error
        except httpx.HTTPError as error:
            said = self._secret.redact(str(error)) or "it broke off"
            raise FailureError(f"{type(error).__name__}: {said}") from error

    def _fault(self, response: httpx.Response, body: bytes) -> Exception:
        code = response.status_code
        said = f"HTTP {code}: {self._message(body)}"
        pause = _pause_seconds(response.headers.get("retry-after"))
        if code == 429 or (code in _BUSY and pause is not None):
            return BusyError(said, _PAUSE_SECONDS if pause is None else pause)
        if code in _NO_ACCESS:
            return UnusableError(f"{said} (the key is read from the variable {self._secret.variable})")
        if code in _GONE:
            return UnusableError(said)
        if code in _MAY_PASS or code >= 500 or code < 400:
            return FailureError(said)
        return RefusalError(said)

    def _message(self, body: bytes) -> str:
        """Return what a server says of an error, in one line, without the key that some repeat."""
        text = body.decode(errors="replace")
        try:
            told = json.loads(text)
            error = told.get("error", told)
            text = str(error.get("message", error)) if isinstance(error, dict) else str(error)
        except (ValueError, AttributeError):
            pass  # it is not JSON: the text itself
        return " ".join(self._secret.redact(text).split())[:_MAX_SHOWN_CHARS] or "no message"

    def _parse(self, data: str | bytes) -> Any:
        try:
            return orjson.loads(data)  # a third of the time of json, for every token
        except ValueError as error:
            shown = data if isinstance(data, str) else data.decode(errors="replace")
            raise NonsenseError(f"no JSON ({error}): {self._secret.redact(shown)[:80]!r}") from error


async def _read_to_end(lines: AsyncIterator[str]) -> None:
    """Read what follows the end, which is nothing: a connection can only be used again once that was seen.

    The answer is whole by then: a server that breaks off here, or says nothing more, loses the connection only.
    """
    with suppress(TimeoutError, httpx.HTTPError):
        async with asyncio.timeout(_END_SECONDS):
            async for _ in lines:
                pass


def _pause_seconds(header: str | None) -> float | None:
    """Return what Retry-After asks for, in seconds or as a date; None where there is none that can be read."""
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(header).timestamp() - time.time()
        except ValueError:
            return None
    return None if math.isnan(seconds) else min(max(seconds, _MIN_PAUSE_SECONDS), _MAX_PAUSE_SECONDS)
