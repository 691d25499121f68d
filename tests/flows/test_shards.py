"""How the work of a phase is cut into shards, each a task."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from flows.rollouts import into_shards


def session(chunk_problems: int = 16, num_generations: int = 30) -> Any:
    rollouts = SimpleNamespace(num_generations=num_generations)
    return SimpleNamespace(config=SimpleNamespace(chunk_problems=chunk_problems, rollouts=rollouts))


def shards(sizes: list[int], **settings: int) -> list[tuple[str, list[int]]]:
    """Return the shards of chunks with so many items; an item is its chunk."""
    items = [chunk for chunk, size in enumerate(sizes) for _ in range(size)]
    return list(into_shards(session(**settings), items, lambda item: item))


def test_a_chunk_of_rollouts_is_a_shard_and_small_chunks_are_joined() -> None:
    # 2 problems of 8 generations make a shard of 16
    found = shards([16, 16, 5, 9, 0, 4, 3], chunk_problems=2, num_generations=8)
    assert [(name, len(items)) for name, items in found] == [
        ("chunk 0", 16), ("chunk 1", 16), ("chunks 2 to 5", 18), ("chunk 6", 3),
    ]  # fmt: skip


@given(st.lists(st.integers(0, 40), max_size=30))
def test_every_item_is_in_one_shard_and_no_chunk_is_cut(sizes: list[int]) -> None:
    found = shards(sizes, chunk_problems=2, num_generations=8)
    assert [item for _, items in found for item in items] == [c for c, size in enumerate(sizes) for _ in range(size)]
    assert all(len(items) >= 16 for _, items in found[:-1])
    of = Counter(chunk for _, items in found for chunk in set(items))
    assert set(of.values()) <= {1}


def test_a_run_over_5000_problems_makes_fewer_task_runs() -> None:
    num_chunks = 5000 // 16 + 1
    # per chunk, in a run that finds much to do: 2.5 extremely hard problems of 10 paths and 20 repairs, 5 hard ones
    works = {
        "rollouts": (16 * 30, 2), "profiles": (16 * 30, 1), "hints": (25, 3), "repairs": (500, 2), "guided": (40, 2),
        "scores": (170, 1), "equal tokens": (500, 2), "answers": (13, 2 * 4),
    }  # fmt: skip
    num_tasks = {name: times * len(shards([num_items] * num_chunks)) for name, (num_items, times) in works.items()}
    assert num_tasks["rollouts"] == 2 * num_chunks
    assert sum(num_tasks.values()) < 3000, num_tasks
