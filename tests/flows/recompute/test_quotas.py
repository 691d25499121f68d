"""Quotas on the scripted world: which repairs exist under one, that their counts add up, and resuming."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from heal_core.errors import RequestError
from tests.flows.recompute.test_nights import AT_ONCE, everything, quarantined, without_promotion
from tests.flows.recompute.world import SETTINGS, TRAIN_LEVELS

pytestmark = pytest.mark.slow

NUM = SETTINGS["repair"]["num_generations"]
QUOTA = {**AT_ONCE, "repair.quota": {"verified": 4, "wave": 2}}
HINTED = (
    "SELECT problem_id, count(*) FROM decisions WHERE run_id = $run AND phase = 'path' AND decision = 'kept' "
    "GROUP BY problem_id"
)
YIELD = (
    "SELECT problem_id, num_attempted, num_verified, num_skipped, estimated_tokens_saved FROM repair_yield "
    "WHERE run_id = $run AND num_paths > 0"
)


@pytest.fixture(scope="module")
def under_quota(lab: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return lab.run(tmp_path_factory.mktemp("quota") / "workspace", QUOTA)


@pytest.fixture
def fail(lab: Any) -> Iterator[Any]:
    """Return a function that sets what the engine does before it answers."""

    def set_to(check: Any) -> None:
        lab.ledger.fail = check

    yield set_to
    lab.ledger.fail = lambda kind, prompt: None


def test_a_problem_with_enough_verified_repairs_gets_no_more_and_all_counts_add_up(under_quota: Any) -> None:
    run = under_quota
    hinted = dict(run.rows(HINTED))
    rows = {problem_id: counts for problem_id, *counts in run.rows(YIELD)}
    assert rows.keys() == hinted.keys()
    for problem_id, (attempted, verified, skipped, _) in rows.items():
        assert attempted + skipped == NUM * hinted[problem_id]
        assert skipped == 0 or verified >= 4
    # candidates 0, 1 and 4 of each path are right: two paths have 4 verified ones after the first wave
    of_two_paths = [rows[problem_id] for problem_id, num in hinted.items() if num >= 2]
    assert of_two_paths and all(attempted < attempted + skipped for attempted, _, skipped, _ in of_two_paths)
    num_skipped = sum(skipped for _, _, skipped, _ in rows.values())
    assert run.calls["repairs"] == sum(attempted for attempted, *_ in rows.values())
    decided = dict(run.rows("SELECT subject_id, value FROM decisions WHERE run_id = $run AND phase = 'quota'"))
    assert decided == {problem_id: skipped for problem_id, (_, _, skipped, _) in rows.items()}
    funnel = run.rows("SELECT outcome, reason, num, num_in_phase FROM funnel WHERE run_id = $run AND phase = 'repairs'")
    assert sum(num for _, _, num, _ in funnel) == NUM * sum(hinted.values())
    assert {in_phase for *_, in_phase in funnel} == {NUM * sum(hinted.values())}
    assert [num for outcome, reason, num, _ in funnel if (outcome, reason) == ("skipped", "quota")] == [num_skipped]
    # a problem's own mean length for each that was left out
    means = dict(run.rows(
        "SELECT problem_id, avg(num_tokens) FROM run_trajectories WHERE run_id = $run AND phase = 'repairs' GROUP BY 1"
    ))  # fmt: skip
    for problem_id, (_, _, skipped, estimate) in rows.items():
        assert estimate == pytest.approx(skipped * means[problem_id], abs=0.5)
    assert run.summary["repairs"]["skipped"] == num_skipped > 0
    assert run.summary["repairs"]["estimated_tokens_saved"] == sum(estimate for *_, estimate in rows.values())


@pytest.mark.full
def test_a_run_without_the_quota_samples_what_it_left_out_and_one_with_it_uses_the_same_again(
    lab: Any, under_quota: Any, tmp_path: Path
) -> None:
    workspace = lab.copy(under_quota.workspace, tmp_path / "workspace")
    whole = lab.run(workspace, AT_ONCE)
    assert whole.made["repairs"] == under_quota.summary["repairs"]["skipped"]
    assert (whole.made["rollouts"], whole.made["hints"], whole.made["guided"]) == (0, 0, 0)
    assert under_quota.ids()["repairs"] < whole.ids()["repairs"]
    # what exists beyond the waves is not used under a quota: which samples it uses follows from verdicts alone
    fresh = lab.run(tmp_path / "fresh", AT_ONCE)
    assert fresh.ids()["repairs"] == whole.ids()["repairs"]
    again = lab.run(lab.copy(fresh.workspace, tmp_path / "again"), QUOTA)
    assert (again.run_id, again.made["repairs"]) == (under_quota.run_id, 0)
    assert without_promotion(again) == without_promotion(under_quota)  # another student was promoted there before


@pytest.mark.full
def test_a_run_that_is_stopped_within_waves_comes_to_the_same(lab: Any, under_quota: Any, tmp_path: Path) -> None:
    workspace = tmp_path / "workspace"
    ((before,),) = under_quota.rows(
        "SELECT sum(num_tokens)::INT FROM run_trajectories WHERE run_id = $run AND phase IN ('rollouts', 'hints')"
    )
    for budget in (before + 100, 150, 150):
        assert lab.start(workspace, QUOTA, max_tokens=budget)["state"] == "stopped"
    run = lab.run(workspace, QUOTA)
    assert run.rows("SELECT phase FROM run_events WHERE event = 'stopped'") == [("repairs",)] * 3
    assert everything(run) == everything(under_quota)


def test_a_problem_that_fails_in_a_later_wave_is_out_with_all_its_repairs(
    lab: Any, fail: Any, under_quota: Any, tmp_path: Path
) -> None:
    number = TRAIN_LEVELS.index("never")
    settings = {**AT_ONCE, "repair.quota": {"verified": 99, "wave": 2}}
    question = f"Shelf {number} (never)"
    (num_paths,) = (
        num
        for problem_id, num in under_quota.rows(HINTED)
        if under_quota.rows(f"SELECT 1 FROM problems WHERE problem_id = '{problem_id}' AND question LIKE '{question}%'")
    )
    answered = 0

    def check(kind: str, prompt: str) -> None:
        nonlocal answered
        if kind == "repairs" and question in prompt:
            if answered == 2 * num_paths:  # the first wave is whole
                raise RequestError("too long")
            answered += 1

    fail(check)
    run = lab.run(tmp_path / "workspace", settings)
    assert quarantined(run) == [(question, "repairs wave 1")]
    used = "SELECT count(*) FROM run_trajectories JOIN problems USING (problem_id) WHERE run_id = $run AND phase = "
    like = f" AND question LIKE '{question}%'"
    assert run.rows(f"{used}'repairs'{like}") == [(0,)]
    assert run.rows(f"{used}'rollouts'{like}") != [(0,)]
    decisions = (
        "SELECT count(*) FROM decisions JOIN problems USING (problem_id) WHERE run_id = $run AND phase = 'quota'"
    )
    assert run.rows(decisions + like) == [(0,)]
    assert run.rows(decisions) != [(0,)]


def test_without_paths_nothing_is_repaired_and_the_run_comes_to_its_end(lab: Any, tmp_path: Path) -> None:
    run = lab.run(tmp_path / "workspace", {**QUOTA, "repair.max_paths": 0})
    assert run.summary["state"] == "completed"
    assert not any(run.calls[kind] for kind in ("hints", "repairs", "scores"))
    assert (run.summary["repairs"]["attempted"], run.summary["repairs"]["skipped"]) == (0, 0)
    assert run.summary["bands"]["extremely_hard"] > 0
    assert run.rows("SELECT count(*) FROM funnel WHERE run_id = $run AND phase IN ('paths', 'repairs')") == [(0,)]
