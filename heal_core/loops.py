"""How often a text repeats itself: occurrences of n-grams of tokens, counted as they come.

The one home of that count: engines give a text up by it while it is sampled (`engines.early_stop`), gate G9
refuses a finished one (`gates`). What does not belong here: what is done about it.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence

import numpy as np

_MODULUS = 2**61 - 1
_BASE = 1_315_423_911_000_000_007 % _MODULUS


class GramCounter:
    """Reads tokens one by one, each at a constant cost; occurrences of an n-gram may overlap.

    Args:
        length: Tokens of an n-gram.
    """

    def __init__(self, length: int) -> None:
        self._length = length
        self._last: deque[int] = deque()
        self._hash = 0  # of the last `length` tokens, as a polynomial
        self._leaving = pow(_BASE, length, _MODULUS)
        self._counts: dict[int, int] = {}

    def add(self, token_id: int) -> int:
        """Take the next token; return how often the n-gram that ends with it has occurred, 0 before there is one."""
        self._last.append(token_id)
        self._hash = (self._hash * _BASE + token_id + 1) % _MODULUS
        if len(self._last) > self._length:
            self._hash = (self._hash - (self._last.popleft() + 1) * self._leaving) % _MODULUS
        elif len(self._last) < self._length:
            return 0
        count = self._counts[self._hash] = self._counts.get(self._hash, 0) + 1
        return count


def most_repeats(token_ids: Sequence[int] | np.ndarray, length: int) -> int:
    """Return how often the most frequent n-gram of so many tokens occurs, 0 in a text that is shorter than one."""
    tokens = np.asarray(token_ids, dtype=np.int64)
    # of a text that is all there, compared as bytes: a fifth of the time of reading it token by token
    grams = Counter(tokens[start : start + length].tobytes() for start in range(len(tokens) - length + 1))
    return max(grams.values(), default=0)
