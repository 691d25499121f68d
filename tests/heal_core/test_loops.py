"""Counting n-grams, against a count of slices that needs no hashes."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from heal_core.engines.early_stop import EarlyStopConfig, LoopWatch
from heal_core.loops import most_repeats

tokens = st.lists(st.integers(0, 2), max_size=60)


@given(tokens, st.integers(1, 5))
def test_the_most_frequent_gram_is_counted_as_by_slices(token_ids: list[int], length: int) -> None:
    grams = Counter(tuple(token_ids[n : n + length]) for n in range(len(token_ids) - length + 1))
    assert most_repeats(token_ids, length) == max(grams.values(), default=0)


@given(tokens, st.integers(1, 5), st.integers(2, 5))
def test_a_text_is_given_up_while_it_is_sampled_where_the_gate_would_refuse_it(
    token_ids: list[int], length: int, repeats: int
) -> None:
    watch = LoopWatch(EarlyStopConfig(ngram=length, repeats=repeats), ends_line=lambda token: False)
    given_up = any([watch.add(token) for token in token_ids])
    assert given_up == (most_repeats(token_ids, length) >= repeats)


def test_token_0_counts_as_any_other() -> None:
    assert most_repeats([0, 0, 0, 0], 2) == 3
    assert most_repeats([0], 2) == 0
