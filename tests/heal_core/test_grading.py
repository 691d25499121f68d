"""Verdicts given durably; what grades is a fake here, the real one is tested in tests/heal_core/verify."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from heal_core.errors import StoreError
from heal_core.grading import choose_verdicts, grade_missing
from heal_core.records import Verdict, VerdictLabel
from heal_core.store.store import Store
from heal_core.verify.config import VerifyConfig
from heal_core.verify.grade import verifier_identity
from heal_core.verify.pool import GradeItem


class ScriptedGrader:
    """Calls every text right; after `num_before_break` of them it is broken off, as by Ctrl-C."""

    def __init__(self, num_before_break: int | None = None, version: str | None = None) -> None:
        self.num_before_break = num_before_break
        self.version = version
        self.graded: list[GradeItem] = []

    def grade_all(self, items: Sequence[GradeItem]) -> Iterator[tuple[str, Verdict]]:
        for number, item in enumerate(items):
            if number == self.num_before_break:
                raise KeyboardInterrupt
            self.graded.append(item)
            name, version = verifier_identity(item.reference.problem_type)
            yield item.item_id, Verdict(VerdictLabel.CORRECT, "2", "boxed", None, name, self.version or version, 0.1)


@pytest.fixture
def row_ids(store: Store, table_row: Any, make_slot: Any, make_rows: Any) -> list[str]:
    """Store four texts of one problem, and return their ids."""
    slots = [make_slot("p0", index) for index in range(4)]
    store.append("problems", [table_row("problems", problem_id="p0")])
    store.append("trajectories", make_rows(slots))
    return sorted(slot.row_id for slot in slots)


def stored(store: Store) -> list[dict[str, Any]]:
    return store.rows("SELECT * FROM verdicts ORDER BY trajectory_id")


def test_only_what_has_no_verdict_is_graded_and_each_says_what_made_it(store: Store, row_ids: list[str]) -> None:
    first, again, told = ScriptedGrader(), ScriptedGrader(), []
    assert grade_missing(store, first, row_ids[:1], VerifyConfig()) == {"correct": 1, "wrong": 0, "unverifiable": 0}
    assert grade_missing(store, again, row_ids, VerifyConfig(), lambda: told.append(1))["correct"] == len(told) == 3
    assert sorted(item.item_id for item in again.graded) == row_ids[1:]
    assert [row["trajectory_id"] for row in stored(store)] == row_ids
    identity = verifier_identity("math")
    assert {(row["verifier"], row["verifier_version"], row["limit_seconds"]) for row in stored(store)} == {
        (*identity, 5.0)
    }


def test_what_is_graded_when_it_is_broken_off_is_stored(store: Store, row_ids: list[str]) -> None:
    with pytest.raises(KeyboardInterrupt):
        grade_missing(store, ScriptedGrader(num_before_break=3), row_ids, VerifyConfig())
    assert [row["trajectory_id"] for row in stored(store)] == row_ids[:3]


def test_a_verifier_that_was_replaced_meanwhile_is_refused(store: Store, row_ids: list[str]) -> None:
    with pytest.raises(StoreError, match=r"math-verify .* was replaced by 99 .* Run the same command again"):
        grade_missing(store, ScriptedGrader(version="99"), row_ids, VerifyConfig())
    assert stored(store) == []


@pytest.mark.parametrize(
    ("reason", "limit_seconds", "is_chosen"),
    [("timeout", 5.0, True), ("timeout", 20.0, False), ("different", 20.0, True)],
)
def test_a_verdict_answers_unless_it_ran_out_of_less_time(
    store: Store,
    row_ids: list[str],
    table_row: Callable[..., dict[str, Any]],
    reason: str,
    limit_seconds: float,
    is_chosen: bool,
) -> None:
    name, version = verifier_identity("math")
    row = table_row(
        "verdicts", verdict_id="v", trajectory_id=row_ids[0], reason=reason, verifier=name, verifier_version=version,
        limit_seconds=5.0,
    )  # fmt: skip
    older = table_row("verdicts", verdict_id="older", trajectory_id=row_ids[1], verifier=name, verifier_version="0")
    store.append("verdicts", [row, older])
    chosen = choose_verdicts(store, row_ids[:2], VerifyConfig(timeout_seconds=limit_seconds))
    assert chosen == {row_ids[0]: "v" if is_chosen else None, row_ids[1]: None}
