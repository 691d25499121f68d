"""Bands: each problem has exactly one, by METHOD's order."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heal_core.bands import BandsConfig, assign_band, pass_rate
from heal_core.errors import ConfigError
from heal_core.records import Band

DEFAULT = BandsConfig()


@pytest.mark.parametrize(
    ("graded", "correct", "generations", "expected"),
    [
        (0, 0, 30, Band.UNGRADED),
        (14, 14, 30, Band.UNGRADED),  # 14 < 30 / 2, though all are correct
        (15, 0, 30, Band.EXTREMELY_HARD),  # 15 is not below the half
        (4, 4, 9, Band.UNGRADED),  # 4 < 4.5
        (30, 1, 30, Band.EXTREMELY_HARD),
        (30, 2, 30, Band.HARD),
        (90, 3, 90, Band.EXTREMELY_HARD),  # floor(90 / 30) = 3
        (89, 3, 89, Band.HARD),  # floor(89 / 30) = 2
        (30, 14, 30, Band.HARD),
        (30, 15, 30, Band.EASY),  # a rate of 0.5 is not below 0.5
        (16, 8, 30, Band.EASY),  # the rate is over the graded ones
        (8, 1, 8, Band.EXTREMELY_HARD),
    ],
)
def test_the_order_and_the_edges(graded, correct, generations, expected):
    assert assign_band(graded, correct, generations, DEFAULT) == expected


@settings(deadline=None)  # machines are busy
@given(generations=st.integers(8, 200), data=st.data())
def test_exactly_one_band_by_its_definition(generations, data):
    graded = data.draw(st.integers(0, generations))
    correct = data.draw(st.integers(0, graded))
    is_graded = graded * 2 >= generations
    is_extreme = correct * 30 <= max(30, generations // 30 * 30)
    definitions = {
        Band.UNGRADED: not is_graded,
        Band.EXTREMELY_HARD: is_graded and is_extreme,
        Band.HARD: is_graded and not is_extreme and correct * 2 < graded,
        Band.EASY: is_graded and not is_extreme and correct * 2 >= graded,
    }
    band = assign_band(graded, correct, generations, DEFAULT)
    assert [name for name, holds in definitions.items() if holds] == [band]


def test_hard_below_moves_the_edge():
    assert assign_band(10, 6, 10, BandsConfig(hard_below=0.7)) == Band.HARD
    assert assign_band(10, 6, 10, DEFAULT) == Band.EASY


def test_few_generations_are_refused():
    with pytest.raises(ConfigError, match="found 7"):
        assign_band(7, 3, 7, DEFAULT)


def test_pass_rate():
    assert pass_rate(0, 0) is None
    assert pass_rate(8, 2) == 0.25
