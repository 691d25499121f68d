from __future__ import annotations

import pytest

from heal_core import errors
from heal_core.failures import FailuresConfig, may_be_of_a_problem, may_pass


@pytest.mark.parametrize(
    ("error", "retried", "alone"),
    [
        (errors.TransientError("busy"), True, True),
        (errors.EngineStalledError("died"), True, True),
        (errors.TrainingStalledError("silent"), True, True),
        (errors.RequestError("too long"), False, True),
        (errors.ShapeError("a defect"), False, True),
        (ZeroDivisionError("a defect"), False, True),
        (errors.ConfigError("a mistake"), False, False),
        (errors.InputError("a mistake"), False, False),
        (errors.ModelError("no such folder"), False, False),
        (errors.StoreError("the disk is full"), False, False),
        (errors.TrainingError("diverged"), False, False),
        (errors.TimeIsUpError("07:00"), False, False),
        (errors.BudgetSpentError("2,000,000 tokens"), False, False),
        (errors.TooManyFailuresError("lost"), False, False),
        (KeyboardInterrupt(), False, False),
    ],
)
def test_what_is_tried_again_and_what_is_tried_problem_by_problem(
    error: BaseException, retried: bool, alone: bool
) -> None:
    assert (may_pass(error), may_be_of_a_problem(error)) == (retried, alone)


def test_pauses_grow_exponentially_up_to_ten_minutes() -> None:
    assert FailuresConfig().delays_seconds() == [5.0, 20.0, 80.0]
    # 100 * 4 = 400; 1600 and 6400 are beyond 600
    assert FailuresConfig(max_retries=4, retry_delay_seconds=100).delays_seconds() == [100.0, 400.0, 600.0, 600.0]
    assert FailuresConfig(max_retries=0).delays_seconds() == []


@pytest.mark.parametrize(
    ("share", "num_problems", "most"),
    # 0.05 of 220 are 11; of 11 problems not one whole, but where any may fail one may
    [(0.05, 220, 11), (0.05, 11, 1), (0.0, 220, 0), (1.0, 7, 7)],
)
def test_a_run_may_lose_a_share_of_its_problems(share: float, num_problems: int, most: int) -> None:
    assert FailuresConfig(max_quarantined_share=share).max_quarantined(num_problems) == most
