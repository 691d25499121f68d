"""Words and their n-grams: what two texts are compared in."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from heal_core.words import hashed_ngrams, words_of

TEXT = st.text(st.sampled_from("ab 中,+\n"), max_size=14) | st.text(max_size=20)


def test_sentence_punctuation_is_no_word_and_what_changes_a_formula_is() -> None:
    assert words_of("One, two three. FOUR five six!") == ["one", "two", "three", "four", "five", "six", "!"]
    assert words_of("What is $2+3$?") != words_of("What is $2-3$?")
    assert words_of("小明有五个") == ["小", "明", "有", "五", "个"]


def test_the_same_word_is_read_in_any_writing() -> None:
    assert words_of("Straße ﬁve ５") == ["strasse", "five", "5"]
    assert words_of("Cafe\N{COMBINING ACUTE ACCENT}") == words_of("CAFÉ")


def test_a_short_text_is_one_hash_that_no_longer_one_has() -> None:
    none, one, five, six = hashed_ngrams(["", "a", "a b c d e", "a b c d e f"], 5)
    assert [len(row) for row in (none, one, five, six)] == [1, 1, 1, 2]
    assert five[0] == six[0]
    assert len({none[0], one[0], *six}) == 4
    assert hashed_ngrams([], 5) == []


def test_the_order_of_words_counts() -> None:
    (row,) = hashed_ngrams(["a b a b a a b b"], 2)
    # ab ba ab ba aa ab bb: four different ones
    assert row[0] == row[2] == row[5] and row[1] == row[3]
    assert len(np.unique(row)) == 4


@settings(deadline=None, max_examples=200)
@given(st.lists(TEXT, max_size=8), st.integers(1, 6))
def test_hashes_are_equal_where_ngrams_are(
    ngrams_of: Callable[[str, int], frozenset[str]], texts: list[str], num_words: int
) -> None:
    name_of: dict[int, str] = {}
    for text, row in zip(texts, hashed_ngrams(texts, num_words), strict=True):
        words = words_of(text)
        grams = [" ".join(words[start : start + num_words]) for start in range(max(1, len(words) - num_words + 1))]
        assert len(row) == len(grams)
        for value, gram in zip(row.tolist(), grams, strict=True):
            assert name_of.setdefault(value, gram) == gram
        assert set(grams) == ngrams_of(text, num_words)
    assert len(set(name_of.values())) == len(name_of)
