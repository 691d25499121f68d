import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heal_core.bands import BandsConfig, assign_band
from heal_core.forecast.bands import Graded, band_chances, expected_bands, mean_shares
from heal_core.records import Band

CONFIG = BandsConfig()


@given(st.integers(8, 40), st.data())
def test_chances_add_up_to_one(num_generations: int, data: st.DataObject) -> None:
    num_present = data.draw(st.integers(0, num_generations))
    num_graded = data.draw(st.integers(0, num_present))
    graded = Graded(num_present, num_graded, data.draw(st.integers(0, num_graded)))
    chances = band_chances(graded, num_generations, CONFIG)
    assert sum(chances.values()) == pytest.approx(1)
    assert all(0 <= chance <= 1 + 1e-9 for chance in chances.values())


@given(st.integers(0, 8))
def test_a_problem_whose_rollouts_are_all_graded_has_its_band_for_certain(num_correct: int) -> None:
    chances = band_chances(Graded(8, 8, num_correct), 8, CONFIG)
    assert chances == {assign_band(8, num_correct, 8, CONFIG): pytest.approx(1)}


def test_rollouts_to_come_are_drawn_at_an_uncertain_rate() -> None:
    # 7 of 8 are wrong: with the last one c is 0 or 1, so it is extremely hard in any case
    assert band_chances(Graded(7, 7, 0), 8, CONFIG) == {Band.EXTREMELY_HARD: pytest.approx(1)}
    # c = 3 of 7: hard (3 of 8) if the last is wrong, easy (4 of 8) if it is right, at a rate of Beta(3.5, 4.5)
    chances = band_chances(Graded(7, 7, 3), 8, CONFIG)
    assert chances == {Band.HARD: pytest.approx(4.5 / 8), Band.EASY: pytest.approx(3.5 / 8)}
    # nothing is known: Jeffreys' prior gives c = 0 or 1 of 8 the chance B(.5, 8.5)/B(.5, .5) + 8 B(1.5, 7.5)/B(.5, .5)
    expected = (
        math.gamma(0.5) * math.gamma(8.5) / math.gamma(9) + 8 * math.gamma(1.5) * math.gamma(7.5) / math.gamma(9)
    ) / math.pi
    assert band_chances(Graded(), 8, CONFIG)[Band.EXTREMELY_HARD] == pytest.approx(expected)


def test_what_cannot_be_graded_leaves_the_count() -> None:
    # 3 of 8 have a grade, fewer than half
    assert band_chances(Graded(8, 3, 1), 8, CONFIG) == {Band.UNGRADED: pytest.approx(1)}
    # 4 have one, 2 are right: a rate of 0.5
    assert band_chances(Graded(8, 4, 2), 8, CONFIG) == {Band.EASY: pytest.approx(1)}


def test_problems_are_added_up() -> None:
    chances = [{Band.EASY: 1.0}, {Band.EASY: 0.5, Band.HARD: 0.5}]
    assert expected_bands(chances) == {Band.EASY: 1.5, Band.HARD: 0.5, Band.EXTREMELY_HARD: 0, Band.UNGRADED: 0}
    assert mean_shares(chances) == {Band.EASY: 0.75, Band.HARD: 0.25, Band.EXTREMELY_HARD: 0, Band.UNGRADED: 0}
