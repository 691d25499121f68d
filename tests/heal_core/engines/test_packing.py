import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from heal_core.engines.packing import Row, Tree, batches, grow_trees, single_trees

token_rows = st.lists(
    st.tuples(st.lists(st.integers(0, 2), min_size=1, max_size=12), st.integers(0, 11)), min_size=1, max_size=12
).map(lambda rows: [Row(f"r{n}", tuple(ids), min(scored, len(ids) - 1)) for n, (ids, scored) in enumerate(rows)])


def read_back(tree: Tree, place: int) -> list[int]:
    """Return the tokens that the one at `place` sees, itself the last."""
    seen = np.flatnonzero(tree.visible(len(tree.ids))[place])
    return [tree.ids[index] for index in seen]


def test_a_worked_example() -> None:
    # after 1 2 the rows go on with 3, 4 5 and 4 6; the tokens 1, 2 and 4 stand once
    rows = [Row("a", (1, 2, 3), 1), Row("b", (1, 2, 4, 5), 2), Row("c", (1, 2, 4, 6), 1)]
    (tree,) = grow_trees(rows, 100)
    assert (tree.ids, tree.depths) == ([1, 2, 3, 4, 5, 6], [0, 1, 2, 2, 3, 3])
    assert tree.branches == [(0, 3, -1), (3, 5, 1), (5, 6, 3)]
    assert (tree.num_new, tree.is_branched) == ([3, 2, 1], True)
    assert [columns.tolist() for columns in tree.columns] == [[1, 2], [1, 3, 4], [3, 5]]
    assert read_back(tree, 5) == [1, 2, 4, 6]


def test_a_row_that_goes_on_where_another_ends_is_no_branch() -> None:
    (tree,) = grow_trees([Row("long", (1, 2, 3, 4), 3), Row("short", (1, 2, 3), 1)], 100)
    assert (tree.ids, tree.is_branched, tree.num_new) == ([1, 2, 3, 4], False, [3, 1])


def test_rows_that_share_little_are_apart() -> None:
    # one shared token against three new ones
    trees = grow_trees([Row("a", (1, 2, 3), 1), Row("b", (1, 5, 6, 7), 1)], 100)
    assert [tree.ids for tree in trees] == [[1, 2, 3], [1, 5, 6, 7]]


def test_forced_answers_along_a_text_are_read_for_little_more_than_the_text() -> None:
    # a text of 400 tokens in 20 steps, and after each of them 6 tokens that differ from its own
    text = tuple(range(100, 500))
    rows = [Row("plain", text, 400 - 1), *(Row(f"U{k}", (*text[: 20 * k], 1, 2, 3, 4, 5, k), 3) for k in range(1, 21))]
    trees = grow_trees(rows, 10_000)
    assert sum(len(row.ids) for row in rows) == 400 + 20 * (20 + 400) // 2 + 20 * 6
    # once, the forced answers, and what the first steps had to repeat: they were shorter than what came after
    assert sum(len(tree.ids) for tree in trees) <= 400 + 20 * 6 + 3 * 20


@settings(deadline=None)
@given(rows=token_rows, max_tokens=st.integers(1, 40))
def test_every_token_sees_its_row_and_nothing_else(rows: list[Row], max_tokens: int) -> None:
    trees = grow_trees(rows, max_tokens)
    assert sorted(row.request_id for tree in trees for row in tree.rows) == sorted(row.request_id for row in rows)
    for tree in trees:
        assert sum(tree.num_new) == len(tree.ids) == len(tree.depths)
        assert len(tree.ids) <= max_tokens or len(tree.rows) == 1
        for row, columns in zip(tree.rows, tree.columns, strict=True):
            assert len(columns) == (row.num_scored + 1 if row.num_scored else 0)
            for offset, place in enumerate(columns):
                length = len(row.ids) - row.num_scored + offset
                assert read_back(tree, place) == list(row.ids[:length])
                assert tree.depths[place] == length - 1


@settings(deadline=None)
@given(rows=token_rows, max_tokens=st.integers(1, 40))
def test_batches_keep_to_the_budget(rows: list[Row], max_tokens: int) -> None:
    for trees in (grow_trees(rows, max_tokens), single_trees(rows)):
        found = batches(trees, max_tokens)
        assert sum(len(batch) for batch in found) == len(trees)
        for batch in found:
            assert len(batch) == 1 or len(batch) * max(len(tree.ids) for tree in batch) <= max_tokens
            assert len({tree.is_branched for tree in batch}) == 1
            assert max(len(tree.ids) for tree in batch) == len(batch[0].ids)


def test_padding_sees_itself_alone() -> None:
    (tree,) = grow_trees([Row("a", (1, 2), 1)], 10)
    assert tree.visible(4).astype(int).tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
