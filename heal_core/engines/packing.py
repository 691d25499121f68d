"""Token rows that begin alike -> trees, in which what they share stands once; PURE's forced answers share nearly all.

A tree is read in one pass: a token sees what leads to it and nothing beside, and its position is how deep it
lies. What does not belong here: which models can read trees (`packable`), and running one (`scoring`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Row:
    """Tokens to read, of which the last `num_scored` are to be scored."""

    request_id: str
    ids: tuple[int, ...]
    num_scored: int


@dataclass
class Tree:
    """Rows with a common beginning, or a single one.

    Attributes:
        ids: The tokens, each before those that follow it, N of them.
        depths: Their positions, shape [N].
        branches: Runs of tokens as (start, end, the token before it, -1 for the root).
        rows: Whose tokens these are.
        columns: Where each row's scored tokens stand, and with them the last one before, shape [num_scored + 1]
            each; empty for a row with nothing to score.
        num_new: How many tokens each row added.
    """

    ids: list[int] = field(default_factory=list)
    depths: list[int] = field(default_factory=list)
    branches: list[tuple[int, int, int]] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    columns: list[np.ndarray] = field(default_factory=list)
    num_new: list[int] = field(default_factory=list)

    @property
    def is_branched(self) -> bool:
        """Return whether a plain causal reading would show a token something beside what leads to it."""
        return any(parent != start - 1 for start, _, parent in self.branches)

    def visible(self, size: int) -> np.ndarray:
        """Return what each token sees, shape [size, size]; padding behind the tree sees itself."""
        seen = np.eye(size, dtype=bool)
        for start, end, parent in self.branches:
            if parent >= 0:
                seen[start:end] |= seen[parent]
            seen[start:end, start:end] |= np.tri(end - start, dtype=bool)
        return seen


def grow_trees(rows: Iterable[Row], max_tokens: int) -> list[Tree]:
    """Return trees that hold each row once, of at most `max_tokens` tokens unless a single row is longer.

    In order of their tokens each row shares the most with the one before. It joins that one's tree
    where it shares more than it adds: what is saved is the reading, what is paid is that all in a
    tree are held against each other.
    """
    trees: list[Tree] = []
    before: Sequence[int] = ()
    path: list[int] = []  # where the tokens of the row before stand in the last tree
    for row in sorted(rows, key=lambda row: (row.ids, row.request_id)):
        shared = _num_shared(before, row.ids)
        num_new = len(row.ids) - shared
        if not trees or shared < num_new or len(trees[-1].ids) + num_new > max_tokens:
            trees.append(Tree())
            shared, num_new, path = 0, len(row.ids), []
        tree = trees[-1]
        start = len(tree.ids)
        if num_new:
            tree.branches.append((start, start + num_new, path[shared - 1] if shared else -1))
        path = [*path[:shared], *range(start, start + num_new)]
        tree.ids.extend(row.ids[shared:])
        tree.depths.extend(range(shared, len(row.ids)))
        tree.rows.append(row)
        tree.num_new.append(num_new)
        tree.columns.append(np.array(path[len(row.ids) - row.num_scored - 1 :] if row.num_scored else [], dtype=int))
        before = row.ids
    return trees


def single_trees(rows: Iterable[Row]) -> list[Tree]:
    """Return a tree per row: nothing is shared."""
    return [tree for row in rows for tree in grow_trees([row], len(row.ids))]


def batches(trees: Sequence[Tree], max_tokens: int) -> list[list[Tree]]:
    """Return trees of like size together, so that each rectangle stays within `max_tokens`, or is a single tree.

    Trees with and without branches never share a batch: those without need no mask.
    """
    found: list[list[Tree]] = []
    for tree in sorted(trees, key=lambda tree: (tree.is_branched, -len(tree.ids), tree.rows[0].request_id)):
        batch = found[-1] if found else []
        fits = bool(batch) and (len(batch) + 1) * len(batch[0].ids) <= max_tokens
        if fits and batch[0].is_branched == tree.is_branched:
            batch.append(tree)
        else:
            found.append([tree])
    return found


def _num_shared(before: Sequence[int], ids: Sequence[int]) -> int:
    for index, (one, other) in enumerate(zip(before, ids, strict=False)):
        if one != other:
            return index
    return min(len(before), len(ids))
