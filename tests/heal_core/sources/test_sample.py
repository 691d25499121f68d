"""Sampling: the seed and a row's content decide, not the order, and one more row moves at most one."""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from heal_core.sources.row import SourceRow
from heal_core.sources.sample import Sample

contents = st.lists(
    st.dictionaries(st.sampled_from("ab"), st.text(max_size=3) | st.none() | st.lists(st.booleans(), max_size=2)),
    max_size=30,
)


def draw(rows: list[dict], num: int, seed: int = 0) -> list[dict]:
    sample = Sample(num, seed)
    for line, content in enumerate(rows, start=1):
        sample.offer(SourceRow("p.jsonl", line, "p.jsonl", content))
    drawn = list(sample.rows())
    assert [row.line for row in drawn] == sorted(row.line for row in drawn)
    return [dict(row.content) for row in drawn]


def as_bag(rows: list[dict]) -> list[str]:
    return sorted(repr(sorted(row.items())) for row in rows)


@given(contents, st.integers(1, 35), st.integers(), st.randoms(use_true_random=False))
def test_the_order_of_the_rows_does_not_matter(rows: list[dict], num: int, seed: int, order: random.Random) -> None:
    drawn = draw(rows, num, seed)
    assert len(drawn) == min(num, len(rows))
    shuffled = order.sample(rows, len(rows))
    assert as_bag(draw(shuffled, num, seed)) == as_bag(drawn)


@given(contents, contents, st.integers(1, 35))
def test_more_rows_put_out_no_more_than_come_in(rows: list[dict], more: list[dict], num: int) -> None:
    before, after = Counter(as_bag(draw(rows, num))), Counter(as_bag(draw(rows + more, num)))
    # whoever comes in is one of the added rows: no old row is drawn because others arrive
    assert after - before <= Counter(as_bag(more))


def test_another_seed_draws_others_and_every_row_is_as_likely() -> None:
    rows = [{"n": str(n)} for n in range(200)]
    draws = [as_bag(draw(rows, 50, seed)) for seed in range(40)]
    assert len({tuple(drawn) for drawn in draws}) == 40
    # 40 draws of a quarter: 10 expected per row, standard deviation 2.7; 6 of them are a bound for 200 rows
    counts = [sum(as_bag([row])[0] in drawn for drawn in draws) for row in rows]
    assert max(abs(count - 10) for count in counts) < 17


def test_of_two_equal_rows_at_the_edge_the_earlier_is_drawn() -> None:
    sample = Sample(1, 0)
    for line in (4, 7):
        sample.offer(SourceRow("p.jsonl", line, "p.jsonl", {"a": "x"}))
    assert [row.line for row in sample.rows()] == [4]
