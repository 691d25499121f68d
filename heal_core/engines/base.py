"""What an engine is: the protocol that samples and scores, and what it declares.

Engines own tokenizers and chat templates: callers speak in prompt texts and, where
a trajectory is continued, in the token ids of its kept prefix. What does not belong
here: prompts (`prompts`), or which samples are wanted (`plan`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal, Protocol

import numpy as np
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from heal_core.engines.early_stop import EarlyStopConfig
from heal_core.engines.price import PriceConfig
from heal_core.engines.server_config import LaunchConfig, ServerConfig
from heal_core.records import EXACT, Completion, FinishReason


class Capability(StrEnum):
    GENERATE = "generate"
    TOKEN_PREFIX = "token_prefix"
    GIVEN_TOKEN_LOGPROBS = "given_token_logprobs"
    EXACT_ENTROPY = "exact_entropy"


ENGINE_PACE = frozenset(
    {"batch_size", "score_tokens", "num_threads", "stall_seconds", "call_seconds", "price", "launch"}
)
"""Settings that change how fast and at what price a model works, and nothing of what it says."""


class EngineConfig(BaseModel):
    """Which model runs where.

    The engine `hf` runs it in a child process, `openai` asks the servers of `server`, `vllm` starts its own, by
    `launch`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model_name_or_path: str
    """Folder or hub id of a Hugging Face model with safetensors weights."""
    revision: str | None = None
    """Revision of a model on the hub."""
    engine: Literal["hf", "openai", "vllm"] = "hf"
    """What runs it ([engines.md](engines.md)): HEAL itself in a child process, a server, or vLLM that HEAL starts."""
    dtype: str = Field(default="auto", pattern="^(auto|float32|bfloat16|float16)$")
    """Precision of weights."""
    device: str = "auto"
    """`auto` (a GPU if there is one), `cpu`, `cuda` or `cuda:n`."""
    batch_size: int = Field(default=64, ge=1)
    """Rows that decode together, with the engine `hf`."""
    score_tokens: int = Field(default=8192, ge=1)
    """Tokens that `hf` scores at a time; bounds its memory ([engines.md](engines.md#scoring))."""
    num_threads: int | None = Field(default=None, ge=1)
    """CPU threads; none leaves it to torch."""
    stall_seconds: float = Field(default=600.0, gt=0)
    """Silence after which it is killed and retried."""
    call_seconds: float = Field(default=4 * 3600.0, gt=0)
    """Time for one shard, after which likewise."""
    trust_remote_code: bool = False
    """Allow a model to bring its own code."""
    server: ServerConfig | None = None
    """For the engine `openai`."""
    launch: LaunchConfig | None = None
    """For the engine `vllm`."""
    price: PriceConfig | None = None
    """What tokens or hours cost, for the books."""

    @model_validator(mode="after")
    def _check_groups(self) -> EngineConfig:
        if self.engine == "openai" and self.server is None:
            raise ValueError(
                f"the engine openai of {self.model_name_or_path} needs to know where its server is: set "
                "server.base_url, for instance http://127.0.0.1:8000/v1"
            )
        if self.engine != "openai" and self.server is not None:
            raise ValueError(f"server is a setting of the engine openai, not of {self.engine}: set engine: openai")
        if self.engine != "vllm" and self.launch is not None:
            raise ValueError(f"launch is a setting of the engine vllm, not of {self.engine}: set engine: vllm")
        return self

    @model_serializer(mode="wrap")
    def _leave_out_what_is_not_set(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # a run's id is made of its settings: one with the engine hf keeps the id that it had before there were others
        settings: dict[str, Any] = handler(self)
        return {name: value for name, value in settings.items() if value is not None or name not in _GROUPS}

    def identity(self) -> dict[str, Any]:
        """Return what a run's id has of it: which model it is, not where or how fast it runs."""
        settings = self.model_dump(mode="json", exclude=set(ENGINE_PACE))
        groups = {"server": self.server, "launch": self.launch}
        return settings | {name: group.identity() for name, group in groups.items() if group is not None}


_GROUPS = ("server", "launch", "price")


class SamplingConfig(BaseModel):
    """How a token is drawn, and when a text is given up. `max_tokens` is a demand: it is in no content key."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    temperature: float = Field(default=0.6, ge=0, le=2)
    """0 takes the most probable token."""
    top_p: float = Field(default=0.95, gt=0, le=1)
    """Mass of the nucleus."""
    max_tokens: int = Field(default=4096, ge=1)
    """Limit of a response, a repair's prefix included."""
    early_stop: EarlyStopConfig | None = None
    """Give up texts that have become hopeless, `{}` with the defaults; none: never."""

    @model_serializer(mode="wrap")
    def _leave_out_what_is_not_set(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # a run's id is made of its settings: it keeps the id that it had before texts could be given up
        settings: dict[str, Any] = handler(self)
        return {name: value for name, value in settings.items() if name != "early_stop" or value is not None}

    def identity(self) -> dict[str, Any]:
        """Return what shapes a text, for content keys."""
        early_stop = {"early_stop": self.early_stop.model_dump(mode="json")} if self.early_stop else {}
        return {"temperature": self.temperature, "top_p": self.top_p, **early_stop}


@dataclass(frozen=True)
class EngineDescription:
    """What an engine says of the model it loaded.

    Attributes:
        model_name_or_path: As the user wrote it.
        weight_digest: SHA-256 over the weight files and the tokenizer.
        chat_template_digest: SHA-256 of the template, or "none".
        engine: Name and versions that shape numbers, e.g. "hf transformers-5.19.0 torch-2.13.0".
        dtype: Precision of the weights.
        context_tokens: Longest prompt plus completion.
        vocabulary_size: V.
        capabilities: What a plan may ask of it.
    """

    model_name_or_path: str
    weight_digest: str
    chat_template_digest: str
    engine: str
    dtype: str
    context_tokens: int
    vocabulary_size: int
    capabilities: frozenset[Capability]

    def identity(self) -> dict[str, Any]:
        """Return what goes into content keys: not the path, which may move."""
        return {
            "weights": self.weight_digest,
            "template": self.chat_template_digest,
            "engine": self.engine,
            "dtype": self.dtype,
        }


@dataclass(frozen=True)
class GenerationRequest:
    """One sample to draw: a user turn, and token ids that the answer already begins with."""

    slot_id: str  # seeds the draw: token t comes from hash(slot_id, t)
    prompt: str
    prefix_token_ids: tuple[int, ...] = ()
    max_tokens: int = 4096  # of the completion, without the prefix


@dataclass(frozen=True)
class ScoreRequest:
    """Given tokens whose log-probabilities are wanted, after a user turn and a context.

    After the rendered prompt come `context_token_ids`, then the tokens of `cue`, then the
    scored ones: `token_ids`, or the tokens of `text` where that is given instead. Cue and
    text are each encoded alone.
    """

    request_id: str
    prompt: str
    context_token_ids: tuple[int, ...] = ()
    cue: str = ""
    token_ids: tuple[int, ...] = ()
    text: str | None = None


@dataclass(frozen=True)
class ScoreResult:
    """Teacher-forced log-probabilities and entropies of the given tokens, shape [T], nats.

    The entropies are None where the engine does not tell them; `entropy_radii` and `entropy_source` are
    those of `Completion`. `num_read_tokens` are those that were read for this request, prompt and context among
    them; what was read for another counts there. None where the engine does not know.
    """

    request_id: str
    logprobs: np.ndarray
    entropies: np.ndarray | None
    entropy_radii: np.ndarray | None = None
    entropy_source: str = EXACT
    num_read_tokens: int | None = None


@dataclass(frozen=True)
class GivenText:
    """An answer that was written elsewhere, to be read as if it had been sampled after a user turn."""

    slot_id: str
    prompt: str
    text: str
    finish_reason: FinishReason


@dataclass(frozen=True)
class UnreadableText:
    """Why a given text cannot be an answer of this model: a code, and after a colon what was seen."""

    slot_id: str
    reason: str


class Engine(Protocol):
    """A loaded model. Not thread-safe: callers hold `tasks.session`'s lock."""

    @property
    def description(self) -> EngineDescription: ...

    def generate(self, requests: Sequence[GenerationRequest], sampling: SamplingConfig) -> Iterator[Completion]:
        """Yield each completion as it finishes; the order is not that of the requests.

        Raises:
            RequestError: If a prompt with its `max_tokens` exceeds the context.
            EngineStalledError: If the child died or went silent.
        """
        ...

    def score(self, requests: Sequence[ScoreRequest]) -> Iterator[ScoreResult]:
        """Yield teacher-forced scores; the order is not that of the requests."""
        ...

    def read(self, texts: Sequence[GivenText]) -> Iterator[Completion | UnreadableText]:
        """Yield each given text as a completion, with teacher-forced log-probabilities and entropies.

        The order is not that of the texts; one that is no answer of this model comes back with the reason.
        """
        ...

    def count_prompt_tokens(self, prompts: Sequence[str]) -> list[int]:
        """Return the length of each rendered prompt in tokens."""
        ...

    def close(self) -> None:
        """End the child process; safe to call twice."""
        ...
