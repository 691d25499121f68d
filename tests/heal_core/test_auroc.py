"""The area under the ROC curve by ranks, against counts of pairs, and its bootstrap over problems."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from heal_core.auroc import auroc, bootstrap_aurocs
from heal_core.errors import ShapeError

SCORES = np.array([3.0, 1.0, 2.0, 2.0, 0.0])
CLASSES = np.array([True, True, False, False, False])


def test_pairs_are_counted_with_ties_as_halves() -> None:
    # 3 > 2, 2, 0 and 1 > 0 but < 2, 2: 4 of 6 pairs
    assert auroc(SCORES, CLASSES) == pytest.approx(4 / 6)
    # 2 ties with 2 and 2: two halves, and 2 > 0: 2 of 3, with 3 of 3 from the other
    assert auroc(np.array([3.0, 2.0, 2.0, 2.0, 0.0]), CLASSES) == pytest.approx((3 + 2) / 6)
    assert auroc(np.zeros(5), CLASSES) == 0.5


@given(arrays.arrays(np.float64, 12, elements=st.integers(-3, 3).map(float)), st.integers(1, 11))
def test_it_is_the_share_of_pairs_in_order(scores: np.ndarray, num_positive: int) -> None:
    classes = np.arange(12) < num_positive
    difference = scores[classes][:, None] - scores[~classes]
    assert auroc(scores, classes) == pytest.approx(((difference > 0) + 0.5 * (difference == 0)).mean())
    assert auroc(-scores, classes) == pytest.approx(1 - auroc(scores, classes))


def test_a_resample_counts_a_problem_as_often_as_it_was_drawn() -> None:
    rng = np.random.default_rng(7)
    scores, classes, problems = rng.normal(size=(2, 30)), rng.random(30) < 0.5, np.repeat(np.arange(6), 5)
    found = bootstrap_aurocs(scores, classes, problems, num_resamples=40, seed=3)
    assert found.shape == (40, 2)
    drawn = np.random.default_rng(3).multinomial(6, np.full(6, 1 / 6), size=40)
    for counts, row in zip(drawn, found, strict=True):
        chosen = np.concatenate([np.flatnonzero(problems == p) for p in range(6) for _ in range(counts[p])])
        assert row == pytest.approx([auroc(score[chosen], classes[chosen]) for score in scores])


def test_texts_of_a_problem_stay_together() -> None:
    # one problem has both classes in order, the other in disorder: whatever is drawn is a mix of whole problems
    scores, classes = np.array([[2.0, 1.0, 3.0, 4.0]]), np.array([True, False, True, False])
    found = bootstrap_aurocs(scores, classes, np.array(["a", "a", "b", "b"]), num_resamples=200)
    # twice a: 1; twice b: 0; both: 2 > 1, 3 > 1 of 4 pairs
    assert {round(value, 6) for value in found[:, 0]} == {1.0, 0.0, 0.5}


def test_a_resample_without_a_class_has_no_auroc() -> None:
    found = bootstrap_aurocs(np.array([[1.0, 0.0]]), np.array([True, False]), np.array(["a", "b"]), num_resamples=100)
    assert np.isnan(found).any()
    assert set(found[~np.isnan(found)]) == {1.0}


@pytest.mark.parametrize(
    ("scores", "classes"),
    [
        (SCORES, np.ones(5, dtype=bool)),
        (SCORES, CLASSES[:4]),
        (np.array([1.0, np.nan, 0.0, 0.0, 0.0]), CLASSES),
        (SCORES, CLASSES.astype(float)),
    ],
)
def test_what_has_no_auroc_is_refused(scores: np.ndarray, classes: np.ndarray) -> None:
    with pytest.raises(ShapeError):
        auroc(scores, classes)
