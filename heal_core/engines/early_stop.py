"""Giving up a text that cannot come to anything: it has begun to loop, or one line of it never ends.

A watch reads tokens as they are sampled, at a constant cost for each; engines feed it and end
the text where it says so. What does not belong here: sampling, and the gates on finished texts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import cache
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

_MODULUS = 2**61 - 1
_BASE = 1_315_423_911_000_000_007 % _MODULUS


class EarlyStopConfig(BaseModel):
    """When a text is given up.

    It is where one n-gram of `ngram` sampled tokens occurs for the `repeats`-th time (occurrences may overlap, as
    in gate G9), or where a line holds `max_step_tokens` tokens and has not ended. None switches a rule off.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    ngram: int | None = Field(default=20, ge=1)
    repeats: int = Field(default=5, ge=2)
    max_step_tokens: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _check_rules(self) -> EarlyStopConfig:
        if self.ngram is None and self.max_step_tokens is None:
            raise ValueError(
                "early_stop has neither ngram nor max_step_tokens, so that it would stop nothing: set one of them, "
                "or leave early_stop out"
            )
        return self


class LoopWatch:
    """Reads one text token by token and says where it has become hopeless.

    Args:
        config: When that is.
        ends_line: Whether a token holds the end of a line; asked only where `max_step_tokens` is set.
    """

    def __init__(self, config: EarlyStopConfig, ends_line: Callable[[int], bool]) -> None:
        self._config = config
        self._ends_line = ends_line
        self._last: deque[int] = deque()
        self._hash = 0  # of the last `ngram` tokens, as a polynomial
        self._leaving = pow(_BASE, config.ngram, _MODULUS) if config.ngram else 0
        self._counts: dict[int, int] = {}
        self._line_tokens = 0

    def add(self, token_id: int) -> bool:
        """Take the next sampled token; return whether the text is to end with it."""
        loops, runs_on = self._add_to_ngram(token_id), self._add_to_line(token_id)
        return loops or runs_on

    def _add_to_ngram(self, token_id: int) -> bool:
        length = self._config.ngram
        if length is None:
            return False
        self._last.append(token_id)
        self._hash = (self._hash * _BASE + token_id + 1) % _MODULUS
        if len(self._last) > length:
            self._hash = (self._hash - (self._last.popleft() + 1) * self._leaving) % _MODULUS
        elif len(self._last) < length:
            return False
        count = self._counts[self._hash] = self._counts.get(self._hash, 0) + 1
        return count >= self._config.repeats

    def _add_to_line(self, token_id: int) -> bool:
        if self._config.max_step_tokens is None:
            return False
        self._line_tokens = 0 if self._ends_line(token_id) else self._line_tokens + 1
        return self._line_tokens >= self._config.max_step_tokens


def line_ends(tokenizer: Any) -> Callable[[int], bool]:
    """Return a function that says whether a token of a transformers tokenizer holds the end of a line."""

    @cache
    def ends_line(token_id: int) -> bool:
        text: str = tokenizer.decode([token_id])
        return "\n" in text

    return ends_line
