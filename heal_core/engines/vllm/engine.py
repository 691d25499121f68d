"""The `vllm` engine: HEAL starts servers of its own, watches them, asks them as `openai` does, and ends them.

What does not belong here: which vLLM and how it is called (`program`, `command`), one server (`server`), asking
(`remote`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

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
from heal_core.engines.identity import digest_files, resolve_folder
from heal_core.engines.loading import check_model_folder
from heal_core.engines.remote.engine import OpenAiEngine
from heal_core.engines.server_config import LaunchConfig, ServerConfig
from heal_core.engines.vllm.command import KEY_VARIABLE, MODEL_NAME, serve_command, serve_environment, served_dtype
from heal_core.engines.vllm.program import find_program
from heal_core.engines.vllm.server import VllmServer
from heal_core.records import Completion


class VllmEngine:
    """An `Engine` (see `engines.base`) that runs vLLM in processes of its own.

    A hub id is fetched, the folder checked and the program found at once; the servers start at the first use and stay
    until `close`. One that died is started again by the next call.

    Args:
        config: Which model, and how its servers are started.
        log_path: Gets the output of the first server; the others' files stand beside it, numbered. By default
            temporary files.
        on_state: Told, in words, when the state of a server changes; an empty text when all is well again.

    Raises:
        ModelError: If the model cannot be found, or lacks weights or tokenizer.
        ConfigError: If there is no vLLM.
    """

    def __init__(
        self,
        config: EngineConfig,
        log_path: Path | None = None,
        on_state: Callable[[str], None] = lambda state: None,
    ) -> None:
        self._folder = resolve_folder(config)
        check_model_folder(self._folder)
        self.config = config
        self._launch = config.launch or LaunchConfig()
        self._program = find_program(self._launch)
        self._log_path = log_path
        self._on_state = on_state
        self._servers: list[VllmServer] = []
        self._remote: OpenAiEngine | None = None

    def __enter__(self) -> VllmEngine:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def description(self) -> EngineDescription:
        """What the servers run; starts them at the first use."""
        return replace(
            self._ready().description,
            model_name_or_path=self.config.model_name_or_path,
            weight_digest=digest_files(self._folder),
            engine=f"vllm {self._program.version}",
            dtype=served_dtype(self.config, self._folder),
        )

    @property
    def socket_paths(self) -> list[str]:
        """The unix domain socket of each server that was started, for who wants to ask one of them."""
        return [str(server.socket) for server in self._servers]

    def generate(self, requests: Sequence[GenerationRequest], sampling: SamplingConfig) -> Iterator[Completion]:
        """Yield each completion as it finishes; leaving the loop early breaks off the requests.

        See `Engine.generate`.
        """
        yield from self._ready().generate(requests, sampling)

    def score(self, requests: Sequence[ScoreRequest]) -> Iterator[ScoreResult]:
        """Yield teacher-forced log-probabilities, without entropies; see `Engine.score`."""
        yield from self._ready().score(requests)

    def read(self, texts: Sequence[GivenText]) -> Iterator[Completion | UnreadableText]:
        """Yield given texts as completions; see `Engine.read`."""
        yield from self._ready().read(texts)

    def count_prompt_tokens(self, prompts: Sequence[str]) -> list[int]:
        """Return the length of each rendered prompt in tokens."""
        return self._ready().count_prompt_tokens(prompts)

    def close(self) -> None:
        """End the servers; safe to call twice. A later call starts new ones."""
        if self._remote is not None:
            self._remote.close()
            self._remote = None
        for server in self._servers:
            server.ask_to_end()  # all at once: each takes seconds
        for server in self._servers:
            server.close()
        self._servers = []

    def _ready(self) -> OpenAiEngine:
        """Return what asks the servers, all of which run."""
        if self._remote is not None and all(server.is_running for server in self._servers):
            return self._remote
        if self._remote is not None:
            self._remote.close()
        try:
            self._start_servers()
            self._remote = OpenAiEngine(self._as_served(), self._on_state, self.socket_paths, self._check)
        except BaseException:
            self.close()
            raise
        return self._remote

    def _start_servers(self) -> None:
        """Start each server that does not run, and wait for all of them."""
        deadline = time.monotonic() + self._launch.start_seconds
        for replica in range(self._launch.replicas):
            if replica == len(self._servers):
                self._servers.append(self._start(replica))
            elif not self._servers[replica].is_running:
                self._servers[replica].close()
                self._servers[replica] = self._start(replica)
        for server in self._servers:
            server.await_ready(deadline)

    def _start(self, replica: int) -> VllmServer:
        log_path = self._log_path
        if log_path is not None and replica > 0:
            log_path = log_path.with_name(f"{log_path.stem}-{replica}{log_path.suffix}")
        return VllmServer(
            partial(serve_command, self._program, self.config, self._folder),
            serve_environment(self._program, self.config, replica),
            self.config.model_name_or_path,
            log_path,
        )

    def _check(self) -> None:
        """Check that there is a server to wait for; those that still run do the work of the others.

        Raises:
            EngineStalledError: If all have died.
        """
        if not any(server.is_running for server in self._servers):
            self._servers[0].check()

    def _as_served(self) -> EngineConfig:
        """Return the settings with which the servers are asked."""
        return EngineConfig(
            model_name_or_path=str(self._folder),
            engine="openai",
            stall_seconds=self.config.stall_seconds,
            call_seconds=self.config.call_seconds,
            trust_remote_code=self.config.trust_remote_code,
            server=ServerConfig(
                base_url=tuple(f"http://vllm-{replica}/v1" for replica in range(self._launch.replicas)),
                model=MODEL_NAME,
                api_key_variable=KEY_VARIABLE,
                top_logprobs=self._launch.top_logprobs,
                max_concurrency=self._launch.max_concurrency,
                silence_seconds=self.config.stall_seconds,  # a request may wait in the server's own queue
            ),
        )
