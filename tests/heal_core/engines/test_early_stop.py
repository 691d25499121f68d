from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from transformers import AutoTokenizer

from heal_core.engines.base import SamplingConfig
from heal_core.engines.early_stop import EarlyStopConfig, LoopWatch, line_ends

LAB = Path(__file__).parents[3] / "deployments" / "lab"
NEWLINE = 9


def stops_after(config: EarlyStopConfig, token_ids: list[int]) -> int | None:
    """Return how many tokens a text has when it is given up; None when it is not."""
    watch = LoopWatch(config, lambda token_id: token_id == NEWLINE)
    return next((index + 1 for index, token_id in enumerate(token_ids) if watch.add(token_id)), None)


def test_a_text_ends_where_its_ngram_occurs_for_the_last_time_that_is_allowed() -> None:
    # 1 2 3 with a period of 3: the 3-gram (1, 2, 3) ends at tokens 3, 6 and 9
    config = EarlyStopConfig(ngram=3, repeats=3)
    assert stops_after(config, [1, 2, 3] * 4) == 9
    assert stops_after(config, [7, 7, 1, 2, 3, 1, 2, 3]) is None
    # the occurrences need not be next to each other, and may overlap
    assert stops_after(config, [1, 2, 3, 7, 1, 2, 3, 8, 9, 1, 2, 3, 4]) == 12
    assert stops_after(config, [5] * 10) == 5


def test_by_default_a_text_that_says_20_tokens_for_the_fifth_time_is_given_up() -> None:
    assert EarlyStopConfig().model_dump() == {"ngram": 20, "repeats": 5, "max_step_tokens": None}
    cycle = list(range(100, 120))
    assert stops_after(EarlyStopConfig(), cycle * 5) == 100
    assert stops_after(EarlyStopConfig(), cycle * 5 + [1]) == 100
    assert stops_after(EarlyStopConfig(), (cycle * 5)[:-1]) is None
    assert stops_after(EarlyStopConfig(), [token for n in range(50) for token in (*cycle[:19], n)]) is None


@given(st.lists(st.integers(0, 2), max_size=60), st.integers(1, 6), st.integers(2, 4))
def test_it_counts_every_ngram_as_a_count_over_the_whole_text_does(
    token_ids: list[int], ngram: int, repeats: int
) -> None:
    counts: Counter[tuple[int, ...]] = Counter()
    expected = None
    for end in range(ngram, len(token_ids) + 1):
        counts[tuple(token_ids[end - ngram : end])] += 1
        if max(counts.values()) >= repeats:
            expected = end
            break
    assert stops_after(EarlyStopConfig(ngram=ngram, repeats=repeats), token_ids) == expected


def test_a_line_that_runs_on_is_given_up_and_lines_that_end_are_not() -> None:
    config = EarlyStopConfig(ngram=None, max_step_tokens=4)
    assert stops_after(config, [1, 2, 3, NEWLINE, 1, 2, 3, NEWLINE]) is None
    assert stops_after(config, [1, NEWLINE, 1, 2, 3, 4, NEWLINE]) == 6
    assert stops_after(config, [1] * 9) == 4  # no loop is looked for
    both = EarlyStopConfig(ngram=2, repeats=2, max_step_tokens=4)
    assert stops_after(both, [1, 2, NEWLINE, 1, 2]) == 5
    assert stops_after(both, [1, 2, 3, 4]) == 4


def test_token_0_counts_as_any_other() -> None:
    config = EarlyStopConfig(ngram=2, repeats=2)
    assert stops_after(config, [0, 0, 0]) == 3
    assert stops_after(config, [0, 1, 0, 0]) is None


def test_the_end_of_a_line_is_found_inside_a_token() -> None:
    tokenizer = AutoTokenizer.from_pretrained(LAB / "teacher")
    ends_line = line_ends(tokenizer)
    ids = tokenizer.encode("2 + 3 = 5.\nSo 5.\n\n", add_special_tokens=False)
    assert [ends_line(token_id) for token_id in ids] == ["\n" in tokenizer.decode([token_id]) for token_id in ids]
    assert {ends_line(token_id) for token_id in ids} == {True, False}


def test_settings_that_stop_nothing_are_refused() -> None:
    for settings in ({"ngram": None}, {"repeats": 1}, {"ngram": 0}, {"max_step_tokens": 0}, {"period": 3}):
        with pytest.raises(ValidationError):
            EarlyStopConfig(**settings)


def test_it_is_part_of_how_a_text_is_sampled_only_where_it_is_set() -> None:
    plain, watched = SamplingConfig(), SamplingConfig(early_stop=EarlyStopConfig())
    assert plain.identity() == {"temperature": 0.6, "top_p": 0.95}
    assert "early_stop" not in plain.model_dump(mode="json")
    assert watched.identity()["early_stop"] == {"ngram": 20, "repeats": 5, "max_step_tokens": None}
    assert SamplingConfig(**watched.model_dump(mode="json")) == watched
