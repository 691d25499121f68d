"""Settings of engines that speak to servers: where one is and how it is asked, or how one is started.

No credential is ever a setting: the config of a run is stored and shown. They are named by the variable of the
environment that holds them. What does not belong here: speaking (`remote`) and starting (`vllm`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

DEFAULT_KEY_VARIABLE = "HEAL_API_KEY"
SECRET_NAME = re.compile(r"(?i)(^|[._-])(api_?key|key|token|password|secret|credentials?)$")
"""How settings, arguments and variables are called that hold a credential."""
_ARGS_OF_PACE = frozenset(
    {
        *("--tensor-parallel-size", "-tp", "--pipeline-parallel-size", "-pp", "--data-parallel-size", "-dp"),
        *("--gpu-memory-utilization", "--kv-cache-memory-bytes", "--block-size", "--max-model-len"),
        *("--max-num-seqs", "--max-num-batched-tokens", "--stream-interval", "--enforce-eager"),
    }
)
"""Arguments of `vllm serve` that say how fast and on how much hardware, and nothing of the texts."""
_OWN_FIELDS: dict[str, str | None] = {
    "model": "server.model",
    "temperature": "rollouts.sampling",
    "top_p": "rollouts.sampling",
    "max_tokens": "rollouts.sampling",
    "logprobs": "server.top_logprobs",
    "top_logprobs": "server.top_logprobs",
    **dict.fromkeys(("prompt", "messages", "seed", "n", "stream", "stream_options", "prompt_logprobs")),
}
"""Fields of a request that HEAL fills in, with the setting that decides them."""


class ServerConfig(BaseModel):
    """An OpenAI-compatible server, or several that serve the same model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base_url: str | tuple[str, ...]
    """Where the API is, up to and with `/v1`; several servers of one model are used together."""
    api: Literal["completions", "chat"] = "completions"
    """`completions` takes prompts as token ids; `chat` is all that hosted APIs have, and can only do rollouts."""
    model: str | None = None
    """The model's name there; none: the only one that the server lists."""
    name: str | None = None
    """What is served: with the same name another URL is the same model. None: the URLs."""
    api_key_variable: str = DEFAULT_KEY_VARIABLE
    """The variable of the environment that holds the key; without it none is sent."""
    top_logprobs: int = Field(default=20, ge=1, le=1000)
    """Of how many of the most probable tokens the probabilities are asked for; entropies are made of them."""
    vocabulary_size: int | None = Field(default=None, ge=2)
    """V, which bounds entropies, for a `chat` model whose tokenizer is not at hand; none: the model's."""
    max_concurrency: int = Field(default=256, ge=1)
    """Requests in flight at each server."""
    request_seconds: float = Field(default=3600.0, gt=0)
    """The longest that one answer may take."""
    silence_seconds: float = Field(default=300.0, gt=0)
    """The longest in which nothing comes while a server answers."""
    max_tries: int = Field(default=6, ge=1)
    """How often a request is tried that fails while others succeed."""
    extra_body: dict[str, Any] = Field(default_factory=dict)
    """Further fields of each request, as the server wants them; not those that HEAL fills in, such as `seed`, and no
    key.
    """

    @field_validator("base_url")
    @classmethod
    def _check_urls(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        urls = (value,) if isinstance(value, str) else value
        if not urls:
            raise ValueError("server.base_url names no server; give a URL such as http://127.0.0.1:8000/v1")
        for url in urls:
            _check_url(url)
        cleaned = tuple(url.rstrip("/") for url in urls)
        if len(set(cleaned)) < len(cleaned):
            raise ValueError(f"server.base_url names a server twice: {', '.join(cleaned)}")
        return cleaned[0] if isinstance(value, str) else cleaned

    @field_validator("extra_body")
    @classmethod
    def _check_body(cls, value: dict[str, Any]) -> dict[str, Any]:
        _check_names("server.extra_body", value, "server.api_key_variable names the variable that holds the key")
        for name in value.keys() & _OWN_FIELDS.keys():
            setting = _OWN_FIELDS[name]
            remedy = f"set {setting} instead" if setting else "leave it out"
            raise ValueError(f"server.extra_body has the field {name!r}, which HEAL itself fills in; {remedy}")
        return value

    @property
    def base_urls(self) -> tuple[str, ...]:
        return (self.base_url,) if isinstance(self.base_url, str) else self.base_url

    def identity(self) -> dict[str, Any]:
        """Return what decides which texts come back and what is known of them: the place unless it has a name, what is
        asked for, and V, by which the intervals of entropies that are stored with a text are bounded."""
        size = {} if self.vocabulary_size is None else {"vocabulary_size": self.vocabulary_size}
        return size | {
            "name": self.name or sorted(self.base_urls),
            "api": self.api,
            "model": self.model,
            "top_logprobs": self.top_logprobs,
            "extra_body": self.extra_body,
        }


class LaunchConfig(BaseModel):
    """How `vllm serve` is started."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    command: tuple[str, ...] = ()
    """The program `vllm`, with what stands before `serve`; empty: that of `make vllm`, else the one on `PATH`."""
    args: tuple[str, ...] = ()
    """Further arguments of `vllm serve`, such as `[--tensor-parallel-size, "2"]`; those that may change the texts are
    in their keys, those that cannot are pace.
    """
    replicas: int = Field(default=1, ge=1)
    """Servers of the same model, used together; GPUs, else cores, are shared out evenly."""
    environment: dict[str, str] = Field(default_factory=dict)
    """Variables of their environment, beside HEAL's own; no keys: export those."""
    start_seconds: float = Field(default=1800.0, gt=0)
    """The longest that a start may take, weights included."""
    top_logprobs: int = Field(default=20, ge=1, le=1000)
    """Most probable tokens that are asked for; entropies are made of them."""
    max_concurrency: int = Field(default=256, ge=1)
    """Requests in flight at each server."""

    @field_validator("args", "environment")
    @classmethod
    def _check_given(cls, value: Any, info: ValidationInfo) -> Any:
        names = [word.split("=")[0].replace("_", "-") for word in value if word.startswith("-")]
        where, held = f"launch.{info.field_name}", value if info.field_name == "environment" else names
        _check_names(where, held, "the servers have the environment of HEAL itself: set a variable there")
        return value

    def identity(self) -> dict[str, Any]:
        """Return what decides which texts come back, and what is known of them: not on how much hardware."""
        return {"top_logprobs": self.top_logprobs, "args": list(_args_that_matter(self.args))}


def _args_that_matter(args: Sequence[str]) -> Iterator[str]:
    """Yield the arguments, with their values, that may change what a model says; an unknown one may."""
    is_kept = True
    for word in args:
        if word.startswith("-"):
            is_kept = word.split("=")[0] not in _ARGS_OF_PACE
        if is_kept:
            yield word


def _check_names(where: str, names: Iterable[str], remedy: str) -> None:
    """Check that nothing that is given by these names is a credential.

    Raises:
        ValueError: Without what is given.
    """
    for name in names:
        if SECRET_NAME.search(name):
            raise ValueError(
                f"{where} holds {name}, which may be a credential, and a run's config is stored and shown; {remedy}"
            )


def _check_url(url: str) -> None:
    """Check that a URL can be stored and shown.

    Raises:
        ValueError: Without the URL in it, where that may hold a credential.
    """
    try:
        parts = urlsplit(url)
        is_meant = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
        has_credentials = "@" in parts.netloc or bool(parts.query) or bool(parts.fragment)
    except ValueError:
        raise ValueError("server.base_url is no URL; give one such as http://127.0.0.1:8000/v1") from None
    if has_credentials:
        raise ValueError(
            "server.base_url holds a user, a password or a query, and a run's config is stored and shown. Give the "
            "plain URL, and the key in the environment: server.api_key_variable names the variable "
            f"({DEFAULT_KEY_VARIABLE} by default)"
        )
    if not is_meant:
        raise ValueError(f"server.base_url {url!r} is no URL of a server; give one such as http://127.0.0.1:8000/v1")
