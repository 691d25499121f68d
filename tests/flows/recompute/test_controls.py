"""The controls B3 to B8 on the scripted world: each differs from HEAL in one thing, and HEAL is what it was."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

import flows.ablation
from heal_core.ablation import AblationConfig
from heal_core.arms import CONTINUED, CONTROLS, NUM_SHARED_STAGES
from heal_core.errors import ConfigError
from tests.flows.recompute.test_nights import AT_ONCE

pytestmark = pytest.mark.slow

ALL = {**AT_ONCE, **{f"controls.{arm}": True for arm in CONTROLS}, "controls.ceiling_samples": 24}
OWN = (
    "SELECT phase, subject_id, decision, reason, value FROM decisions WHERE run_id = $run AND arm IS NULL ORDER BY ALL"
)
STAGES = "SELECT stage, trajectory_id FROM stage_examples WHERE run_id = $run AND arm = '{}' ORDER BY stage, position"


@pytest.fixture(scope="module")
def both(lab: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """Return a run without controls and one with all of them, in one workspace."""
    workspace = tmp_path_factory.mktemp("controls") / "workspace"
    return lab.run(workspace, AT_ONCE), lab.run(workspace, ALL)


def stages(run: Any, arm: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for stage, trajectory_id in run.rows(STAGES.format(arm)):
        found.setdefault(stage, []).append(trajectory_id)
    return found


def test_heal_itself_is_what_it_was_without_controls(both: tuple[Any, Any]) -> None:
    without, with_controls = both
    assert without.rows(OWN) == with_controls.rows(OWN)
    assert stages(without, "heal") == stages(with_controls, "heal")
    funnel = "SELECT * EXCLUDE (run_id) FROM funnel WHERE run_id = $run ORDER BY ALL"
    assert without.rows(funnel) == with_controls.rows(funnel)
    assert with_controls.calls["guided"] == 0, "what both want is made once"
    generated = with_controls.summary["generated"]
    assert generated["controls"] == with_controls.calls["hints"] + with_controls.calls["repairs"] > 0
    assert generated["rollouts"] == with_controls.calls["rollouts"] > 0, "those of B2 and of the ceiling"


def test_controls_share_the_first_two_stages_and_differ_in_the_last(both: tuple[Any, Any]) -> None:
    run = both[1]
    heal = stages(run, "heal")
    for arm in CONTROLS:
        own = stages(run, arm)
        shared = [stage for stage in ("I", "II", "III") if own[stage] == heal[stage]]
        assert len(shared) == NUM_SHARED_STAGES.get(arm, 0)
        if len(shared) == 2:
            assert set(own["II"]) <= set(own["III"])
    assert set(stages(run, "without_repairs")["III"]) == set(heal["II"])


def test_unhinted_continues_the_same_prefixes_without_a_hint(both: tuple[Any, Any]) -> None:
    run = both[1]
    own = run.rows(
        "SELECT parent_id, num_prefix_tokens, count(*), count(hint_id) FROM control_outcomes "
        "WHERE run_id = $run AND arm = 'unhinted' GROUP BY ALL ORDER BY ALL"
    )
    heal = run.rows(
        "SELECT parent_id, num_prefix_tokens, count(*), 0 FROM run_repairs WHERE run_id = $run "
        "GROUP BY ALL ORDER BY ALL"
    )
    assert own == heal != []


def test_a_random_break_lies_in_the_window_and_has_a_hint_of_its_own(both: tuple[Any, Any]) -> None:
    rows = both[1].rows(
        "SELECT list_position(p.step_start_tokens, c.num_prefix_tokens) - 1, p.window_size, p.breakpoint_step, "
        "h.parent_id = c.parent_id "
        "FROM (SELECT DISTINCT parent_id, hint_id, num_prefix_tokens FROM control_outcomes "
        "      WHERE run_id = $run AND arm = 'random_breakpoint') c "
        "JOIN profiles p ON p.trajectory_id = c.parent_id JOIN trajectories h ON h.trajectory_id = c.hint_id"
    )
    assert rows
    assert all(1 <= step <= window and is_own for step, window, _, is_own in rows)
    assert any(step != surge for step, _, surge, _ in rows), "not all draws are the breakpoint"


def test_a_mismatched_hint_is_another_problems(both: tuple[Any, Any]) -> None:
    rows = both[1].rows(
        "SELECT c.problem_id, h.problem_id FROM control_outcomes c JOIN trajectories h ON h.trajectory_id = c.hint_id "
        "WHERE run_id = $run AND arm = 'mismatched_hint'"
    )
    assert rows
    assert all(own != other for own, other in rows)


def test_random_drop_keeps_as_many_per_problem_as_pure(both: tuple[Any, Any]) -> None:
    run = both[1]
    query = (
        "SELECT problem_id, count(*) FROM decisions WHERE run_id = $run AND phase = '{}' AND decision = 'kept' "
        "AND coalesce(arm, 'random_drop') = 'random_drop' GROUP BY ALL ORDER BY ALL"
    )
    assert run.rows(query.format("control_pure")) == run.rows(query.format("pure")) != []


def test_shuffled_shows_each_example_as_often_as_the_curriculum(both: tuple[Any, Any]) -> None:
    run = both[1]
    heal, shuffled = stages(run, "heal"), stages(run, "shuffled")
    # one epoch each in the scripted world
    exposures = [Counter(row for rows in of_arm.values() for row in rows) for of_arm in (heal, shuffled)]
    assert exposures[0] == exposures[1]
    assert [len(rows) for rows in shuffled.values()] == [len(rows) for rows in heal.values()]
    assert shuffled != heal


def test_what_became_of_every_continuation_adds_up(both: tuple[Any, Any]) -> None:
    run = both[1]
    per_arm = run.rows(
        "SELECT arm, count(*), count(*) FILTER (verified), count(*) FILTER (kept), "
        "count(*) FILTER (outcome = 'undecided') FROM control_outcomes WHERE run_id = $run GROUP BY arm"
    )
    assert {arm for arm, *_ in per_arm} == set(CONTINUED)
    for arm, num, num_verified, num_kept, num_undecided in per_arm:
        assert num >= num_verified >= num_kept
        assert num_undecided == 0
        assert num_kept == len(set(stages(run, arm)["III"]) - set(stages(run, "heal")["II"]))
        ((num_yields,),) = run.rows(f"SELECT sum(num_continued) FROM path_yields WHERE run_id = $run AND arm = '{arm}'")
        assert num_yields == num
    lineage = "SELECT count(*), count(DISTINCT stage_example_id) FROM example_lineage WHERE run_id = $run"
    ((num_rows, num_examples),) = run.rows(lineage)
    assert (num_rows,) == (num_examples,) == run.rows("SELECT count(*) FROM stage_examples WHERE run_id = $run")[0]


def test_the_ceiling_counts_each_plain_sample_once(both: tuple[Any, Any]) -> None:
    rows = both[1].rows("SELECT num_samples, num_correct, is_unsolved FROM ceilings WHERE run_id = $run")
    assert rows
    # 16 rollouts, those of B2 and the ceiling's: 24 at least, more where B2 drew more
    assert min(num for num, *_ in rows) >= 24
    assert all(is_unsolved == (num_correct == 0) for _, num_correct, is_unsolved in rows)


def test_tokens_of_controls_are_no_part_of_the_equal_tokens(both: tuple[Any, Any]) -> None:
    spent = "SELECT sum(num_tokens) FROM token_spend WHERE run_id = $run AND phase IN ('hints', 'repairs', 'guided')"
    without, with_controls = both
    assert without.rows(spent) == with_controls.rows(spent)
    ((num, extra),) = with_controls.rows(
        "SELECT count(*), (SELECT sum(num_tokens) FROM token_spend WHERE run_id = $run AND phase = 'equal_tokens') "
        "FROM example_cost WHERE run_id = $run AND kind = 'all' AND num_tokens > 0"
    )
    assert num == 1 + len(CONTROLS)
    assert extra > 0


def test_what_phases_spend_adds_up_to_each_text_once(both: tuple[Any, Any]) -> None:
    run = both[1]
    ((spent,),) = run.rows("SELECT sum(num_samples) FROM phase_spend WHERE run_id = $run AND phase <> 'evaluation'")
    used = (
        "SELECT count({}) FROM run_rows JOIN trajectories ON trajectory_id = row_id "
        "WHERE run_id = $run AND phase <> 'evaluation'"
    )
    ((distinct,),) = run.rows(used.format("DISTINCT row_id"))
    assert spent == distinct
    assert run.rows(used.format("*")) != [(distinct,)], "some are used in two phases"


def test_controls_of_hints_are_refused_where_none_is_written(lab: Any, tmp_path: Any) -> None:
    with pytest.raises(ConfigError, match="writes none: leave that control out"):
        lab.config(tmp_path, {**ALL, "hints.arm": "answer"})


def test_an_ablation_goes_on_where_it_was_stopped_and_is_stored(
    lab: Any, both: tuple[Any, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    workspace = tmp_path_factory.mktemp("ablation") / "workspace"
    config = lab.config(workspace, AT_ONCE)
    settings = AblationConfig(seeds=(0, 1), arms=("equal_tokens", "unhinted", "random_breakpoint"))

    def ablate(**options: Any) -> dict[str, Any]:
        return lab.call(lambda: flows.ablation.ablate.fn(config, settings, **options), workspace)

    stopped = ablate(max_tokens=1000)
    assert stopped["state"] == "stopped"
    assert stopped["seed"] == 0
    summary = ablate()
    assert summary["state"] == "completed"
    assert [row["seed"] for row in summary["runs"]] == [0, 1]
    assert len({row["run_id"] for row in summary["runs"]}) == 2
    arms = {row["arm"] for row in summary["scores"]}
    assert arms == {"teacher", "base", "heal", *settings.arms}
    assert {row["against"] for row in summary["contrasts"]} == {"base", *settings.arms}
    # windows of this world are too small to compare breakpoints
    assert {row["against"] for row in summary["yields"]} == {"unhinted"}
    lab.ledger.calls.clear()
    again = ablate()
    assert again == summary
    assert lab.ledger.calls.total() == 0, "what is complete is not done again"


def test_seeds_of_the_training_alone_are_one_seed_of_the_texts(
    lab: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    workspace = tmp_path_factory.mktemp("training_seeds") / "workspace"
    config = lab.config(workspace, AT_ONCE)
    settings = AblationConfig(seeds=(0, 1), arms=("unhinted",), reseed="training")
    summary = lab.call(lambda: flows.ablation.ablate.fn(config, settings), workspace)
    assert len({row["run_id"] for row in summary["runs"]}) == 2
    (row,) = summary["yields"]
    assert (row["num_seeds"], row["t_low"], row["is_claim"]) == (1, None, False)
    assert {row["num_seeds"] for row in summary["contrasts"]} == {2}
    assert summary["ceiling"]["num_problems"] == 3
