import pytest
from hypothesis import given
from hypothesis import strategies as st

from heal_core.curriculum import CurriculumConfig
from heal_core.equal_tokens import count_used, example_cap, plan_more
from heal_core.records import Band


def test_the_sample_that_crosses_the_budget_is_included() -> None:
    # 10 + 10 = 20 < 25 <= 30
    assert count_used([10, 10, 10, 10], 25) == 3
    assert count_used([10, 10, 10, 10], 20) == 2
    assert count_used([10, 10], 1) == 1


def test_nothing_is_spent_of_no_budget_and_all_of_too_large_a_one() -> None:
    assert count_used([10, 10], 0) == 0
    assert count_used([10, 10], 21) == 2
    assert count_used([], 5) == 0


def test_a_sample_without_tokens_still_costs_one() -> None:
    # or a teacher that answers nothing would never spend a budget
    assert count_used([0, 0, 0, 0], 3) == 3


def test_more_samples_are_planned_by_the_mean_so_far() -> None:
    # p: 100 - (20 + 30) = 50 are left, 25 each: 2 more. q has none yet: 100 / 40 = 2.5, so 2 first.
    # r has spent its budget, s has none, t lacks less than one sample
    more = plan_more(
        {"p": [20, 30], "r": [100], "t": [99]},
        {"p": 100, "q": 100, "r": 100, "s": 0, "t": 100},
        {"q": 40.0, "s": 40.0},
    )
    assert more == {"p": 2, "q": 2, "t": 1}


lengths = st.lists(st.integers(0, 50), min_size=300, max_size=300)


@given(lengths, st.integers(0, 250), st.floats(0.0, 60))
def test_planning_in_waves_spends_the_budget(drawn: list[int], budget: int, typical: float) -> None:
    spent: list[int] = []
    while more := plan_more({"p": spent}, {"p": budget}, {"p": typical}):
        spent += drawn[len(spent) : len(spent) + more["p"]]
    used = spent[: count_used(spent, budget)]
    costs = [max(1, num) for num in used]
    assert sum(costs) >= budget
    assert sum(costs[:-1]) < budget or not costs


@pytest.mark.parametrize(("band", "cap"), [(Band.EASY, 4), (Band.HARD, 8), (Band.EXTREMELY_HARD, 8)])
def test_the_baseline_may_take_what_heal_may_whatever_heal_got(band: Band, cap: int) -> None:
    # base rollouts, plus guided (hard) or repairs (extremely hard), each at most 4
    assert example_cap(band, CurriculumConfig(max_per_problem=4)) == cap
