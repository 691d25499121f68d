"""The model behind servers: what they say of it when they are first asked, and the tokenizer that goes with it.

What does not belong here: asking for texts (`engine`, `servers`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from heal_core.engines.base import Capability, EngineConfig, EngineDescription
from heal_core.engines.identity import digest_files
from heal_core.engines.remote.answer import brief
from heal_core.engines.remote.client import Client
from heal_core.engines.remote.completions import Asking
from heal_core.engines.remote.faults import FaultError, NonsenseError, RefusalError, UnusableError
from heal_core.engines.server_config import ServerConfig
from heal_core.engines.settings import read_json, read_settings
from heal_core.engines.start import declared_capabilities
from heal_core.engines.tokens import ModelTokens, end_ids, load_tokenizer, template_digest
from heal_core.errors import ConfigError, EngineStalledError, ModelError

_CONNECT_SECONDS = 30.0
_UNKNOWN_VOCABULARY = 2**20
"""More than any tokenizer has: it only widens the intervals of entropies."""
_UNKNOWN_CONTEXT = 2**31


@dataclass(frozen=True)
class Greeting:
    """What one server says: the model's name there, its context in tokens if told, and whether it is vLLM."""

    model: str
    context_tokens: int | None
    is_vllm: bool


@dataclass(frozen=True)
class ServedModel:
    """The model that servers run; without tokens where the API is one that needs none."""

    asking: Asking
    description: EngineDescription
    tokens: ModelTokens | None


async def greet_all(clients: Sequence[Client], config: EngineConfig, on_state: Callable[[str], None]) -> list[Greeting]:
    """Return what the servers say that can be reached.

    Args:
        clients: One per server.
        config: The model; a server that does not answer at first is asked again for half a minute.
        on_state: Told, in words, when one does not answer; an empty text when that is over.

    Raises:
        ConfigError: If one wants another key or has no such model, or they name it differently.
        EngineStalledError: If none can be reached.
    """
    answers = await asyncio.gather(*(_greet(client, config, on_state) for client in clients))
    greetings = [answer for answer in answers if isinstance(answer, Greeting)]
    if not greetings:
        raise EngineStalledError(
            f"no server of {config.model_name_or_path} can be reached: {'; '.join(map(str, answers))}"
        )
    names = {greeting.model for greeting in greetings}
    if len(names) > 1:
        raise ConfigError(
            f"the servers of {config.model_name_or_path} name it differently ({', '.join(sorted(names))}); start them "
            "with the same name"
        )
    return greetings


def describe_model(config: EngineConfig, folder: Path | None, greetings: Sequence[Greeting]) -> ServedModel:
    """Return the model that has been greeted.

    Args:
        config: The model.
        folder: Holds its tokenizer and settings; None for the chat API.
        greetings: What its servers said, at least one.

    Raises:
        ModelError: If the folder cannot be read, or lacks what is needed.
    """
    server = config.server
    assert server is not None, "checked by EngineConfig"
    is_vllm = all(greeting.is_vllm for greeting in greetings)
    asking = Asking(greetings[0].model, server.top_logprobs, is_vllm, server.extra_body)
    contexts = [greeting.context_tokens for greeting in greetings if greeting.context_tokens]
    capabilities = declared_capabilities(config)
    if not is_vllm:  # prompt_logprobs are vLLM's own
        capabilities -= {Capability.GIVEN_TOKEN_LOGPROBS}
    if folder is None:
        context, size = min(contexts, default=_UNKNOWN_CONTEXT), server.vocabulary_size or _UNKNOWN_VOCABULARY
        return ServedModel(asking, _description(config, "none", "none", context, size, capabilities), None)
    settings = read_settings(folder)
    if found := settings.get("max_position_embeddings"):
        contexts.append(int(found))
    tokenizer = load_tokenizer(config, folder)
    description = _description(
        config,
        digest_files(folder, with_weights=False),
        template_digest(tokenizer.chat_template),
        min(contexts, default=_UNKNOWN_CONTEXT),
        _vocabulary_size(server, settings.get("vocab_size"), folder),
        capabilities,
    )
    defaults = folder / "generation_config.json"
    ends = [settings.get("eos_token_id"), read_json(defaults).get("eos_token_id") if defaults.is_file() else None]
    return ServedModel(asking, description, ModelTokens(tokenizer, description, end_ids(tokenizer, *ends)))


def _description(
    config: EngineConfig, digest: str, template: str, context: int, size: int, capabilities: frozenset[Capability]
) -> EngineDescription:
    return EngineDescription(
        model_name_or_path=config.model_name_or_path,
        weight_digest=digest,
        chat_template_digest=template,
        engine="openai",
        dtype="as served",
        context_tokens=context,
        vocabulary_size=size,
        capabilities=capabilities,
    )


def _vocabulary_size(server: ServerConfig, told: int | None, folder: Path) -> int:
    size = server.vocabulary_size or told
    if not size:
        raise ModelError(
            f"{folder / 'config.json'} has no vocab_size, which bounds entropies; set server.vocabulary_size"
        )
    return int(size)


async def _greet(client: Client, config: EngineConfig, on_state: Callable[[str], None]) -> Greeting | str:
    """Return what a server says, or why none can be reached."""
    server = config.server
    assert server is not None, "checked by EngineConfig"
    deadline, is_told = time.monotonic() + min(_CONNECT_SECONDS, config.stall_seconds), False
    while True:
        try:
            name, context = await _find_model(client, server.model, config.model_name_or_path)
            greeting = Greeting(name, context, server.api == "completions" and await _is_vllm(client))
            if is_told:
                on_state("")
            return greeting
        except UnusableError as fault:
            is_without = str(fault).startswith("HTTP 404") and not client.base_url.endswith("/v1")
            remedy = "; most servers have the API under /v1, which server.base_url lacks" if is_without else ""
            raise ConfigError(f"{client.base_url}: {client.describe(fault)}{remedy}") from None
        except FaultError as fault:
            why = client.describe(fault)
            if time.monotonic() > deadline:
                if is_told:
                    on_state("")  # whether it works is told when it is asked for a text
                return f"{client.base_url} ({why})"
            if not is_told:
                is_told = True
                on_state(
                    f"{client.base_url} does not answer ({why}), asked again for {deadline - time.monotonic():.0f} s"
                )
        await asyncio.sleep(1.0)


async def _find_model(client: Client, named: str | None, name_or_path: str) -> tuple[str, int | None]:
    """Return the model's name at a server, and its context if told."""
    wanted = named or name_or_path
    told = await client.get("/models")
    try:
        listed = {str(entry["id"]): entry for entry in told.get("data") or []}
    except (AttributeError, TypeError, KeyError) as error:
        raise NonsenseError(f"no list of models: {brief(told)}") from error
    if named is None and wanted not in listed and len(listed) == 1:
        (wanted,) = listed
    if listed and wanted not in listed:
        raise UnusableError(
            f"it has no model {wanted!r}, only {', '.join(sorted(listed)[:10])}; set server.model to one of them"
        )
    return wanted, listed.get(wanted, {}).get("max_model_len")


async def _is_vllm(client: Client) -> bool:
    try:
        told = await client.get(client.base_url.removesuffix("/v1") + "/version")
    except (UnusableError, RefusalError, NonsenseError):
        return False  # it answers, and not as vLLM does; any other fault may pass, and texts depend on what is found
    return isinstance(told, dict) and "version" in told
