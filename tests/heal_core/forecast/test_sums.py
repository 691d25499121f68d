"""The sums of a forecast, with the arithmetic in comments."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from heal_core.config import RunConfig, parse_config
from heal_core.forecast.estimate import Estimate, Expectations, PerSample
from heal_core.forecast.sums import Count, Demand, Work, forecast, total, total_costs
from heal_core.records import Band

BANDS = {Band.EASY: 6.0, Band.HARD: 3.0, Band.EXTREMELY_HARD: 1.0, Band.UNGRADED: 0.0}


def estimate(value: float, basis: str = "seen") -> Estimate:
    return Estimate(value, basis)


def sample(tokens: float, prompt_tokens: float, seconds: float | None) -> PerSample:
    return PerSample(estimate(tokens), estimate(prompt_tokens), estimate(seconds) if seconds is not None else None)


@pytest.fixture
def expected() -> Expectations:
    return Expectations(
        rollout=sample(100, 50, 2.0),
        hint=sample(10, 200, 0.5),
        repair=sample(60, 90, 1.0),
        guided=sample(80, 70, 1.5),
        answer=sample(120, 50, 0.1),
        extra=sample(150, 50, 3.0),
        score=sample(0, 1000, 0.25),
        paths_per_problem=estimate(10),
        broken_share=estimate(0.8),
        hints_per_path=estimate(1.5),
        hinted_share=estimate(0.5),
        scored_share=estimate(0.25),
        base_examples=estimate(2.0),
        guided_examples=estimate(1.0),
        repair_examples=estimate(4.0),
        step=sample(500, 0, 3.0),
        bytes_per_token=estimate(10),
        bytes_per_trajectory=estimate(1000),
    )


@pytest.fixture
def demand() -> Demand:
    return Demand(10, 5, {"rollouts": Count(120, 20), "evaluation": Count(40, 10)}, BANDS)


def config(**settings: Any) -> RunConfig:
    tree: dict[str, Any] = {
        "workspace": "w",
        "problems": {"path": "p.jsonl"},
        "teacher": {"model_name_or_path": "t"},
        "student": {"model_name_or_path": "s"},
        "rollouts": {"num_generations": 8},
        "repair": {"num_generations": 5},
        "guided": {"num_generations": 2},
        "sft": {"batch_size": 8},
        "evaluation": {"num_generations": 2},
    }
    for key, value in settings.items():
        group, _, name = key.partition("__")
        tree[group] = {**tree.get(group, {}), name: value}
    return parse_config(tree, "test")


def by_name(works: list[Work]) -> dict[str, Work]:
    return {work.name: work for work in works}


def test_controls_continue_the_same_paths_and_share_stages(demand: Demand, expected: Expectations) -> None:
    plain = by_name(forecast(config(), demand, expected, 5000.0))
    on = {f"controls__{name}": True for name in ("unhinted", "random_breakpoint", "shuffled")}
    works = by_name(forecast(config(**on), demand, expected, 5000.0))
    assert works["control_hints"].wanted == plain["hints"].wanted  # B5 writes its own
    assert works["control_repairs"].wanted == 2 * plain["repairs"].wanted
    assert works["control_pure"].wanted == 2 * plain["pure"].wanted
    first, second, third = 5, 3, 7  # steps: 20 examples x 2, 23 x 1 and 27 x 2, in batches of 8
    assert plain["training"].wanted == 3 * (first + second + third) - first
    assert works["training"].wanted == plain["training"].wanted + 2 * third + (first + second + third)


@pytest.mark.parametrize(
    ("num_samples", "with_equal_tokens", "wanted"),
    [(8, True, None), (20, False, 12), (20, True, 12 - (1320 / 150 + 0.5)), (12, True, 0)],
)
def test_the_ceiling_has_the_rollouts_of_the_run_and_of_equal_tokens_in_it(
    num_samples: int, with_equal_tokens: bool, wanted: float | None, demand: Demand, expected: Expectations
) -> None:
    # one extremely hard problem; its 12 hints and 20 repairs of 120 + 1200 tokens are 8.8 rollouts of B2's 150 tokens
    settings = config(controls__ceiling_samples=num_samples, controls__equal_tokens=with_equal_tokens)
    works = by_name(forecast(settings, demand, expected, None))
    assert ("ceiling" in works) == (wanted is not None)
    if wanted is not None:
        assert works["ceiling"].wanted == pytest.approx(wanted)


def test_controls_that_are_closed_are_counted(demand: Demand, expected: Expectations) -> None:
    counted = replace(demand, counts={**demand.counts, "control_repairs": Count(7, 7)})
    repairs = by_name(forecast(config(controls__unhinted=True), counted, expected, None))["control_repairs"]
    assert (repairs.wanted, repairs.missing, repairs.is_exact, repairs.basis) == (7, 0, True, ())


def test_each_work_follows_from_those_before(demand: Demand, expected: Expectations) -> None:
    works = by_name(forecast(config(), demand, expected, 5000.0))
    rollouts = works["rollouts"]
    assert (rollouts.wanted, rollouts.stored, rollouts.missing, rollouts.is_exact) == (120, 20, 100, True)
    assert (rollouts.tokens, rollouts.prompt_tokens, rollouts.seconds) == (10_000, 5000, 200)
    assert rollouts.disk_bytes == 10_000 * 10 + 100 * 1000
    # 1 problem x 10 paths, of which 8 have a breakpoint
    assert works["hints"].wanted == pytest.approx(8 * 1.5)
    # half of the 8 get a hint, each is continued 5 times
    assert works["repairs"].wanted == pytest.approx(4 * 5)
    assert works["repairs"].tokens == pytest.approx(20 * 60)
    assert works["guided"].wanted == pytest.approx(3 * 2)
    assert works["pure"].prompt_tokens == pytest.approx(20 * 0.25 * 1000)
    assert works["pure"].disk_bytes == 0  # a score is a short row
    # hints 12 x 10 + repairs 20 x 60 + guided 6 x 80 = 1800 tokens: 12 rollouts of 150, and half a one for each of 4
    assert works["equal_tokens"].wanted == pytest.approx(12 + 2)
    assert works["equal_tokens"].tokens == pytest.approx(14 * 150)
    assert not works["repairs"].is_exact
    # D_I 20, D_II 23, D_III 27 examples: ceil(20 x 2 / 8) + ceil(23 / 8) + ceil(27 x 2 / 8) = 5 + 3 + 7, in 3 arms
    assert works["training"].wanted == 3 * 15 - 5  # HEAL and rejection sampling share stage I
    assert (works["training"].seconds, works["training"].disk_bytes) == (120, 5000)
    assert works["evaluation"].tokens == 30 * 120


def test_rows_that_fit_are_not_made_again(demand: Demand, expected: Expectations) -> None:
    found = replace(
        demand, stored_hints=5, stored_repairs=1000, stored_guided=2, stored_scores=4, stored_equal_tokens=7
    )
    works = by_name(forecast(config(), found, expected, None))
    assert works["hints"].missing == pytest.approx(7)
    assert (works["repairs"].stored, works["repairs"].missing) == (works["repairs"].wanted, 0)
    assert works["repairs"].tokens == 0 == works["repairs"].disk_bytes
    assert works["guided"].missing == pytest.approx(4)
    assert works["pure"].missing == pytest.approx(5 - 4)
    assert works["equal_tokens"].missing == pytest.approx(14 - 7)


def test_what_a_run_has_closed_is_counted_and_done(demand: Demand, expected: Expectations) -> None:
    counts = {**demand.counts, **{name: Count(7, 7) for name in ("hints", "repairs", "guided", "pure", "equal_tokens")}}
    closed = replace(demand, counts=counts, closed=frozenset(["training"]))
    works = by_name(forecast(config(), closed, expected, None))
    assert all(works[name].is_exact and not works[name].missing for name in counts if name not in demand.counts)
    assert (works["training"].wanted, works["training"].missing) == (8, 0)


def test_controls_and_repairs_that_are_off_are_not_wanted(demand: Demand, expected: Expectations) -> None:
    settings = config(controls__equal_tokens=False, controls__rejection_sampling=False, repair__max_paths=0)
    works = by_name(forecast(settings, replace(demand, num_repairable=0), expected, None))
    assert "equal_tokens" not in works
    assert (works["hints"].wanted, works["repairs"].wanted, works["pure"].wanted) == (0, 0, 0)
    assert works["training"].wanted == 15  # one arm


def test_a_quota_makes_the_repairs_a_bound(demand: Demand, expected: Expectations) -> None:
    settings = config(repair__quota={"verified": 2, "wave": 5})
    note = "upper bound: repair.quota may end them sooner"
    assert note in by_name(forecast(settings, demand, expected, None))["repairs"].basis
    assert note not in by_name(forecast(config(), demand, expected, None))["repairs"].basis


def test_paths_that_are_counted_are_not_expected(demand: Demand, expected: Expectations) -> None:
    works = by_name(forecast(config(), replace(demand, num_repairable=5), expected, None))
    assert works["hints"].wanted == pytest.approx(5 * 0.8 * 1.5)


def test_a_promoted_student_answers_too(demand: Demand, expected: Expectations) -> None:
    best = replace(demand, has_best_student=True)
    assert by_name(forecast(config(), best, expected, None))["promotion"].wanted == 5 * 2
    assert "promotion" not in by_name(forecast(config(promotion__enabled=False), best, expected, None))
    assert "promotion" not in by_name(forecast(config(), demand, expected, None))


def test_each_work_costs_what_its_model_does(demand: Demand, expected: Expectations) -> None:
    settings = config(
        teacher__price={"prompt": 100, "completion": 1000, "hour": 3600},
        student__price={"completion": 10, "currency": "CHF"},
        scorer__model_name_or_path="other",
        controls__unhinted=True,
        scorer__price={"prompt": 500},
    )
    works = forecast(settings, demand, expected, None)
    costs = {work.name: work.cost for work in works}
    assert costs["rollouts"] == pytest.approx(0.5 + 10 + 200)  # 5,000 and 10,000 tokens, 200 s
    assert costs["pure"] == costs["control_pure"] == pytest.approx(5 * 1000 * 500 / 1e6)
    assert costs["control_repairs"] == costs["repairs"]
    assert costs["evaluation"] == pytest.approx(3600 * 10 / 1e6)
    assert costs["training"] is None
    assert total_costs(works) == pytest.approx({"USD": sum(c for n, c in costs.items() if c and n != "evaluation"),
                                                "CHF": costs["evaluation"]})  # fmt: skip


def test_a_price_by_the_hour_is_no_cost_where_the_time_is_not_known(demand: Demand, expected: Expectations) -> None:
    unknown = replace(expected, rollout=sample(100, 50, None))
    rollouts = by_name(forecast(config(teacher__price={"hour": 2.0}), demand, unknown, None))["rollouts"]
    assert (rollouts.seconds, rollouts.cost, rollouts.currency) == (None, None, "USD")


def test_a_work_says_what_its_figures_rest_on_once(demand: Demand, expected: Expectations) -> None:
    other = replace(expected, scored_share=estimate(0.5, "a guess"))
    works = by_name(forecast(config(), demand, other, None))
    assert works["pure"].basis == ("seen", "a guess")
    done = replace(demand, counts={"rollouts": Count(120, 120), "evaluation": Count(40, 10)})
    assert by_name(forecast(config(), done, other, None))["rollouts"].basis == ()


def test_the_total_leaves_out_times_that_are_not_known(demand: Demand, expected: Expectations) -> None:
    works = forecast(config(), demand, replace(expected, step=None), None)
    known = [work.seconds for work in works if work.seconds is not None]
    assert len(known) == len(works) - 1
    assert total(works).seconds == pytest.approx(sum(known))
    assert total(works).tokens == pytest.approx(sum(work.tokens for work in works))


def test_the_score_auto_has_its_validity_test_counted(demand: Demand, expected: Expectations) -> None:
    test = {"max_paths": 4, "num_generations": 6, "max_per_prefix": 2}
    assert not {"validity", "validity_scores"} & by_name(forecast(config(), demand, expected, None)).keys()
    works = by_name(forecast(config(pure__score="auto", pure__validity=test), demand, expected, None))
    # 3 hard problems x 4 paths x 0.8 with a breakpoint = 9.6 prefixes, of each 6 + 2 samples of 60 tokens
    assert works["validity"].wanted == pytest.approx(9.6 * 8)
    assert works["validity"].tokens == pytest.approx(9.6 * 8 * 60)
    # 2 natural texts and 2 shortcuts of each of three kinds
    assert works["validity_scores"].wanted == pytest.approx(9.6 * 8)
    assert works["validity_scores"].prompt_tokens == pytest.approx(9.6 * 8 * 1000)
    few = by_name(
        forecast(config(pure__score="auto", pure__validity=test | {"max_prefixes": 5}), demand, expected, None)
    )
    assert (few["validity"].wanted, few["validity_scores"].wanted) == (40, 40)
    counted = replace(demand, counts={**demand.counts, "validity": Count(7, 7), "validity_scores": Count(3, 3)})
    closed = by_name(forecast(config(pure__score="auto"), counted, expected, None))
    assert (closed["validity"].missing, closed["validity_scores"].missing) == (0, 0)
