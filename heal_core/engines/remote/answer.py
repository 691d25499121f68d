"""The pieces of a streamed answer -> tokens with their log-probabilities, checked before anything is made of them.

Servers write them in two ways: `logprobs` with parallel lists (the completions API) or with a list `content` (chat,
and llama.cpp's server). What does not belong here: the connection (`client`), entropies (`completions`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from heal_core.engines.remote.faults import NonsenseError
from heal_core.records import FinishReason

_ID_PREFIX = "token_id:"
_ROUNDING = 1e-3
IMPOSSIBLE_NATS = -9000.0
"""Some servers write -9999 where a probability is 0."""


@dataclass(frozen=True)
class Token:
    """One token as a server tells it.

    Attributes:
        text: Its characters, as the server decodes it alone; not to be trusted for bytes of a longer character.
        token_id: None where the server does not tell.
        data: Its bytes; None where the server does not tell.
        logprob: Of the sampled token, nats.
        top_logprobs: The most probable ones, falling, nats.
        has_gaps: Whether a token that is not among them may be more probable than one that is.
    """

    text: str
    token_id: int | None
    data: bytes | None
    logprob: float
    top_logprobs: tuple[float, ...]
    has_gaps: bool = False


@dataclass
class Answer:
    """An answer while it comes in; `add` takes each piece. `content` is the text of a chat answer."""

    num_top: int
    tokens: list[Token] = field(default_factory=list)
    content: str = ""
    finish_reason: str | None = None
    model: str | None = None
    num_prompt_tokens: int | None = None
    num_completion_tokens: int | None = None
    num_cached_tokens: int | None = None
    has_hidden_reasoning: bool = False

    def add(self, piece: Mapping[str, Any]) -> list[Token]:
        """Take one piece of the stream; return the tokens that came with it.

        Raises:
            NonsenseError: If it does not hold what an answer holds.
        """
        if piece.get("error"):
            raise NonsenseError(f"an error within the answer: {brief(piece['error'])}")
        try:
            self.model = piece.get("model") or self.model
            self._add_usage(piece.get("usage") or {})
            choices = piece.get("choices") or []
            new = [token for choice in choices for token in self._add_choice(choice)]
        except (TypeError, KeyError, ValueError, AttributeError, IndexError) as error:
            raise NonsenseError(f"a piece that is no answer ({type(error).__name__}): {brief(piece)}") from error
        self.tokens += new
        return new

    def check(self, num_prompt_tokens: int | None, max_tokens: int) -> None:
        """Check an answer that has come to its end.

        Args:
            num_prompt_tokens: How many tokens were sent; None where that is not known.
            max_tokens: The limit that was sent.

        Raises:
            NonsenseError: If its parts contradict each other or the request.
        """
        if self.finish_reason == FinishReason.HOPELESS:
            return  # its end was not waited for, and so no usage came
        if self.finish_reason not in ("stop", "length"):
            raise NonsenseError(f"finish_reason {self.finish_reason!r}, expected stop or length")
        num = len(self.tokens)
        if self.num_completion_tokens is not None and self.num_completion_tokens != num:
            raise NonsenseError(f"{num} tokens, where usage counts {self.num_completion_tokens}")
        if None not in (num_prompt_tokens, self.num_prompt_tokens) and num_prompt_tokens != self.num_prompt_tokens:
            raise NonsenseError(f"{self.num_prompt_tokens} tokens of prompt, where {num_prompt_tokens} were sent")
        if num > max_tokens:
            raise NonsenseError(f"{num} tokens, where max_tokens was {max_tokens}")
        if self.finish_reason == "length" and num < max_tokens:
            raise NonsenseError(f"cut after {num} tokens, where max_tokens was {max_tokens}")

    def give_up(self, num_tokens: int) -> None:
        """End the answer after so many of its tokens."""
        self.tokens = self.tokens[:num_tokens]
        self.finish_reason = FinishReason.HOPELESS

    def _add_usage(self, usage: Mapping[str, Any]) -> None:
        if usage:
            self.num_prompt_tokens = usage.get("prompt_tokens", self.num_prompt_tokens)
            self.num_completion_tokens = usage.get("completion_tokens", self.num_completion_tokens)
            self.num_cached_tokens = (usage.get("prompt_tokens_details") or {}).get(
                "cached_tokens", self.num_cached_tokens
            )

    def _add_choice(self, choice: Mapping[str, Any]) -> list[Token]:
        if choice.get("index", 0) != 0:
            raise ValueError("more choices than were asked for")
        self.finish_reason = choice.get("finish_reason") or self.finish_reason
        delta = choice.get("delta") or {}
        self.content += delta.get("content") or ""
        if delta.get("reasoning_content") or delta.get("reasoning"):
            self.has_hidden_reasoning = True
        logprobs = choice.get("logprobs")
        if logprobs is None:
            if choice.get("text") or delta.get("content"):
                raise NonsenseError("text without log-probabilities; the server must be able to return them")
            return []
        if logprobs.get("content") is not None:
            return [self._listed(entry) for entry in logprobs["content"]]
        return self._parallel(choice, logprobs)

    def _listed(self, entry: Mapping[str, Any]) -> Token:
        data = entry.get("bytes")
        tops = [top["logprob"] for top in entry.get("top_logprobs") or ()]
        return Token(
            str(entry["token"]),
            _id_of(entry.get("id"), str(entry["token"])),
            None if data is None else bytes(data),
            _number(entry["logprob"]),
            self._falling(tops, entry["logprob"]),
        )

    def _parallel(self, choice: Mapping[str, Any], logprobs: Mapping[str, Any]) -> list[Token]:
        texts, values, tops = (logprobs.get(name) or [] for name in ("tokens", "token_logprobs", "top_logprobs"))
        ids: Sequence[int | None] = choice.get("token_ids") or [None] * len(texts)
        if not len(texts) == len(values) == len(tops) == len(ids):
            raise NonsenseError(
                f"{len(ids)} token ids, {len(texts)} tokens, {len(values)} log-probabilities and {len(tops)} lists of "
                "alternatives, where they should be as many"
            )
        return [
            Token(
                str(text),
                _id_of(token_id, str(text)),
                None,
                _number(value),
                self._falling(list(top.values()), value),
                has_gaps=not str(text).startswith(_ID_PREFIX) and self._may_hide(top, value),
            )
            for text, token_id, value, top in zip(texts, ids, values, tops, strict=True)
        ]

    def _may_hide(self, top: Mapping[str, Any], sampled: Any) -> bool:
        """Return whether tokens of one text may be one entry, of which only the last is told.

        Without such there are `num_top`, and one more where the sampled token is none of the most probable.
        """
        return len(top) < self.num_top or (len(top) == self.num_top and min(top.values()) == sampled)

    def _falling(self, values: Sequence[Any], sampled: float) -> tuple[float, ...]:
        """Return the most probable ones alone: the sampled token may stand beside them, even if they are few."""
        possible = sorted((v for v in map(_number, values) if v > IMPOSSIBLE_NATS), reverse=True)
        if not possible:
            raise NonsenseError("a token without its alternatives; the server must return top log-probabilities")
        if 1 < len(possible) < self.num_top and possible[-1] == sampled:
            return tuple(possible[:-1])
        return tuple(possible[: self.num_top])


def _id_of(value: Any, text: str) -> int | None:
    if value is not None:
        return int(value)
    return int(text.removeprefix(_ID_PREFIX)) if text.startswith(_ID_PREFIX) else None


def _number(value: Any) -> float:
    """Return a log-probability.

    Raises:
        NonsenseError: If it is none.
    """
    number = float("nan") if value is None or isinstance(value, bool | str) else float(value)
    if math.isnan(number) or number > _ROUNDING:
        raise NonsenseError(f"a log-probability of {value!r}")
    return min(number, 0.0)


def brief(value: Any) -> str:
    """Return the beginning of what a server sent, more than is shown: the key is taken out of it (`Client.describe`)
    before it is cut, since half a key is no longer known for one."""
    return str(value)[:2000]
