from concurrent.futures import ThreadPoolExecutor

import pytest

from heal_core.budget import TokenBudget
from heal_core.errors import BudgetSpentError, LimitReachedError


def test_a_budget_is_spent_when_it_is_reached_and_stays_so() -> None:
    budget = TokenBudget(1000)
    budget.spend(999)
    budget.check()
    with pytest.raises(BudgetSpentError, match="this start sampled 1,000 tokens of 1,000"):
        budget.spend(1)
    with pytest.raises(LimitReachedError):
        budget.check()


def test_without_a_limit_everything_is_counted_and_nothing_ends() -> None:
    budget = TokenBudget()
    for _ in range(3):
        budget.spend(10**9)
    budget.check()
    assert budget.num_spent == 3 * 10**9
    assert budget.count_affordable([4096] * 480, []) == 480


def test_as_many_texts_are_begun_as_what_is_left_would_pay() -> None:
    budget = TokenBudget(10_000)
    # before any came, at the longest limit: 10,000 // 400
    assert budget.count_affordable([300, 400] * 50, []) == 25
    budget.spend(4_000)
    # then at their mean: 6,000 // 150
    assert budget.count_affordable([400] * 100, [100, 200]) == 40
    assert budget.count_affordable([400] * 30, [100, 200]) == 30
    # empty texts cost nothing, and of the last tokens one text is begun
    assert budget.count_affordable([400] * 9000, [0, 0]) == 6000
    budget.spend(5_999)
    assert budget.count_affordable([400] * 30, [100, 200]) == 1


def test_chunks_in_several_threads_spend_from_the_same_budget() -> None:
    budget = TokenBudget(10**9)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(budget.spend, [3] * 4000))
    assert budget.num_spent == 12_000
