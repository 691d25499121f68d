"""Which texts are near-duplicates of each other: exact Jaccard similarity of word 5-grams, in clusters.

An inverted index over each text's rarest shingles (prefix filtering) finds every pair that
can reach the threshold, so nothing is left to chance as it would be with MinHash. What does not belong
here: what a cluster means for the split (`split`).
"""

from __future__ import annotations

import hashlib
import math
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

SHINGLE_WORDS = 5

# Scripts written without spaces count a character as a word; of the punctuation only
# what changes a formula's meaning is read.
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+|[-+*/=<>^%!]")
_ROUNDING = 1e-9  # 0.7 * 10 is above 7 in floating point


def cluster_labels(texts: Sequence[str], min_jaccard: float) -> list[int]:
    """Return per text the smallest index in its cluster; clusters are chains of near-duplicates.

    Two texts are near-duplicates when the Jaccard similarity of their sets of word 5-grams
    is at least `min_jaccard`; a shorter text is one shingle. Exact and independent of the
    texts' order (up to the labels); meant for up to about 10^5 texts.

    Source: definition D1 (docs/method.md).
    """
    parents = list(range(len(texts)))
    shingles = _ranked_shingles(texts)
    for index, candidates in _candidates(shingles, min_jaccard):
        own = set(shingles[index].tolist())
        for other in candidates:
            left, right = _root(parents, index), _root(parents, other)
            if left != right and _jaccard(own, shingles[other]) >= min_jaccard - _ROUNDING:
                parents[max(left, right)] = min(left, right)
    return [_root(parents, index) for index in range(len(texts))]


def shingles_of(text: str) -> frozenset[str]:
    """Return the word 5-grams of the text, case, spacing and sentence punctuation aside; never empty."""
    words = _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
    last_start = max(len(words) - SHINGLE_WORDS, 0)
    return frozenset(" ".join(words[start : start + SHINGLE_WORDS]) for start in range(last_start + 1))


def _ranked_shingles(texts: Sequence[str]) -> list[np.ndarray]:
    """Return each text's shingles as sorted ranks over all texts: the rarer, the smaller."""
    hashes = [np.array([_hash(shingle) for shingle in shingles_of(text)], dtype=np.uint64) for text in texts]
    if not hashes:
        return []
    _, inverse, counts = np.unique(np.concatenate(hashes), return_inverse=True, return_counts=True)
    ranks = np.empty(len(counts), dtype=np.int64)
    ranks[np.argsort(counts, kind="stable")] = np.arange(len(counts))
    ends = np.cumsum([len(row) for row in hashes])[:-1]
    return [np.sort(row) for row in np.split(ranks[inverse], ends)]


def _hash(shingle: str) -> int:
    return int.from_bytes(hashlib.blake2b(shingle.encode(errors="replace"), digest_size=8).digest(), "little")


def _candidates(shingles: Sequence[np.ndarray], min_jaccard: float) -> Iterator[tuple[int, list[int]]]:
    """Yield each text with the shorter ones that can reach the threshold; every such pair occurs once.

    Sets of n <= m shingles and similarity t share at least t*m of them, and 2t/(1+t)*n. Sorted
    from rare to common, they therefore meet among the first m - t*m + 1 of the larger and the
    first n - 2t/(1+t)*n + 1 of the smaller; and n >= t*m.
    """
    postings: dict[int, list[int]] = defaultdict(list)
    min_overlap = 2 * min_jaccard / (1 + min_jaccard)
    for index in sorted(range(len(shingles)), key=lambda index: len(shingles[index])):
        row = shingles[index]
        shorter = {other for rank in _prefix(row, min_jaccard) for other in postings.get(rank, ())}
        min_size = min_jaccard * len(row) - _ROUNDING
        yield index, sorted(other for other in shorter if len(shingles[other]) >= min_size)
        for rank in _prefix(row, min_overlap):
            postings[rank].append(index)


def _prefix(row: np.ndarray, min_share: float) -> list[int]:
    """Return the rarest shingles, of which a set that shares `min_share` of the row has at least one."""
    prefix: list[int] = row[: len(row) - math.ceil(min_share * len(row) - _ROUNDING) + 1].tolist()
    return prefix


def _jaccard(own: set[int], row: np.ndarray) -> float:
    shared = len(own.intersection(row.tolist()))
    return shared / (len(own) + len(row) - shared)


def _root(parents: list[int], index: int) -> int:
    while parents[index] != index:
        parents[index] = parents[parents[index]]
        index = parents[index]
    return index
