"""Which score wins the validity test, and when it counts as proven."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from heal_core.validity.comparison import ScoredReading, compare
from heal_core.validity.shortcuts import SHORTCUTS, TextKind

NOISE = (0.3, 0.7, 0.1, 0.9, 0.5, 0.2, 0.8, 0.4)


def readings(num_problems: int = 8, **shortcut_values: float) -> Iterator[ScoredReading]:
    """Yield a natural text and a shortcut of each kind per problem; measures are noise but for the ones given."""
    for problem in range(num_problems):
        for position, kind in enumerate((TextKind.NATURAL, *SHORTCUTS)):
            noise = NOISE[(3 * problem + 5 * position) % 8]
            values = dict.fromkeys(
                ("ratio", "jump", "reliance", "length", "mean_perplexity", "final_uncertainty", "num_assertions"), noise
            )
            values |= {name: (value if kind in SHORTCUTS else 0.0) + noise for name, value in shortcut_values.items()}
            yield ScoredReading(kind, f"p{problem}", values)


def rows_of(found: list, kind: str = "all") -> dict:
    return {row.measure: row for row in found if row.kind == kind}


def test_a_score_that_tells_more_than_length_and_leaks_wins() -> None:
    found, verdict = compare(list(readings(jump=2.0)), num_resamples=500)
    assert (verdict.winner, verdict.chosen, verdict.is_validated) == ("jump", "jump", True)
    row = rows_of(found)["jump"]
    assert (row.auroc, row.low, row.high) == (1, 1, 1)
    assert (row.num_problems, row.num_shortcuts, row.num_natural) == (8, 24, 8)
    length = rows_of(found)["length"]
    assert row.difference == pytest.approx(1 - length.auroc)
    assert row.difference_low is not None and 0 < row.difference_low < row.difference
    assert length.difference is None
    assert {row.kind for row in found} == {"all", "pasted", "rationalised", "borrowed"}


def test_a_score_that_tells_no_more_than_length_is_not_proven() -> None:
    _, verdict = compare(list(readings(reliance=2.0, length=-2.0)), num_resamples=500)
    assert (verdict.winner, verdict.chosen, verdict.is_validated) == ("reliance", "ratio", False)


def test_a_baseline_is_turned_the_way_it_tells_more_and_a_score_is_not() -> None:
    found, verdict = compare(list(readings(num_assertions=-2.0, ratio=-2.0)), num_resamples=500)
    rows = rows_of(found)
    assert (rows["num_assertions"].direction, rows["num_assertions"].auroc) == ("lower", 1)
    assert (rows["ratio"].direction, rows["ratio"].auroc) == ("higher", 0)
    assert not verdict.is_validated


def test_few_problems_prove_nothing() -> None:
    assert compare(list(readings(5, jump=2.0)), num_resamples=500)[1].is_validated
    assert compare(list(readings(4, jump=2.0)), num_resamples=500)[1].is_validated is False
    found, _ = compare(list(readings(1, jump=2.0)), num_resamples=500)
    assert rows_of(found)["jump"].low is None and rows_of(found)["jump"].difference_low is None


def test_without_one_of_the_classes_nothing_is_compared() -> None:
    for kinds in ((TextKind.NATURAL,), SHORTCUTS):
        found, verdict = compare([r for r in readings(jump=2.0) if r.kind in kinds], num_resamples=500)
        assert (found, verdict.winner, verdict.chosen, verdict.is_validated) == ([], None, "ratio", False)
