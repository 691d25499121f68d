"""Random Arrow columns for synthetic stores: ids, texts, token arrays, step lists.

Nothing here was said by a model. Words and tokens are Zipfian and floats have full
mantissas, so that compression is neither flattered nor defeated. What does not belong
here: which rows there are (`population`), and how they are written (`synthetic`).
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

VOCABULARY = 151_936
"""Token ids are drawn below it: the size of a common teacher's vocabulary."""

_NUM_WORDS = 20_000
_LETTERS = np.frombuffer(b"etaoinsrhldcumfpgwybv0123456789+-=()", dtype=np.uint8)


class Columns:
    """Random columns from one seed; the same calls in the same order give the same values."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        lengths = self.rng.integers(1, 11, _NUM_WORDS)
        letters = _LETTERS[self._zipf(int(lengths.sum()), len(_LETTERS))].tobytes()
        ends = np.cumsum(lengths)
        self._words = np.array([letters[end - size : end] for end, size in zip(ends, lengths, strict=True)])

    def ids(self, num: int) -> np.ndarray:
        """Return `num` ids of 32 hexadecimal digits, as content keys look."""
        return np.frombuffer(self.rng.bytes(16 * num).hex().encode(), dtype="S32")

    def lengths(self, num: int, mean: float) -> np.ndarray:
        """Return long-tailed lengths with about this mean, within a quarter and two and a half times of it."""
        drawn = self.rng.gamma(3.0, mean / 3.0, num)
        return np.clip(drawn, max(1.0, mean / 4), 2.5 * mean).astype(np.int32)

    def texts(self, num_chars: np.ndarray) -> pa.Array:
        """Return texts of words, each of the given number of (ASCII) characters."""
        total = int(num_chars.sum())
        parts: list[bytes] = []
        missing = total
        while missing > 0:
            parts.append(b" ".join(self._words[self._zipf(missing // 5 + 8, _NUM_WORDS)].tolist()) + b" ")
            missing -= len(parts[-1])
        return pa.StringArray.from_buffers(
            len(num_chars), pa.py_buffer(_offsets(num_chars)), pa.py_buffer(b"".join(parts)[:total])
        )

    def token_arrays(self, num_tokens: np.ndarray, num_chars: np.ndarray) -> dict[str, pa.Array]:
        """Return the columns of `parts.TOKEN_ARRAYS`, one list per trajectory.

        Args:
            num_tokens: Entries per list, each >= 1.
            num_chars: Length of each text, which the token starts stay below.
        """
        total = int(num_tokens.sum())
        entropies = np.minimum(np.exp(self.rng.normal(-3.0, 2.5, total)), np.log(VOCABULARY)).astype(np.float32)
        logprobs = (-entropies * self.rng.exponential(1.0, total)).astype(np.float32)
        return {
            "token_ids": lists(num_tokens, self._zipf(total, VOCABULARY)),
            "logprobs": lists(num_tokens, logprobs),
            "entropies": lists(num_tokens, entropies),
            "token_starts": lists(num_tokens, self.starts(num_tokens, num_chars)),
        }

    def starts(self, num_pieces: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Return, flat, where each of the pieces begins that a length is cut into: 0 first, then rising."""
        sizes = self.rng.poisson(3.0, int(num_pieces.sum())) + 0.5
        ends = np.cumsum(sizes)
        last = np.cumsum(num_pieces) - 1
        before = np.concatenate([[0.0], ends[last[:-1]]])
        place = ends - sizes - np.repeat(before, num_pieces)
        starts: np.ndarray = (place * np.repeat(lengths / (ends[last] - before), num_pieces)).astype(np.int32)
        return starts

    def _zipf(self, num: int, size: int) -> np.ndarray:
        """Return ranks from 0 to size - 1, rank r about as often as 1 / (r + 1)."""
        ranks: np.ndarray = (np.exp(self.rng.random(num) * np.log(size + 1)) - 1).astype(np.int32)
        ranks[ranks >= size] = size - 1  # rounding
        return ranks


def lists(lengths: np.ndarray, values: np.ndarray) -> pa.Array:
    """Return a list column from flat values."""
    return pa.ListArray.from_arrays(pa.array(_offsets(lengths)), pa.array(values))


def strings(ids: np.ndarray) -> pa.Array:
    """Return byte strings of one width as a string column."""
    widths = np.full(len(ids), ids.dtype.itemsize)
    return pa.StringArray.from_buffers(len(ids), pa.py_buffer(_offsets(widths)), pa.py_buffer(ids.tobytes()))


def _offsets(lengths: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
