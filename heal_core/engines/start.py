"""Which engine runs a model, and what it can do as far as its settings tell.

What does not belong here: the engines themselves; each is imported only when it is wanted.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from heal_core.engines.base import Capability, Engine, EngineConfig
from heal_core.errors import ConfigError

_SERVED = frozenset({Capability.GENERATE, Capability.TOKEN_PREFIX, Capability.GIVEN_TOKEN_LOGPROBS})
_REMEDIES = {
    Capability.TOKEN_PREFIX: "continue a text from its tokens: use an engine that takes prompts as token ids "
    "(hf, vllm, or openai with server.api: completions), or set repair.max_paths: 0",
    Capability.GIVEN_TOKEN_LOGPROBS: "tell the log-probabilities of given tokens: set `scorer` to the same model with "
    "the engine hf or vllm",
    Capability.EXACT_ENTROPY: "tell exact entropies: use the engine hf",
    Capability.GENERATE: "sample",
}


def start_engine(
    config: EngineConfig, log_path: Path | None = None, on_state: Callable[[str], None] = lambda state: None
) -> Engine:
    """Return the engine of a model; it does its work of starting at the first use.

    Args:
        config: Which model runs where.
        log_path: Gets the output of a child process.
        on_state: Told, in words, when the state of a server changes; an empty text when all is well again.

    Raises:
        ModelError: If the model cannot be found, or lacks what its engine needs.
        ConfigError: If its engine is not installed.
    """
    match config.engine:
        case "hf":
            from heal_core.engines.hf import HfEngine

            return HfEngine(config, log_path)
        case "openai":
            from heal_core.engines.remote.engine import OpenAiEngine

            return OpenAiEngine(config, on_state)
        case "vllm":
            from heal_core.engines.vllm.engine import VllmEngine

            return VllmEngine(config, log_path, on_state)


def declared_capabilities(config: EngineConfig) -> frozenset[Capability]:
    """Return what an engine can do by its settings; a server may turn out to be able to do less."""
    if config.engine == "hf":
        return frozenset(Capability)
    if config.server is not None and config.server.api == "chat":
        return frozenset({Capability.GENERATE})
    return _SERVED


def check_capability(config: EngineConfig, capability: Capability, role: str, found: frozenset[Capability]) -> None:
    """Check that an engine can do what a plan asks of it.

    Args:
        config: The model.
        capability: What is asked.
        role: Who asks: "teacher" or "scorer".
        found: What the engine can do.

    Raises:
        ConfigError: If it cannot, with the remedy.
    """
    if capability not in found:
        raise ConfigError(
            f"the {role} {config.model_name_or_path} (engine {config.engine}) cannot {_REMEDIES[capability]}."
        )
