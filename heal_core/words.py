"""Texts as words, and their word n-grams as 64-bit hashes: what similarity and contamination are counted in.

What does not belong here: what two texts that share n-grams are to each other (`duplicates`,
`decontamination`).
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

# Scripts written without spaces count a character as a word; of the punctuation only
# what changes a formula's meaning is read.
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+|[-+*/=<>^%!]")
_NO_WORD = 0
_ODD = np.uint64(0x9E3779B97F4A7C15)
_HALF = np.uint64(32)


def words_of(text: str) -> list[str]:
    """Return the words of the text, case, spacing and sentence punctuation aside."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def hashed_ngrams(texts: Sequence[str], num_words: int) -> list[np.ndarray]:
    """Return the hash of each text's word n-grams in the order of the text, shape [max(1, W - num_words + 1)].

    W is the number of its words. Equal n-grams have equal hashes, in any call; of 10^7 different ones
    two share a hash with a probability of 3 in a million. A text shorter than `num_words` is one n-gram.
    """
    known: dict[str, int] = {}
    rows = []
    for text in texts:
        words = words_of(text)
        row = [known.get(word) or known.setdefault(word, _hash(word)) for word in words]
        rows.append(row + [_NO_WORD] * (num_words - len(row)))
    if not rows:
        return []
    words_flat = np.fromiter((word for row in rows for word in row), np.uint64, sum(map(len, rows)))
    hashes = _window_hashes(words_flat, num_words)
    starts = np.cumsum([0, *map(len, rows)]).tolist()
    # the windows that begin in a text and end in the next one are left out
    return [hashes[start : end - num_words + 1] for start, end in pairwise(starts)]


def _window_hashes(words: np.ndarray, num_words: int) -> np.ndarray:
    """Return a hash of each window of `num_words` consecutive words, shape [len(words) - num_words + 1]."""
    num_windows = len(words) - num_words + 1
    hashes = np.zeros(num_windows, np.uint64)
    for offset in range(num_words):
        hashes += words[offset : offset + num_windows]
        hashes *= _ODD
        hashes ^= hashes >> _HALF
    return hashes


def _hash(word: str) -> int:
    """Return 64 bits of the word, never those that stand for no word."""
    digest = hashlib.blake2b(word.encode(errors="replace"), digest_size=8).digest()
    return int.from_bytes(digest, "little") or 1
