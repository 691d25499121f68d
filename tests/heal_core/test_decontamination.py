"""Which training texts hold an evaluation text, in word n-grams; every match is told with its passage."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heal_core.decontamination import Contamination, find_contamination
from heal_core.words import words_of

NgramsOf = Callable[[str, int], frozenset[str]]

TRAIN = "a train leaves the station at nine and arrives at the coast at noon"  # 14 words, 12 different 3-grams


def find(training: Sequence[str], evaluation: Sequence[str], n: int = 3, share: float = 0.8) -> list[Contamination]:
    return list(find_contamination(training, evaluation, n, share))


def test_a_longer_text_that_holds_an_evaluation_text_is_contaminated() -> None:
    (found,) = find(["Something else.", f"Read this: {TRAIN.upper()}! Now say when, in hours."], ["no", TRAIN])
    (match,) = found.matches
    assert (found.training_index, found.evaluation_indices) == (1, (1,))
    assert (match.evaluation_index, match.num_shared, match.num_ngrams, match.passage) == (1, 12, 12, TRAIN)


def test_an_evaluation_text_that_holds_a_training_text_is_not_in_it() -> None:
    # of the 12 3-grams of the evaluation text, 5 words have 3
    assert find([" ".join(TRAIN.split()[:5])], [TRAIN]) == []
    assert len(find([" ".join(TRAIN.split()[:5])], [TRAIN], share=0.25)) == 1


def test_the_share_is_exact() -> None:
    # another word in the middle takes 3 of the 12 3-grams: 9 are left, 0.75
    changed = TRAIN.replace("nine", "ten")
    (found,) = find([changed], [TRAIN], share=0.75)
    assert (found.matches[0].num_shared, found.matches[0].num_ngrams) == (9, 12)
    # the longest run is behind the word: 7 of 14 words, before it 6
    assert found.matches[0].passage == "and arrives at the coast at noon"
    assert find([changed], [TRAIN], share=0.76) == []


def test_a_share_of_zero_asks_for_one_ngram() -> None:
    (found,) = find(["they say at the coast it rains"], [TRAIN], share=0)
    assert (found.matches[0].num_shared, found.matches[0].passage) == (1, "at the coast")
    assert find(["they say on a coast it rains"], [TRAIN], share=0) == []


def test_short_texts_are_compared_whole() -> None:
    assert find(["What is 3 + 4?"], ["what is 3+4"], n=8)[0].matches[0].passage == "what is 3 + 4"
    assert find(["What is 3 + 5?", "Now, what is 3 + 4?", "3"], ["What is 3 + 4?"], n=8, share=0) == []


def test_texts_without_words_match_nothing() -> None:
    assert find(["", "...", TRAIN], ["", "?"], share=0) == []
    assert find([], [TRAIN]) == []
    assert find([TRAIN], []) == []


def test_scripts_without_spaces_and_huge_texts() -> None:
    problem = "小明有五个苹果，小红有三个苹果，一共有几个？"
    huge = "word " * 100_000
    (found,) = find([f"{huge} 请回答：{problem} {huge}"], [problem, "别的问题是什么"])
    assert (found.evaluation_indices, found.matches[0].passage) == ((0,), " ".join(words_of(problem)))


def test_matches_are_told_by_share_and_bounded() -> None:
    evaluation = [" ".join([*TRAIN.split()[:-1], f"end{number}"]) for number in range(4)] + [TRAIN]
    (found,) = find_contamination([TRAIN], evaluation, 3, 0.8, max_matches=2)
    assert found.evaluation_indices == (4, 0, 1, 2, 3)
    assert [(match.evaluation_index, match.num_shared) for match in found.matches] == [(4, 12), (0, 11)]


texts = st.lists(st.lists(st.sampled_from("abcd"), max_size=9).map(" ".join), max_size=8)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.8, 1.0])
@settings(deadline=None, max_examples=80)
@given(texts, texts, st.integers(1, 4))
def test_the_index_finds_what_comparing_every_pair_finds(
    ngrams_of: NgramsOf, share: float, training: list[str], evaluation: list[str], num_words: int
) -> None:
    expected = set()
    for index, held in enumerate(training):
        for other, asked in enumerate(evaluation):
            grams = ngrams_of(asked, num_words)
            shared = grams & ngrams_of(held, num_words)
            if shared - {""} and len(shared) >= share * len(grams):
                expected.add((index, other, len(shared), len(grams)))
    found = find(training, evaluation, num_words, share)
    assert {
        (one.training_index, match.evaluation_index, match.num_shared, match.num_ngrams)
        for one in found
        for match in one.matches
    } == expected
    for one in found:
        assert {match.evaluation_index for match in one.matches} == set(one.evaluation_indices)
        for match in one.matches:
            assert f" {match.passage} " in f" {evaluation[match.evaluation_index]} "
            assert ngrams_of(match.passage, num_words) <= ngrams_of(training[one.training_index], num_words)
