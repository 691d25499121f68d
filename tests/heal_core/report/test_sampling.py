"""Which trajectories a page holds."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from heal_core.report.sampling import choose_trajectories, keep_fitting

Row = dict[str, Any]


def row(row_id: str, rank: int, phase: str = "rollouts", parent: str | None = None, num_tokens: int = 100) -> Row:
    return {
        "trajectory_id": row_id, "phase": phase, "band": "hard", "label": "wrong", "outcome": None, "reason": None,
        "parent_id": parent, "num_tokens": num_tokens, "rank": rank,
    }  # fmt: skip


def test_all_are_held_where_they_fit() -> None:
    rows = [row(f"r{n}", n + 1) for n in range(5)]
    assert choose_trajectories(rows, []) == ["r0", "r1", "r2", "r3", "r4"]


def test_each_group_gives_one_before_any_gives_two_and_repairs_come_first() -> None:
    rows = [row("r1", 1), row("r2", 2), row("s1", 1, "evaluation"), row("p1", 1, "repairs")]
    assert choose_trajectories(rows, []) == ["p1", "r1", "s1", "r2"]


def test_a_repair_brings_the_rollout_that_it_continues_though_that_was_not_sampled() -> None:
    rows = [row("p1", 1, "repairs", parent="far")]
    assert choose_trajectories(rows, [row("far", 77)]) == ["p1", "far"]


def test_what_does_not_fit_ends_the_page() -> None:
    # an estimate of 2,500 + 16 * 100 = 4,100 bytes each
    rows = [row(f"r{n}", n + 1) for n in range(5)]
    assert choose_trajectories(rows, [], max_bytes=9_000) == ["r0", "r1"]


def test_what_takes_more_than_estimated_ends_the_page_too_and_no_repair_stays_without_its_rollout() -> None:
    parents = {"p1": "w1", "p2": "w2"}
    chosen = ["p1", "w1", "p2", "w2", "r1"]
    size = dict.fromkeys(chosen, 100)
    assert keep_fitting(chosen, parents, size, 500) == chosen
    assert keep_fitting(chosen, parents, size, 399) == ["p1", "w1"]
    assert keep_fitting(chosen, parents, size, 99) == []


@given(
    st.lists(
        st.tuples(st.sampled_from(["repairs", "rollouts", "guided", "evaluation"]), st.integers(0, 3_000)), max_size=30
    ),
    st.integers(0, 60_000),
    st.integers(0, 60_000),
)
def test_a_larger_page_holds_a_smaller_ones(drawn: list[tuple[str, int]], one: int, other: int) -> None:
    rows = [row(f"t{n}", n // 3 + 1, phase, num_tokens=size) for n, (phase, size) in enumerate(drawn)]
    small, large = (choose_trajectories(rows, [], size) for size in sorted((one, other)))
    assert large[: len(small)] == small
    assert len(set(large)) == len(large)
