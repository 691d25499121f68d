"""What figures rest on, in their order: the same recipe, the same model, the settings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from heal_core.config import RunConfig, parse_config
from heal_core.forecast.estimate import Estimate, Expectations
from heal_core.forecast.expectations import Sources, expectations
from heal_core.plan import Slot
from heal_core.records import Kind
from heal_core.store.experience import RunYields
from heal_core.store.store import Store

Row = dict[str, Any]
QUESTION = Estimate(30, "questions")


@pytest.fixture
def config() -> RunConfig:
    return parse_config(
        {
            "workspace": "w",
            "problems": {"path": "p.jsonl"},
            "teacher": {"model_name_or_path": "teacher"},
            "student": {"model_name_or_path": "student"},
            "rollouts": {"num_generations": 8, "sampling": {"max_tokens": 50}},
        },
        "test",
    )


@pytest.fixture
def expect(config: RunConfig, store: Store) -> Callable[..., Expectations]:
    def ask(
        recipe_id: str | None = None, similar: tuple[RunYields, bool] | None = None, probed: int = 0
    ) -> Expectations:
        recipes = {Kind.ROLLOUT: recipe_id} if recipe_id else {}
        return expectations(config, Sources(store, store.workspace, recipes, QUESTION, probed), similar)

    return ask


@pytest.fixture
def keep(
    store: Store,
    make_slot: Callable[..., Slot],
    make_rows: Callable[..., list[Row]],
    table_row: Callable[..., Row],
) -> Callable[..., None]:
    """Return a function that stores rollouts of so many tokens each under a recipe of a model."""

    def run(recipe_id: str, model: str, *lengths: int, limit: int = 50, **changes: Any) -> None:
        store.append("recipes", [table_row("recipes", recipe_id=recipe_id, model_name_or_path=model)])
        slots = [make_slot(index=index, recipe_id=recipe_id, limit=limit) for index in range(len(lengths))]
        rows = make_rows(slots)
        for row, length in zip(rows, lengths, strict=True):
            row |= {"num_tokens": length, "num_prompt_tokens": 12, "seconds": 0.5, **changes}
        store.append("trajectories", rows)

    return run


def test_without_anything_the_settings_bound_it(config: RunConfig, store: Store) -> None:
    found = expectations(config, Sources(None, store.workspace, {}, QUESTION), None)
    assert found.rollout.tokens == Estimate(50, "upper bound: rollouts.sampling.max_tokens")
    assert found.hint.tokens == Estimate(512, "upper bound: hints.sampling.max_tokens")
    assert (found.rollout.seconds, found.step) == (None, None)
    assert found.hints_per_path == Estimate(3, "upper bound: hints.max_tries")
    assert found.paths_per_problem.value == 8  # there are only so many rollouts
    assert found.bytes_per_token.basis == "measured in docs/benchmarks.md"


def test_the_same_recipe_goes_before_the_same_model(expect: Callable[..., Expectations], keep: Any) -> None:
    keep("other", "teacher", 10, 20)
    keep("foreign", "another", 49)
    assert expect("own").rollout.tokens == Estimate(15, "measured on 2 rollouts of other settings")
    keep("own", "teacher", 30, 40, 41)
    assert expect("own").rollout.tokens == Estimate(37, "measured on 3 rollouts")
    assert expect("own").rollout.seconds == Estimate(0.5, "measured on 3 rollouts")
    assert expect("own", probed=3).rollout.tokens.basis == "probe of 3"
    assert expect(None).rollout.tokens == Estimate(28.2, "measured on 5 rollouts of other settings")


def test_no_text_counts_as_longer_than_the_limit_and_those_cut_below_it_are_told(
    expect: Callable[..., Expectations], keep: Any
) -> None:
    keep("long", "teacher", 80, 20)  # a larger limit than today's let one grow
    assert expect("long").rollout.tokens == Estimate(35, "measured on 2 rollouts")
    keep("short", "teacher", 20, 20, limit=20, finish_reason="length")
    assert expect("short").rollout.tokens.basis == "measured on 2 rollouts, 100% of them cut at a lower limit"


def test_rollouts_of_b2_are_as_long_as_those_of_a_run_that_is_alike(
    expect: Callable[..., Expectations], keep: Any, store: Store, table_row: Callable[..., Row]
) -> None:
    keep("own", "teacher", 10, 20, 30)
    assert expect("own").extra == expect("own").rollout
    (longest,) = store.rows("SELECT trajectory_id FROM trajectories WHERE num_tokens = 30")
    store.append(
        "run_rows", [table_row("run_rows", run_id="ab12", phase="equal_tokens", row_id=longest["trajectory_id"])]
    )
    found = expect("own", (RunYields("ab12", 6, 4, 2, 0), True))
    assert found.extra.tokens == Estimate(30, "measured on 1 rollouts of B2 in run ab12")
    assert found.rollout.tokens.value == 20


def test_what_was_not_sampled_follows_the_rollouts(expect: Callable[..., Expectations], keep: Any) -> None:
    keep("own", "teacher", 30, 30)
    found = expect("own")
    assert found.repair.tokens == Estimate(30, "as long as a rollout: measured on 2 rollouts")
    assert found.repair.seconds == found.rollout.seconds
    assert found.hint.seconds is not None
    assert found.hint.seconds.value == pytest.approx(0.5 * 512 / 30)
    # question 30, instruction and hint's words 80, the hint 512, a third of a rollout as prefix
    assert found.repair.prompt_tokens.value == pytest.approx(30 + 80 + 512 + 10)


def test_shares_are_those_of_a_run_that_is_alike(expect: Callable[..., Expectations]) -> None:
    run = RunYields("ab12", 6, 4, 2, 0, num_paths=20, num_broken=16, num_hinted=8, num_hints=24, num_repairs=40,
                    num_scored=10, num_base_examples=24, num_guided_examples=4, num_repair_examples=1)  # fmt: skip
    found = expect("own", (run, True))
    assert found.broken_share == Estimate(0.8, "as in run ab12")
    assert (found.hints_per_path.value, found.hinted_share.value, found.scored_share.value) == (1.5, 0.5, 0.25)
    assert (found.base_examples.value, found.guided_examples.value, found.repair_examples.value) == (2, 1, 0.5)
    assert expect("own", (run, False)).broken_share.basis == "as in run ab12, of other settings"


def test_a_run_that_has_only_bands_tells_nothing_of_repairs(expect: Callable[..., Expectations]) -> None:
    found = expect("own", (RunYields("ab12", 6, 4, 2, 0), True))
    assert found.broken_share.basis.startswith("upper bound")
    assert found.base_examples == Estimate(4, "upper bound: curriculum.max_per_problem")


def test_the_arm_answer_needs_no_hints_whatever_runs_of_the_other_arm_had(config: RunConfig, store: Store) -> None:
    answer = config.model_copy(update={"hints": config.hints.model_copy(update={"arm": "answer"})})
    run = RunYields("r", 1, 1, 1, 0, num_paths=10, num_broken=8, num_hints=20, num_hinted=6)
    sources = Sources(store, store.workspace, {}, QUESTION)
    other = expectations(config, sources, (run, False))
    assert (other.hints_per_path.value, other.hinted_share.value) == (20 / 8, 6 / 8)
    for similar in (None, (run, False)):
        found = expectations(answer, sources, similar)
        assert (found.hints_per_path.value, found.hinted_share.value) == (0, 1)
