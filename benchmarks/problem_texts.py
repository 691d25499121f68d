"""Texts of synthetic problems: independent ones, planted near-duplicates, and variants of templates.

Words are Zipfian, 30 to 150 to a text. Templates come in two kinds, half and half: `dense`
ones as in GSM-Symbolic (names and numbers in every eighth word, so that variants share half of their 5-grams
at most) and `sparse` ones (two numbers in 70 to 90 words, so that variants are just below and above the usual
threshold), which are hard for any index. What does not belong here: timing (`cleaning`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_VOCABULARY = 50_000
_TEMPLATED_SHARE, _PLANTED_SHARE = 0.2, 0.1
JACCARDS = (0.8, 0.85, 0.9, 0.95)
_SHINGLE_WORDS = 5


@dataclass(frozen=True)
class ProblemTexts:
    """The texts, those of templates last.

    `planted` has the index of a text, of its near-duplicate, and their Jaccard similarity in word 5-grams.
    """

    texts: list[str]
    planted: list[tuple[int, int, float]]
    first_templated: int
    kinds: tuple[str, ...] = ("independent", "dense_template", "sparse_template")

    def kind(self, index: int) -> str:
        """Return which of `kinds` a text is; a near-duplicate counts as independent."""
        templated = index - self.first_templated
        return self.kinds[0] if templated < 0 else self.kinds[1 + templated % 2]


def make_texts(num_texts: int, num_templates: int, seed: int = 0) -> ProblemTexts:
    """Return so many texts, of which a fifth are variants of templates and a tenth near-duplicates."""
    rng = np.random.default_rng(seed)
    num_templates += num_templates % 2  # so that the kinds of templates take turns
    num_templated = int(num_texts * _TEMPLATED_SHARE)
    num_planted = int(num_texts * _PLANTED_SHARE)
    words = _Words(rng)
    originals = [words.draw(length) for length in rng.integers(30, 151, num_texts - num_templated - num_planted)]
    planted, copies = [], []
    for number, index in enumerate(rng.choice(len(originals), num_planted, replace=False).tolist()):
        copy, jaccard = _shortened(originals[index], JACCARDS[number % len(JACCARDS)])
        planted.append((index, len(originals) + number, jaccard))
        copies.append(copy)
    texts = [" ".join(text) for text in [*originals, *copies]]
    templates = [_template(words, rng, number % 2 == 0) for number in range(num_templates)]
    templated = [_fill(rng, *templates[number % num_templates]) for number in range(num_templated)]
    return ProblemTexts([*texts, *templated], planted, len(texts))


class _Words:
    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        shares = np.cumsum(1 / np.arange(1, _VOCABULARY + 1) ** 1.05)
        self._up_to = shares / shares[-1]
        self._words = [f"w{number:x}" for number in range(_VOCABULARY)]

    def draw(self, num: int) -> list[str]:
        return [self._words[index] for index in np.searchsorted(self._up_to, self._rng.random(num)).tolist()]


def _shortened(words: list[str], jaccard: float) -> tuple[list[str], float]:
    """Return the words without the last ones, and what of the 5-grams is left."""
    shingles = {tuple(words[start : start + _SHINGLE_WORDS]) for start in range(len(words) - _SHINGLE_WORDS + 1)}
    kept = words[: len(words) - int((1 - jaccard) * len(shingles))]
    left = {tuple(kept[start : start + _SHINGLE_WORDS]) for start in range(len(kept) - _SHINGLE_WORDS + 1)}
    return kept, len(left) / len(shingles)


def _template(words: _Words, rng: np.random.Generator, is_dense: bool) -> tuple[list[str], list[int]]:
    num_words = int(rng.integers(40, 80) if is_dense else rng.integers(70, 91))
    num_slots = num_words // 8 if is_dense else 2
    return words.draw(num_words), rng.choice(num_words, num_slots, replace=False).tolist()


def _fill(rng: np.random.Generator, words: list[str], slots: list[int]) -> str:
    filled = list(words)
    for slot in slots:
        filled[slot] = str(rng.integers(2, 100))
    return " ".join(filled)
