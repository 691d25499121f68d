"""Which rows of a source are drawn: those whose hash with the seed is smallest.

So neither the order of the rows matters nor how many there are: one more row puts at most one
other out. What does not belong here: the train and held-out split (`heal_core/split.py`).
"""

from __future__ import annotations

import hashlib
import heapq
import json
from collections.abc import Iterable

from heal_core.sources.row import SourceRow


class Sample:
    """The `num` rows drawn of all that were offered; memory for no more."""

    def __init__(self, num: int, seed: int) -> None:
        self._num = num
        self._seed = seed
        self._offered = 0
        self._drawn: list[tuple[int, int, SourceRow]] = []  # a heap, the largest hash on top

    def offer(self, row: SourceRow) -> None:
        """Consider a row that could be read."""
        self._offered += 1
        # of two rows that say the same, the earlier one goes first
        entry = (-self._hash(row), -self._offered, row)
        if len(self._drawn) < self._num:
            heapq.heappush(self._drawn, entry)
        else:
            heapq.heappushpop(self._drawn, entry)

    def rows(self) -> Iterable[SourceRow]:
        """Return the rows drawn, in the order in which they were offered."""
        return [row for _, _, row in sorted(self._drawn, key=lambda entry: -entry[1])]

    def _hash(self, row: SourceRow) -> int:
        text = json.dumps([self._seed, row.content], sort_keys=True, ensure_ascii=False, default=str)
        return int.from_bytes(hashlib.sha256(text.encode(errors="surrogatepass")).digest()[:16])
