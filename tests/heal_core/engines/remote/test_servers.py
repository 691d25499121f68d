from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from heal_core.engines.remote.client import Client
from heal_core.engines.remote.faults import BusyError, FailureError, FaultError
from heal_core.engines.remote.secret import Secret
from heal_core.engines.remote.servers import Servers
from heal_core.engines.server_config import ServerConfig
from heal_core.errors import ConfigError, EngineStalledError, RequestError

URL = "http://127.0.0.1:9/v1"
KEY = "sk-planted-0123456789"


def client_of(answer: Callable[[httpx.Request], httpx.Response] | None = None) -> Client:
    client = Client(URL, Secret(ServerConfig(base_url=URL)), 5.0, 5.0, 4)
    if answer is not None:
        client._http = httpx.AsyncClient(transport=httpx.MockTransport(answer))
    return client


def servers_of(client: Client, **settings: Any) -> Servers:
    async def is_alive(client: Client) -> None:
        raise FailureError("still down")

    told = {"max_concurrency": 2, "max_tries": 1, "patience_seconds": 60.0, **settings}
    return Servers([client], is_alive=is_alive, on_state=lambda state: None, **told)


async def fail_with(fault: FaultError) -> Any:
    raise fault


def asking(fault: FaultError) -> Callable[[Client], Awaitable[Any]]:
    return lambda client: fail_with(fault)


def test_who_waits_for_a_busy_server_can_be_broken_off_at_any_moment() -> None:
    async def break_off() -> list[bool]:
        servers = servers_of(client_of(), max_tries=3)
        ends = []
        for num_turns in range(12):  # of the loop, between the start and the end
            busy = asyncio.ensure_future(servers.ask("a", "g", asking(BusyError("busy", 30.0))))
            others = [asyncio.ensure_future(servers.ask("b", "g", asking(BusyError("busy", 30.0)))) for _ in range(3)]
            for _ in range(num_turns):
                await asyncio.sleep(0)
            tasks = [busy, *others]
            async with servers._changed:
                servers._changed.notify_all()  # as a request that is broken off beside them does
            for task in tasks:
                task.cancel()
            done, pending = await asyncio.wait(tasks, timeout=2)
            ends.append(not pending and all(task.cancelled() for task in done))
            for task in pending:
                task.cancel()
        return ends

    assert all(asyncio.run(break_off()))


def test_a_server_that_is_busy_for_ever_is_given_up_even_if_it_asks_for_no_time() -> None:
    num_asked = 0

    def answer(request: httpx.Request) -> httpx.Response:
        nonlocal num_asked
        num_asked += 1
        return httpx.Response(429, headers={"Retry-After": "0"}, json={"error": {"message": "later"}})

    async def ask() -> None:
        await servers_of(client_of(answer), patience_seconds=1.0).ask("a", "g", lambda c: c.post("/completions", {}))

    with pytest.raises(EngineStalledError, match="no good answer for 1 s"):
        asyncio.run(asyncio.wait_for(ask(), 20))
    assert num_asked < 10, "it is not asked all the time"


@pytest.mark.parametrize("header", ["nan", "soon", ""])
def test_a_time_that_cannot_be_read_is_the_usual_pause(header: str) -> None:
    async def ask() -> None:
        client = client_of(lambda request: httpx.Response(429, headers={"Retry-After": header}))
        await client.post("/completions", {})

    with pytest.raises(BusyError) as caught:
        asyncio.run(ask())
    assert caught.value.seconds == 5.0


def test_an_answer_that_was_whole_counts_though_its_connection_broke_off_behind_it() -> None:
    class Broken(httpx.AsyncByteStream):
        async def __aiter__(self) -> Any:
            yield b'data: {"a": 1}\n\ndata: [DONE]\n\n'
            raise httpx.ReadError("gone")

    async def read() -> list[Any]:
        client = client_of(lambda request: httpx.Response(200, stream=Broken()))
        return [piece async for piece in client.stream("/completions", {})]

    assert asyncio.run(read()) == [{"a": 1}]


@pytest.mark.parametrize("num_before", [0, 150, 470, 490])
def test_no_part_of_a_key_that_a_server_repeats_is_told(num_before: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEAL_API_KEY", KEY)
    told = f"an error within the answer: {'x' * num_before} Authorization: {KEY} is no key"

    async def ask() -> None:
        await servers_of(client_of()).ask("slot", "g", asking(FailureError(told)))

    with pytest.raises(RequestError) as caught:
        asyncio.run(ask())
    assert KEY[:9] not in str(caught.value)


@pytest.mark.parametrize("key", ["two words", "sk-\n-line", "sk-\u00e9"])
def test_a_key_that_cannot_be_sent_is_refused_and_not_shown(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEAL_API_KEY", key)
    with pytest.raises(ConfigError, match="HEAL_API_KEY") as caught:
        Secret(ServerConfig(base_url=URL))
    assert key not in str(caught.value)
