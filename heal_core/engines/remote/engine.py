"""The `openai` engine: any server, or several, with OpenAI's API that return log-probabilities.

Requests run in an event loop of a thread of its own, bounded in number; samples come back as they finish. What does
not belong here: what the servers run (`served`), how a request looks (`completions`, `chat`), and what is done when it
fails (`servers`).
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from heal_core.engines.base import (
    EngineConfig,
    EngineDescription,
    GenerationRequest,
    GivenText,
    SamplingConfig,
    ScoreRequest,
    ScoreResult,
    UnreadableText,
)
from heal_core.engines.identity import resolve_folder
from heal_core.engines.reading import read
from heal_core.engines.remote.chat import ChatApi
from heal_core.engines.remote.client import Client
from heal_core.engines.remote.completions import CompletionsApi, empty_completion
from heal_core.engines.remote.secret import Secret
from heal_core.engines.remote.served import describe_model, greet_all
from heal_core.engines.remote.servers import Servers
from heal_core.engines.server_config import ServerConfig
from heal_core.engines.tokens import ModelTokens
from heal_core.errors import ConfigError, EngineStalledError, HealError, RequestError
from heal_core.keys import content_key
from heal_core.records import Completion

_CANCEL_SECONDS = 10.0
_WATCH_SECONDS = 1.0


@dataclass(frozen=True)
class _Task:
    """One request of a call: its name, the group that shares a prefix, and who asks."""

    name: str
    group: str
    length: int
    ask: Callable[[Client], Awaitable[Any]]


class OpenAiEngine:
    """An `Engine` (see `engines.base`) that asks servers.

    Args:
        config: Which model, and where its servers are.
        on_state: Told, in words, when the state of a server changes; an empty text when all is well again.
        socket_paths: A unix domain socket per base URL, instead of its host.
        watch: Called at least every second while an answer is waited for; raises where none will come.

    Raises:
        ModelError: If the tokenizer cannot be found.
        ConfigError: If the key cannot be one.
    """

    def __init__(
        self,
        config: EngineConfig,
        on_state: Callable[[str], None] = lambda state: None,
        socket_paths: Sequence[str] = (),
        watch: Callable[[], None] = lambda: None,
    ) -> None:
        assert config.server is not None, "checked by EngineConfig"
        self.config = config
        self._server: ServerConfig = config.server
        self._on_state = on_state
        self._socket_paths: list[str | None] = [*socket_paths] or [None] * len(self._server.base_urls)
        self._watch = watch
        self._secret = Secret(self._server)
        self._folder: Path | None = resolve_folder(config) if self._server.api == "completions" else None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._servers: Servers | None = None
        self._description: EngineDescription | None = None
        self._tokens: ModelTokens | None = None
        self._api: CompletionsApi | ChatApi | None = None
        self._is_busy = False

    def __enter__(self) -> OpenAiEngine:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def description(self) -> EngineDescription:
        """What the servers run; asks them at the first use.

        Raises:
            ConfigError: If they want another key, or have no such model.
            EngineStalledError: If none can be reached.
        """
        if self._description is None:
            self._connect()
        assert self._description is not None
        return self._description

    def generate(self, requests: Sequence[GenerationRequest], sampling: SamplingConfig) -> Iterator[Completion]:
        """Yield each completion as it finishes; leaving the loop early breaks off the requests.

        See `Engine.generate`. A request that fails while others succeed is told after all others have been yielded.
        """
        _ = self.description
        api, servers = self._api, self._servers
        assert api is not None and servers is not None
        share = _TimeShare()
        tasks = []
        for request, ids in self._inputs(requests):
            if request.max_tokens <= 0:
                yield empty_completion(request, len(ids), self._server.top_logprobs)
                continue
            complete: Callable[[Client], Awaitable[Completion]]
            if isinstance(api, ChatApi):
                complete = partial(api.complete, request=request, sampling=sampling, note_life=servers.note_life)
            else:
                complete = partial(
                    api.complete, request=request, input_ids=ids, sampling=sampling, note_life=servers.note_life
                )
            group = content_key(request.prompt, ids)
            tasks.append(_Task(request.slot_id, group, len(ids), partial(share.measure, complete)))
        # longest first, so that the last to finish are short; equal inputs side by side, for the prefix cache
        order = {group: index for index, group in enumerate(dict.fromkeys(task.group for task in tasks))}
        yield from self._run(sorted(tasks, key=lambda task: (-task.length, order[task.group])))

    def score(self, requests: Sequence[ScoreRequest]) -> Iterator[ScoreResult]:
        """Yield teacher-forced log-probabilities, without entropies; see `Engine.score`."""
        yield from self._score(requests, num_top=0)

    def read(self, texts: Sequence[GivenText]) -> Iterator[Completion | UnreadableText]:
        """Yield given texts as completions; see `Engine.read`."""
        tokens = self._completions_tokens()
        yield from read(tokens, texts, lambda r: self._score(r, self._server.top_logprobs), lambda: None)

    def count_prompt_tokens(self, prompts: Sequence[str]) -> list[int]:
        """Return the length of each rendered prompt in tokens."""
        tokens = self._completions_tokens()
        return [len(tokens.prompt_ids(prompt)) for prompt in prompts]

    def close(self) -> None:
        """Close the connections; safe to call twice. A later call opens new ones."""
        loop, servers = self._loop, self._servers
        self._loop = self._servers = None
        self._description = None
        if loop is None:
            return
        try:
            asyncio.run_coroutine_threadsafe(_end(servers), loop).result(_CANCEL_SECONDS)
        finally:
            loop.call_soon_threadsafe(loop.stop)

    # ---- calls

    def _score(self, requests: Sequence[ScoreRequest], num_top: int) -> Iterator[ScoreResult]:
        self._completions_tokens()
        api = self._api
        assert isinstance(api, CompletionsApi)
        tasks = []
        for request in requests:
            ids, num = api.scored_ids(request)
            if num == 0:
                yield ScoreResult(request.request_id, np.empty(0, np.float32), None if num_top == 0 else np.empty(0))
                continue
            ask = partial(api.score, request=request, ids=ids, num=num, num_top=num_top)
            group = content_key(request.prompt, request.context_token_ids)
            tasks.append(_Task(request.request_id, group, len(ids), ask))
        yield from self._run(sorted(tasks, key=lambda task: -task.length))

    def _inputs(self, requests: Sequence[GenerationRequest]) -> Iterator[tuple[GenerationRequest, tuple[int, ...]]]:
        """Yield each request with its tokens, none for the chat API.

        Raises:
            RequestError: If a request exceeds the context.
        """
        tokens = self._tokens
        if tokens is None:
            yield from ((request, ()) for request in requests)
            return
        prompts = {prompt: tokens.prompt_ids(prompt) for prompt in dict.fromkeys(r.prompt for r in requests)}
        for request in requests:
            ids = (*prompts[request.prompt], *request.prefix_token_ids)
            tokens.check_length(
                request.slot_id,
                ids,
                max(0, request.max_tokens),
                "lower max_tokens, shorten the prompt, or use a model with a longer context",
            )
            yield request, ids

    def _run(self, tasks: Sequence[_Task]) -> Iterator[Any]:
        """Yield the answers as they come, then raise the first refusal, if there was one."""
        if self._is_busy:
            raise HealError("the engine is busy with another call; finish or close that first")
        servers, loop = self._servers, self._loop
        assert servers is not None and loop is not None
        answers: queue.Queue[Any] = queue.Queue()
        deadline = time.monotonic() + self.config.call_seconds
        self._is_busy = True
        future = asyncio.run_coroutine_threadsafe(_ask_all(servers, tasks, answers.put), loop)
        future.add_done_callback(lambda _: answers.put(_END))
        try:
            while True:
                if (left := deadline - time.monotonic()) <= 0:
                    name, limit = self.config.model_name_or_path, self.config.call_seconds
                    raise EngineStalledError(f"{name}: not done after {limit:g} s (call_seconds)")
                try:
                    answer = answers.get(timeout=min(left, _WATCH_SECONDS))
                except queue.Empty:
                    self._watch()
                    continue
                if answer is _END:
                    break
                yield answer
            refused = future.result()
            if refused:
                more = f" (and {len(refused) - 1} more)" if len(refused) > 1 else ""
                raise RequestError(f"{self.config.model_name_or_path}: {refused[0]}{more}")
        finally:
            self._is_busy = False
            future.cancel()

    # ---- connecting

    def _connect(self) -> None:
        """Start the loop and ask the servers what they are."""
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            threading.Thread(target=_serve, args=(self._loop,), name="heal-openai-engine", daemon=True).start()
        asyncio.run_coroutine_threadsafe(self._open(), self._loop).result()

    async def _open(self) -> None:
        server = self._server
        clients = [
            Client(url, self._secret, server.request_seconds, server.silence_seconds, server.max_concurrency, path)
            for url, path in zip(server.base_urls, self._socket_paths, strict=True)
        ]
        try:
            greetings = await greet_all(clients, self.config, self._on_state)
            served = describe_model(self.config, self._folder, greetings)
        except BaseException:
            for client in clients:
                await client.close()
            raise
        self._description, self._tokens = served.description, served.tokens
        api = (
            ChatApi(served.asking, served.description.vocabulary_size)
            if served.tokens is None
            else CompletionsApi(served.tokens, served.asking)
        )
        self._api = api
        self._servers = Servers(
            clients, server.max_concurrency, server.max_tries, self.config.stall_seconds, api.is_alive, self._on_state
        )

    def _completions_tokens(self) -> ModelTokens:
        """Return the tokenizer.

        Raises:
            ConfigError: If the API is one that needs none.
        """
        _ = self.description
        if self._tokens is None:
            name = self.config.model_name_or_path
            raise ConfigError(f"{name}: the chat API reads no given texts; set `scorer` to an engine that does")
        return self._tokens


_END = object()


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    """Run a loop until it is stopped."""
    try:
        loop.run_forever()
    finally:
        loop.close()


async def _end(servers: Servers | None) -> None:
    """Break off what goes on in the running loop, then close the connections: without them it would try again."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    if servers is not None:
        await servers.close()
    await asyncio.get_running_loop().shutdown_asyncgens()


class _TimeShare:
    """Shares the wall time among the requests that are open at the same time. All in one event loop."""

    def __init__(self) -> None:
        self._num_open = 0
        self._seconds = 0.0
        self._at = time.monotonic()

    async def measure(self, complete: Callable[[Client], Awaitable[Completion]], client: Client) -> Completion:
        """Return a completion with its share of the time."""
        self._advance()
        self._num_open += 1
        begun = self._seconds
        try:
            completion = await complete(client)
        finally:
            self._advance()
            self._num_open -= 1
        return replace(completion, seconds=self._seconds - begun)

    def _advance(self) -> None:
        now = time.monotonic()
        if self._num_open:
            self._seconds += (now - self._at) / self._num_open
        self._at = now


async def _ask_all(servers: Servers, tasks: Sequence[_Task], put: Callable[[Any], None]) -> list[RequestError]:
    """Ask everything in the order given, as much at once as the servers take; return what was refused."""
    servers.begin_call()
    waiting = iter(tasks)
    refused: list[RequestError] = []

    async def work() -> None:
        for task in waiting:
            try:
                put(await servers.ask(task.name, task.group, task.ask))
            except RequestError as error:
                refused.append(error)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(servers.capacity, len(tasks))):
                group.create_task(work())
    except BaseExceptionGroup as several:  # each worker met the same
        raise several.exceptions[0] from None
    return refused
