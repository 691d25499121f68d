"""Sampled tokens that are cut and joined without a new tokenisation.

What does not belong here: what is made of them (`shortcuts`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from heal_core.chat import END_THINK


@dataclass(frozen=True)
class Tokens:
    """Sampled tokens with the character at which each begins in `text`; arrays of shape [T]."""

    text: str
    token_ids: np.ndarray
    token_starts: np.ndarray

    def cut(self, start: int, end: int) -> Tokens:
        """Return the tokens start..end, by themselves."""
        chars = [*self.token_starts.tolist(), len(self.text)]
        text = self.text[chars[start] : chars[end]]
        return Tokens(text, self.token_ids[start:end], self.token_starts[start:end] - chars[start])

    def without_last_break(self) -> Tokens:
        """Return them without those at the end that are nothing but space."""
        num, chars = len(self.token_ids), [*self.token_starts.tolist(), len(self.text)]
        while num and not self.text[chars[num - 1] : chars[num]].strip():
            num -= 1
        return self.cut(0, num)

    def __add__(self, other: Tokens) -> Tokens:
        return Tokens(
            self.text + other.text,
            np.concatenate([self.token_ids, other.token_ids]),
            np.concatenate([self.token_starts, other.token_starts + len(self.text)]),
        )


def think_end(tokens: Tokens) -> int:
    """Return the token in which a thinking part ends; T where none does."""
    offset = tokens.text.find(END_THINK)
    return int(np.searchsorted(tokens.token_starts, offset, side="right")) - 1 if offset >= 0 else len(tokens.token_ids)


def find_line_break(texts: Sequence[Tokens]) -> Tokens:
    """Return a token that is nothing but line breaks, of those with the most; no tokens if there is none."""
    found = Tokens("", np.array([], dtype=np.int64), np.array([], dtype=np.int64))
    for tokens in texts:
        chars = [*tokens.token_starts.tolist(), len(tokens.text)]
        for index in range(len(tokens.token_ids)):
            text = tokens.text[chars[index] : chars[index + 1]]
            if text and not text.strip("\n") and len(text) > len(found.text):
                found = tokens.cut(index, index + 1)
    return found
