from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from heal_core.errors import ShapeError
from heal_core.prompts import ANSWER_CUE
from heal_core.pure import (
    PureCandidate,
    PureConfig,
    PureDecision,
    collect_uncertainties,
    combine_scores,
    decide_drops,
    find_span,
    plan_uncertainties,
)
from heal_core.records import Step
from heal_core.reference import Reference

CONFIG = PureConfig()
STEPS = ["Start with 5.\n\n", "5 + 3 = 8.\n\n", "8 * 2 = 16.\n\n", "The final answer is \\boxed{16}"]


@pytest.mark.parametrize(
    ("start_step", "expected"),
    [
        (1, (1, 2)),  # step 2 asserts 16
        (0, (0, 2)),
        (2, (2, 2)),  # nothing stands between the breakpoint and the assertion
        (3, (3, 3)),  # an assertion before the breakpoint does not count
        (4, None),
    ],
)
def test_the_span_ends_before_the_asserting_step(start_step: int, expected: tuple[int, int] | None) -> None:
    assert find_span(STEPS, Reference("16"), start_step) == expected


def test_no_assertion_no_span() -> None:
    assert find_span(STEPS, Reference("17"), 0) is None
    assert find_span([], Reference("17"), 0) is None


def test_an_assertion_across_steps_belongs_to_the_step_that_holds_the_value() -> None:
    assert find_span(["Think.\n\n", "So the answer is\n\n", "16\n\n", "Done."], Reference("16"), 0) == (0, 2)


def test_the_scores_of_a_worked_example() -> None:
    # P = 2, 4, 2, 1 (means of surprisals ln P); S = {1, 2}; step 3 asserts; epsilon = 0.01.
    # ratio = (4 / (U_2 + eps) + 2 / (U_3 + eps)) / 2 = (4/2 + 2/0.5) / 2 = 3.
    # jump: step 1 ln 4 * (2.99 - 1.99)/2 = 0.693; step 2 ln 2 * (1.99 - 0.49)/0.5 = 2.079;
    #       step 3 ln 1 * .. = 0. Step 0, outside, would give ln 2 * (9 - 2.99)/3 = 1.389.
    # reliance = mean(-1 + 2, -2 + 2) = 0.5.
    score = combine_scores(
        step_surprisals=[
            np.full(2, math.log(2)),
            np.array([0, 2 * math.log(4)]),
            np.full(3, math.log(2)),
            np.zeros(1),
        ],
        answer_uncertainties=np.array([9, 2.99, 1.99, 0.49, 0.0]),
        span=(1, 3),
        hinted_logprobs=np.array([-1.0, -2.0]),
        plain_logprobs=np.array([-2.0, -2.0]),
        config=CONFIG,
    )
    assert score.ratio == pytest.approx(3)
    assert score.jump == pytest.approx(3 * math.log(2))
    assert score.reliance == pytest.approx(0.5)
    assert score.step_perplexities == pytest.approx([2, 4, 2, 1])
    assert (score.span_start, score.span_end, score.reject_reason) == (1, 3, None)


def test_the_jump_looks_at_the_asserting_step_and_at_no_later_one() -> None:
    # Step 1 asserts: ln 2 * (1 - 0.09)/0.1 = 9.1 ln 2. Step 2, later, would give (0.09 - 0)/0.01 = 9 ln 4.
    score = combine_scores(
        step_surprisals=[np.full(1, math.log(2)), np.full(1, math.log(2)), np.full(1, math.log(4))],
        answer_uncertainties=np.array([1.0, 1.0, 0.09, 0.0]),
        span=(0, 1),
        hinted_logprobs=None,
        plain_logprobs=None,
        config=CONFIG,
    )
    assert score.jump == pytest.approx(9.1 * math.log(2))
    assert score.reliance is None


@pytest.mark.parametrize(
    ("span", "prompt_uncertainty", "reason", "bounds"),
    [
        (None, 0.0, "answer_not_found", (2, 2)),
        ((1, 1), 0.0, "empty_span", (1, 1)),
        ((0, 1), 0.0999, "answer_in_problem", (0, 1)),
        ((0, 1), 0.1, None, (0, 1)),
    ],
)
def test_rejected_texts_keep_their_arrays_and_have_no_score(
    span: tuple[int, int] | None, prompt_uncertainty: float, reason: str | None, bounds: tuple[int, int]
) -> None:
    uncertainties = np.array([prompt_uncertainty, 1.0, 0.5])
    score = combine_scores(
        step_surprisals=[np.ones(2), np.ones(2)],
        answer_uncertainties=uncertainties,
        span=span,
        hinted_logprobs=-np.ones(2),
        plain_logprobs=-np.ones(2),
        config=CONFIG,
    )
    assert score.reject_reason == reason
    assert (score.span_start, score.span_end) == bounds
    assert [value is None for value in (score.ratio, score.jump, score.reliance)] == [reason is not None] * 3
    assert score.answer_uncertainties is uncertainties and score.step_perplexities.shape == (2,)


@settings(deadline=None)  # machines are busy
@given(st.data())
def test_perplexities_are_at_least_one_and_scores_never_negative(data: st.DataObject) -> None:
    num_steps = data.draw(st.integers(2, 6))
    nats = st.floats(0, 20)
    surprisals = [np.array(data.draw(st.lists(nats, min_size=1, max_size=4))) for _ in range(num_steps)]
    uncertainties = np.array(data.draw(st.lists(nats, min_size=num_steps + 1, max_size=num_steps + 1)))
    end = data.draw(st.integers(1, num_steps - 1))
    start = data.draw(st.integers(0, end - 1))
    score = combine_scores(
        step_surprisals=surprisals,
        answer_uncertainties=uncertainties,
        span=(start, end),
        hinted_logprobs=None,
        plain_logprobs=None,
        config=PureConfig(min_prompt_uncertainty=0),
    )
    assert np.all(score.step_perplexities >= 1)
    assert score.ratio is not None and score.jump is not None
    # P >= 1 and U <= 20 bound the ratio from below, whatever the span.
    assert score.ratio >= 1 / 20.01 - 1e-12 and score.jump >= 0


def bad_calls() -> list[dict]:
    good = {
        "step_surprisals": [np.ones(2), np.ones(2)],
        "answer_uncertainties": np.ones(3),
        "span": (0, 1),
        "hinted_logprobs": np.zeros(2),
        "plain_logprobs": np.zeros(2),
    }
    return [
        good | change
        for change in (
            {"answer_uncertainties": np.ones(2)},
            {"step_surprisals": [np.ones(2), np.ones(0)]},
            {"span": (0, 2)},  # there is no asserting step after it
            {"span": (1, 0)},
            {"hinted_logprobs": np.zeros(3)},
            {"hinted_logprobs": np.zeros(0), "plain_logprobs": np.zeros(0)},
            {"answer_uncertainties": np.array([1, np.nan, 1])},
            {"answer_uncertainties": np.array([1, 1, np.nan])},
            {"plain_logprobs": np.array([0, -np.inf])},
        )
    ]


@pytest.mark.parametrize("call", bad_calls())
def test_arrays_that_do_not_fit_are_refused(call: dict) -> None:
    with pytest.raises(ShapeError):
        combine_scores(**call, config=CONFIG)


def test_uncertainties_are_planned_after_every_step_and_the_least_form_is_taken() -> None:
    steps = [Step(0, 4, 0, 2), Step(4, 9, 2, 5)]
    requests = plan_uncertainties("row", "prompt", [7, 8, 9, 10, 11], steps, Reference("1/2"))
    after = {request.context_token_ids for request in requests}
    assert after == {(), (7, 8), (7, 8, 9, 10, 11)}
    assert {request.text for request in requests} == {"1/2}", "0.5}"}
    assert {request.cue for request in requests} == {ANSWER_CUE}
    assert len({request.request_id for request in requests}) == len(requests) == 6
    logprobs = {
        request.request_id: -np.array([1.0, 3.0])
        * (len(request.context_token_ids) + 1)
        * (2 if request.text == "1/2}" else 1)
        for request in requests
    }
    # Means 2 nats x (tokens of context + 1); the form "1/2" costs twice that of "0.5".
    assert collect_uncertainties("row", 2, Reference("1/2"), logprobs) == pytest.approx([2, 6, 12])


def candidates(**scores: list[float]) -> list[PureCandidate]:
    return [PureCandidate(f"{p}{i}", p, score) for p, values in scores.items() for i, score in enumerate(values)]


def test_the_worst_fifth_of_each_large_problem_goes() -> None:
    # floor(0.2 * 5) = 1 of p, floor(0.2 * 9) = 1 of q, although q's are all worse than p's.
    found = decide_drops(candidates(p=[1, 5, 2, 3, 4], q=[11, 12, 13, 14, 19, 15, 16, 17, 18]), CONFIG)
    assert found.dropped == {"p1", "q4"}


def test_a_small_problem_loses_what_lies_above_the_pooled_percentile() -> None:
    # Scores 0..10, 80th percentile 8: of q's 7, 8, 9, 10 those above it go; 8 itself stays.
    # Of p's 0..6, floor(0.2 * 7) = 1 goes.
    found = decide_drops(candidates(p=[0, 1, 2, 3, 4, 5, 6], q=[7, 8, 9, 10]), CONFIG)
    assert found == PureDecision(8.0, frozenset({"p6", "q2", "q3"}))


def test_ties_are_broken_by_row_id() -> None:
    assert decide_drops(candidates(p=[1, 1, 1, 1, 1]), CONFIG).dropped == {"p0"}
    assert decide_drops(candidates(p=[1, 1, 1, 1, 1])[::-1], CONFIG).dropped == {"p0"}


def test_the_fraction_is_not_lost_to_binary_rounding() -> None:
    # 0.29 * 100 = 28.999999999999996
    found = decide_drops(candidates(p=list(range(100))), PureConfig(drop_fraction=0.29))
    assert len(found.dropped) == 29


def test_without_candidates_there_is_no_threshold() -> None:
    assert decide_drops([], CONFIG) == PureDecision(None, frozenset())


@pytest.mark.parametrize("score", [math.nan, math.inf])
def test_a_score_that_is_not_finite_is_refused(score: float) -> None:
    with pytest.raises(ShapeError, match="p0"):
        decide_drops(candidates(p=[score]), CONFIG)


@settings(deadline=None)  # machines are busy
@given(
    st.dictionaries(
        st.sampled_from("pqr"), st.lists(st.integers(0, 5).map(float), min_size=1, max_size=12), min_size=1
    ),
    st.floats(0, 0.99),
)
def test_no_kept_row_of_a_problem_is_worse_than_a_dropped_one(scores: dict, fraction: float) -> None:
    rows = candidates(**scores)
    found = decide_drops(rows, PureConfig(drop_fraction=fraction))
    for problem, values in scores.items():
        dropped = [row.score for row in rows if row.problem_id == problem and row.row_id in found.dropped]
        kept = [row.score for row in rows if row.problem_id == problem and row.row_id not in found.dropped]
        if dropped and kept:
            assert max(kept) <= min(dropped)
        if len(values) >= 5:
            assert len(dropped) == math.floor(fraction * len(values) + 1e-9)


@pytest.mark.parametrize("setting", [{"score": "best"}, {"epsilon": 0}, {"drop_fraction": 1}, {"lambda": 0.2}])
def test_the_config_refuses_what_cannot_be_meant(setting: dict) -> None:
    with pytest.raises(ValidationError):
        PureConfig(**setting)
