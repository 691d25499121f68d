from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heal_core.promotion import PromotionConfig, decide_promotion

CONFIG = PromotionConfig()


def test_a_better_student_is_promoted_and_becomes_the_best() -> None:
    candidate = {f"p{i}": 0.75 for i in range(40)}
    best = {f"p{i}": 0.5 for i in range(40)}
    decision = decide_promotion(candidate, best, False, CONFIG)
    # each problem differs by 0.25, so that every resample does
    assert (decision.decision, decision.reason, decision.becomes_best) == ("promoted", "within_margin", True)
    assert (decision.difference, decision.low, decision.high) == (0.25, 0.25, 0.25)
    assert (decision.avg_at_k, decision.best_avg_at_k, decision.num_problems) == (0.75, 0.5, 40)
    assert "+25.0 points [+25.0, +25.0] on 40 problems" in decision.describe()


def test_a_loss_within_the_margin_is_promoted_but_the_best_stays_the_best() -> None:
    # 1 of 400 problems lost half: mean -0.00125, and no resample is likely to be below -0.01
    best = {f"p{i}": 0.5 for i in range(400)}
    decision = decide_promotion({**best, "p0": 0.0}, best, False, CONFIG)
    assert decision.difference == pytest.approx(-0.00125)
    assert decision.low is not None and -0.01 < decision.low < decision.difference
    assert (decision.decision, decision.becomes_best) == ("promoted", False)


def test_small_losses_do_not_add_up_over_nights() -> None:
    # each night loses 5 of 400 problems more: within the margin of the night before, but not of the best
    def night(number: int) -> dict[str, float]:
        return {f"p{i}": float(i >= 5 * number) * 0.25 for i in range(400)}

    against_yesterday = [decide_promotion(night(n + 1), night(n), False, CONFIG).decision for n in range(4)]
    against_best = [decide_promotion(night(n + 1), night(0), False, CONFIG).decision for n in range(4)]
    assert against_yesterday == ["promoted"] * 4
    assert against_best == ["promoted", "refused", "refused", "refused"]


def test_noise_alone_refuses_where_few_problems_are_held_out() -> None:
    # as many lost as won, 8 problems: the interval reaches far below -1 point
    best = {f"p{i}": 0.5 for i in range(8)}
    candidate = {f"p{i}": float(i % 2) for i in range(8)}
    decision = decide_promotion(candidate, best, False, CONFIG)
    assert (decision.decision, decision.reason, decision.difference) == ("refused", "below_margin", 0.0)
    assert decide_promotion(candidate, best, False, PromotionConfig(margin_points=-60)).decision == "promoted"


@pytest.mark.parametrize("shared", [0, 1])
def test_without_an_interval_nothing_is_promoted(shared: int) -> None:
    candidate = {f"p{i}": 1.0 for i in range(shared)} | {"only here": 1.0}
    best = {f"p{i}": 0.0 for i in range(shared)} | {"only there": 0.0}
    decision = decide_promotion(candidate, best, False, CONFIG)
    assert (decision.decision, decision.reason, decision.num_problems) == ("refused", "no_shared_problems", shared)
    assert decision.low is None
    assert f"{shared} held-out problems" in decision.describe()


def test_the_best_student_itself_stays_promoted() -> None:
    scores = {"p0": 0.0, "p1": 1.0}
    decision = decide_promotion(scores, scores, True, CONFIG)
    assert (decision.decision, decision.reason, decision.becomes_best) == ("promoted", "same_student", True)


@given(
    st.dictionaries(st.sampled_from("abcdefgh"), st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), min_size=2),
    st.dictionaries(st.sampled_from("abcdefgh"), st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), min_size=2),
)
def test_what_is_promoted_lies_above_the_margin_on_the_shared_problems(
    candidate: dict[str, float], best: dict[str, float]
) -> None:
    decision = decide_promotion(candidate, best, False, CONFIG)
    assert decision.num_problems == len(candidate.keys() & best.keys())
    if decision.low is not None:
        assert (decision.decision == "promoted") == (decision.low > -0.01)
        assert decision.difference is not None and decision.low <= decision.difference + 1e-12
    assert not decision.becomes_best or decision.decision == "promoted"
