"""Which training problems state a problem of an evaluation set: shared word n-grams, every match with its text.

A training problem is contaminated by an evaluation problem when it holds at least a share of
the latter's distinct n-grams. What does not belong here: which problems are compared, and what
becomes of the contaminated ones (`cleaning`), what a word is (`words`).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from heal_core.words import hashed_ngrams, words_of

_ROUNDING = 1e-9  # 0.7 * 10 is above 7 in floating point


@dataclass(frozen=True)
class Match:
    """What a training text holds of an evaluation text.

    Attributes:
        evaluation_index: Which evaluation text.
        num_shared: Distinct n-grams of the evaluation text that the training text has.
        num_ngrams: Distinct n-grams of the evaluation text.
        passage: Its longest run of words that stand in shared n-grams, case and punctuation aside.
    """

    evaluation_index: int
    num_shared: int
    num_ngrams: int
    passage: str


@dataclass(frozen=True)
class Contamination:
    """A contaminated training text: the evaluation texts that it matches, and the first of those matches in full."""

    training_index: int
    evaluation_indices: tuple[int, ...]
    matches: tuple[Match, ...]


def find_contamination(
    training: Sequence[str], evaluation: Sequence[str], num_words: int, min_share: float, max_matches: int = 10
) -> Iterator[Contamination]:
    """Yield the contaminated training texts in their order.

    A text of fewer than `num_words` words is one n-gram: it matches only a text of the same
    words. A text without words matches none. Exact: each pair that reaches the share is found.

    Args:
        training: Texts that may be contaminated.
        evaluation: Texts that must not be in them.
        num_words: n.
        min_share: Of the distinct n-grams of an evaluation text, in [0, 1]; at 0 a single one is enough.
        max_matches: Given in full per text: those with the largest share, then by evaluation text.
    """
    asked = hashed_ngrams(evaluation, num_words)
    held = hashed_ngrams(training, num_words)
    if not asked or not held:
        return
    index = _Index(evaluation, asked, held, min_share)
    for training_index, row in enumerate(index.held):
        found = sorted(index.matches(row), key=lambda match: (-match[1] / len(index.asked[match[0]]), match[0]))
        if not found:
            continue
        hashes = set(held[training_index].tolist())
        matches = [
            Match(
                number,
                num_shared,
                len(index.asked[number]),
                _passage(evaluation[number], asked[number].tolist(), hashes, num_words),
            )
            for number, num_shared in found[:max_matches]
        ]
        yield Contamination(training_index, tuple(number for number, _ in found), tuple(matches))


class _Index:
    """The n-grams of evaluation texts as ranks, the rarer in the training texts the smaller.

    A text that holds a share s of g n-grams holds one of any g - s*g + 1 of them: an evaluation
    text is therefore looked up by its rarest ones alone.

    Attributes:
        asked: The ranks of each evaluation text; none for one without words.
        held: The ranks of each training text, those that stand in an evaluation text only.
    """

    def __init__(
        self, texts: Sequence[str], asked: Sequence[np.ndarray], held: Sequence[np.ndarray], min_share: float
    ) -> None:
        known, asked_places = np.unique(np.concatenate(asked), return_inverse=True)
        flat = np.concatenate(held)
        places = np.minimum(np.searchsorted(known, flat), len(known) - 1)
        is_known = known[places] == flat
        counts = np.bincount(places[is_known], minlength=len(known))
        ranks = np.empty(len(known), dtype=np.int64)
        ranks[np.argsort(counts, kind="stable")] = np.arange(len(known))
        num_known = np.add.reduceat(is_known, np.cumsum([0, *map(len, held[:-1])]), dtype=np.int64)
        self.held = [set(row.tolist()) for row in np.split(ranks[places[is_known]], np.cumsum(num_known)[:-1])]
        self.asked: list[set[int]] = []
        self._postings: dict[int, list[int]] = defaultdict(list)
        self._min_shared: list[int] = []
        for number, row in enumerate(np.split(ranks[asked_places], np.cumsum(list(map(len, asked)))[:-1])):
            own = sorted(set(row.tolist())) if words_of(texts[number]) else []
            self.asked.append(set(own))
            self._min_shared.append(max(1, math.ceil(min_share * len(own) - _ROUNDING)))
            for rank in own[: len(own) - self._min_shared[-1] + 1]:
                self._postings[rank].append(number)

    def matches(self, row: set[int]) -> Iterator[tuple[int, int]]:
        """Yield the evaluation texts that a training text holds enough of, with how many n-grams."""
        for number in {number for rank in row & self._postings.keys() for number in self._postings[rank]}:
            num_shared = len(row & self.asked[number])
            if num_shared >= self._min_shared[number]:
                yield number, num_shared


def _passage(evaluation: str, asked: Sequence[int], held: set[int], num_words: int) -> str:
    """Return the longest run of words of the evaluation text whose n-grams are held; the first of several."""
    longest, first, start = 0, 0, 0
    for index in range(len(asked) + 1):
        if index == len(asked) or asked[index] not in held:
            if index - start > longest:
                longest, first = index - start, start
            start = index + 1
    return " ".join(words_of(evaluation)[first : first + longest + num_words - 1])
