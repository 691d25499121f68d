"""Which texts are near-duplicates of each other: exact Jaccard similarity of word 5-grams, in clusters.

An inverted index over each text's rarest shingles (prefix filtering) finds every pair that
can reach the threshold, so nothing is left to chance as it would be with MinHash (docs/decisions.md).
What does not belong here: what a word is (`words`), what a cluster means for the split (`split`).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from heal_core.words import hashed_ngrams

SHINGLE_WORDS = 5

_ROUNDING = 1e-9  # 0.7 * 10 is above 7 in floating point


def cluster_labels(texts: Sequence[str], min_jaccard: float) -> list[int]:
    """Return per text the smallest index in its cluster; clusters are chains of near-duplicates.

    Two texts are near-duplicates when the Jaccard similarity of their sets of word 5-grams
    is at least `min_jaccard`; a shorter text is one shingle. Exact and independent of the
    texts' order (up to the labels).

    Source: definition D1 (docs/method.md).
    """
    parents = list(range(len(texts)))
    shingles, first_shared = _ranked_shingles(texts)
    for index, candidates in _candidates(shingles, first_shared, min_jaccard):
        own = set(shingles[index].tolist())
        for other in candidates:
            left, right = _root(parents, index), _root(parents, other)
            if left != right and _jaccard(own, shingles[other]) >= min_jaccard - _ROUNDING:
                parents[max(left, right)] = min(left, right)
    return [_root(parents, index) for index in range(len(texts))]


def _ranked_shingles(texts: Sequence[str]) -> tuple[list[np.ndarray], int]:
    """Return each text's shingles as sorted ranks over all texts, and the first rank that stands twice.

    The rarer, the smaller the rank.
    """
    hashes = hashed_ngrams(texts, SHINGLE_WORDS)
    if not hashes:
        return [], 0
    _, inverse, counts = np.unique(np.concatenate(hashes), return_inverse=True, return_counts=True)
    ranks = np.empty(len(counts), dtype=np.int64)
    ranks[np.argsort(counts, kind="stable")] = np.arange(len(counts))
    ends = np.cumsum([len(row) for row in hashes])[:-1]
    return [np.unique(row) for row in np.split(ranks[inverse], ends)], int((counts == 1).sum())


def _candidates(
    shingles: Sequence[np.ndarray], first_shared: int, min_jaccard: float
) -> Iterator[tuple[int, list[int]]]:
    """Yield each text with the shorter ones that can reach the threshold; every such pair occurs once.

    Sets of n <= m shingles and similarity t share at least t*m of them, and 2t/(1+t)*n. Sorted
    from rare to common, they therefore meet among the first m - t*m + 1 of the larger and the
    first n - 2t/(1+t)*n + 1 of the smaller; and n >= t*m. Ranks below `first_shared` meet none.
    """
    postings: dict[int, list[int]] = defaultdict(list)
    min_overlap = 2 * min_jaccard / (1 + min_jaccard)
    for index in sorted(range(len(shingles)), key=lambda index: len(shingles[index])):
        row = shingles[index]
        shorter = {other for rank in _prefix(row, first_shared, min_jaccard) for other in postings.get(rank, ())}
        if shorter:
            min_size = min_jaccard * len(row) - _ROUNDING
            yield index, sorted(other for other in shorter if len(shingles[other]) >= min_size)
        for rank in _prefix(row, first_shared, min_overlap):
            postings[rank].append(index)


def _prefix(row: np.ndarray, first_shared: int, min_share: float) -> list[int]:
    """Return the rarest shingles, of which a set that shares `min_share` of the row has at least one."""
    prefix = row[: len(row) - math.ceil(min_share * len(row) - _ROUNDING) + 1]
    shared: list[int] = prefix[np.searchsorted(prefix, first_shared) :].tolist()
    return shared


def _jaccard(own: set[int], row: np.ndarray) -> float:
    shared = len(own.intersection(row.tolist()))
    return shared / (len(own) + len(row) - shared)


def _root(parents: list[int], index: int) -> int:
    while parents[index] != index:
        parents[index] = parents[parents[index]]
        index = parents[index]
    return index
