"""Giving up a text that cannot come to anything: it has begun to loop, or one line of it never ends.

A watch reads tokens as they are sampled, at a constant cost for each; engines feed it and end
the text where it says so. What does not belong here: sampling, counting repeats (`loops`), and the gates on
finished texts.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from heal_core.loops import GramCounter


class EarlyStopConfig(BaseModel):
    """When a text is given up: where an n-gram of sampled tokens recurs, or a line does not end."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ngram: int | None = Field(default=20, ge=1)
    """Length of the n-gram of tokens that is counted; none counts none."""
    repeats: int = Field(default=5, ge=2)
    """Occurrence with which the text ends; they may overlap, as in gate G9."""
    max_step_tokens: int | None = Field(default=None, ge=1)
    """A line that has so many tokens and no end ends the text."""

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
        self._grams = GramCounter(config.ngram) if config.ngram else None
        self._line_tokens = 0

    def add(self, token_id: int) -> bool:
        """Take the next sampled token; return whether the text is to end with it."""
        loops, runs_on = self._add_to_ngram(token_id), self._add_to_line(token_id)
        return loops or runs_on

    def _add_to_ngram(self, token_id: int) -> bool:
        return self._grams is not None and self._grams.add(token_id) >= self._config.repeats

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
