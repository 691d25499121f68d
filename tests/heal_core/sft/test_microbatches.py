from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heal_core.sft.microbatches import CALL_TOKENS, MicroBatchLimits, padded_tokens, split_further, split_step

LENGTHS = st.lists(st.integers(1, 500), min_size=1, max_size=7)
LIMITS = st.builds(MicroBatchLimits, st.none() | st.integers(1, 5), st.none() | st.integers(1, 1500))


def fits(lengths: list[int], groups: list[list[int]], limits: MicroBatchLimits) -> bool:
    return all(
        len(group) == 1
        or (
            len(group) <= (limits.max_examples or len(lengths))
            and len(group) * max(lengths[i] for i in group) <= (limits.max_tokens or 10**9)
        )
        for group in groups
    )


def cost(lengths: list[int], groups: list[list[int]]) -> int:
    return padded_tokens(lengths, groups) + CALL_TOKENS * len(groups)


def test_long_ones_are_apart_from_short_ones() -> None:
    # together 4 x 900 = 3,600; apart 1 x 900 + 3 x 100, and one more pass
    assert split_step([100, 900, 100, 100], MicroBatchLimits()) == [[1], [0, 2, 3]]
    # a pass costs more than the 3 x 10 tokens of padding
    assert split_step([100, 110, 100, 100], MicroBatchLimits()) == [[1, 0, 2, 3]]


def test_what_is_longer_than_the_limit_goes_alone() -> None:
    assert split_step([50, 3000, 60], MicroBatchLimits(max_tokens=1000)) == [[1], [2, 0]]


@given(lengths=LENGTHS, limits=LIMITS)
def test_each_example_is_in_one_micro_batch_and_no_other_cut_is_cheaper(
    lengths: list[int], limits: MicroBatchLimits
) -> None:
    groups = split_step(lengths, limits)
    assert sorted(itertools.chain(*groups)) == list(range(len(lengths)))
    assert fits(lengths, groups, limits)
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    for cuts in itertools.product([False, True], repeat=len(lengths) - 1):
        other = [[order[0]]]
        for index, is_cut in zip(order[1:], cuts, strict=True):
            if is_cut:
                other.append([])
            other[-1].append(index)
        assert not fits(lengths, other, limits) or cost(lengths, groups) <= cost(lengths, other)


@given(lengths=LENGTHS, more=st.integers(0, 6))
def test_processes_can_agree_on_a_number_of_passes(lengths: list[int], more: int) -> None:
    groups = split_step(lengths, MicroBatchLimits())
    wanted = min(len(groups) + more, len(lengths))
    split = split_further(groups, wanted)
    assert len(split) == wanted and all(split)
    assert sorted(itertools.chain(*split)) == list(range(len(lengths)))
    assert padded_tokens(lengths, split) <= padded_tokens(lengths, groups)


def test_more_passes_than_examples_are_refused() -> None:
    with pytest.raises(ValueError, match="2 examples in 1 groups cannot be in 3"):
        split_further([[0, 1]], 3)
