"""Which repairs are read blind, in which order, and how far judgements agree."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heal_core.audit import PURE, draw_sample, measure_agreement, printable, report_audit

KEPT, DROPPED = [f"k{n}" for n in range(80)], [f"d{n}" for n in range(60)]


def test_as_many_kept_as_dropped_repairs_are_drawn_and_mixed() -> None:
    sample = draw_sample("run", KEPT, DROPPED, 50)
    assert (sample.num_kept, sample.num_dropped, len(set(sample.trajectory_ids))) == (50, 50, 100)
    kinds = [row_id[0] for row_id in sample.trajectory_ids]
    # of 99 neighbours about half differ; a list by kind would have one that does
    assert 30 < sum(a != b for a, b in pairwise(kinds)) < 70


def test_the_same_run_gives_every_auditor_the_same_texts_whatever_order_they_come_in() -> None:
    sample = draw_sample("run", KEPT, DROPPED, 50)
    assert draw_sample("run", KEPT[::-1], DROPPED[::-1], 50) == sample
    assert draw_sample("other", KEPT, DROPPED, 50) != sample


def test_a_larger_sample_holds_a_smaller_one_in_its_order() -> None:
    small, large = (draw_sample("run", KEPT, DROPPED, num).trajectory_ids for num in (10, 50))
    assert [row_id for row_id in large if row_id in small] == list(small)


def test_where_there_are_fewer_all_are_taken() -> None:
    sample = draw_sample("run", KEPT[:3], DROPPED, 50)
    assert (sample.num_kept, sample.num_dropped) == (3, 50)
    assert draw_sample("run", [], [], 50).trajectory_ids == ()


def judges(*counts: tuple[str, str, int]) -> tuple[dict[str, str], dict[str, str]]:
    """Return two judges that give these pairs of labels so often."""
    pairs = [(one, other) for one, other, num in counts for _ in range(num)]
    return {str(n): one for n, (one, _) in enumerate(pairs)}, {str(n): other for n, (_, other) in enumerate(pairs)}


def test_kappa_of_a_worked_example() -> None:
    # 35 of 50 agree: 0.7. Genuine: 25 of 50 and 30 of 50; by chance 0.5 * 0.6 + 0.5 * 0.4 = 0.5. (0.7 - 0.5) / 0.5
    one, other = judges(
        ("genuine", "genuine", 20),
        ("genuine", "shortcut", 5),
        ("shortcut", "genuine", 10),
        ("shortcut", "shortcut", 15),
    )
    found = measure_agreement(one, other)
    assert (found.num_texts, found.num_unsure) == (50, 0)
    assert found.agreed_share == pytest.approx(0.7)
    assert found.kappa == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("counts", "kappa"),
    [
        ([("genuine", "genuine", 5), ("shortcut", "shortcut", 3)], 1.0),
        ([("genuine", "shortcut", 4), ("shortcut", "genuine", 4)], -1.0),
        ([("genuine", "genuine", 4)], None),  # who always says the same agrees by chance alone
        ([("genuine", "shortcut", 4)], 0.0),
        ([], None),
    ],
)
def test_the_ends_of_kappa(counts: list[tuple[str, str, int]], kappa: float | None) -> None:
    assert measure_agreement(*judges(*counts)).kappa == (None if kappa is None else pytest.approx(kappa))


def test_a_text_that_one_is_unsure_of_or_has_not_read_is_not_compared() -> None:
    one, other = judges(("genuine", "genuine", 2), ("unsure", "genuine", 3), ("shortcut", "unsure", 1))
    found = measure_agreement(one | {"only one": "genuine"}, other)
    assert (found.num_texts, found.num_unsure, found.agreed_share) == (2, 4, 1.0)


@given(st.lists(st.tuples(st.sampled_from(["genuine", "shortcut"]), st.sampled_from(["genuine", "shortcut"]))))
def test_agreement_does_not_depend_on_who_is_named_first(pairs: list[tuple[str, str]]) -> None:
    one, other = judges(*((a, b, 1) for a, b in pairs))
    assert measure_agreement(one, other) == measure_agreement(other, one)
    kappa = measure_agreement(one, other).kappa
    assert kappa is None or -1 <= kappa <= 1


def label(auditor: str, row_id: str, word: str, decision: str, hint_shown: bool = False) -> dict[str, Any]:
    return {
        "auditor": auditor, "trajectory_id": row_id, "label": word, "pure_decision": decision, "hint_shown": hint_shown,
    }  # fmt: skip


def test_a_report_has_counts_and_agreement_with_pure_and_between_auditors() -> None:
    report = report_audit([
        label("ben", "a", "genuine", "kept"),
        label("ben", "b", "shortcut", "dropped", hint_shown=True),
        label("ben", "c", "genuine", "dropped"),
        label("ann", "a", "genuine", "kept"),
        label("ann", "b", "unsure", "dropped"),
    ])  # fmt: skip
    ann, ben = report["auditors"]
    assert (ben["kept"], ben["dropped"], ben["num_hint_shown"]) == (
        {"genuine": 1, "shortcut": 0, "unsure": 0}, {"genuine": 1, "shortcut": 1, "unsure": 0}, 1,
    )  # fmt: skip
    assert ann["dropped"] == {"genuine": 0, "shortcut": 0, "unsure": 1}
    by_judges = {(row["one"], row["other"]): row for row in report["agreement"]}
    assert by_judges.keys() == {("ann", PURE), ("ben", PURE), ("ann", "ben")}
    assert by_judges["ben", PURE]["agreed_share"] == pytest.approx(2 / 3)
    assert (by_judges["ann", "ben"]["num_texts"], by_judges["ann", "ben"]["num_unsure"]) == (1, 1)


def test_a_text_cannot_steer_the_terminal() -> None:
    assert printable("a\x1b[2J\x07b\u202ec\r\nd\te") == "a\\x1b[2J\\x07b\\u202ec\nd   e"
    assert printable("é 数\u00a0x [bold]") == "é 数 x [bold]"
    assert printable("over\rwritten") == "over\\rwritten"


@given(st.text())
def test_what_is_shown_is_printable(text: str) -> None:
    assert all(sign == "\n" or sign.isprintable() for sign in printable(text))
