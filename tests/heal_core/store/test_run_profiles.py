"""Which of a rollout's profiles is a run's: that of its own settings, or what it read again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from heal_core.plan import Slot
from heal_core.profiles import profile_key
from heal_core.records import Kind
from heal_core.store.inspector import read_trajectory
from heal_core.store.report import read_report
from heal_core.store.run_profiles import find_used_profiles
from heal_core.store.store import Store
from heal_core.store.workspace import Workspace

Build = Callable[..., dict[str, Any]]

STEPS = {"step_separator": "auto", "min_step_tokens": 4}
SETTINGS = {"narrow": {"window_fraction": 0.25}, "wide": {"window_fraction": 0.75, "rescore": "never"}}
BREAKS = {"narrow": 1, "wide": 2}


def key(rollout: str, name: str) -> str:
    return profile_key(rollout, STEPS, SETTINGS[name])


def profile(profile_id: str, rollout: str, name: str) -> dict[str, Any]:
    return {
        "profile_id": profile_id, "trajectory_id": rollout, "separator": "newline", "num_steps": 4,
        "breakpoint_step": BREAKS[name], "window_size": BREAKS[name], "surge_nats": 0.1, "z_score": None,
        "flat": False, "is_certain": True, "entropy_source": "top_20", "step_start_chars": [0, 2, 4, 6],
        "step_start_tokens": [0, 2, 4, 6], "step_entropies": [0.0, 0.1, 0.2, 0.3], "step_entropy_radii": None,
    }  # fmt: skip


@pytest.fixture
def rollout(store_maker: Any, table_row: Build) -> str:
    """Return the wrong rollout that two runs share, which search windows of two widths."""
    slot = Slot(Kind.ROLLOUT, "p", "recipe", 0, "What?", 20)
    with Store(store_maker.workspace) as store:
        store.append("problems", [table_row("problems", problem_id="p")])
        store.append("trajectories", store_maker.make_rows([slot]))
        store.append("verdicts", [table_row("verdicts", verdict_id="v", trajectory_id=slot.row_id, label="wrong")])
        for name, settings in SETTINGS.items():
            config = json.dumps({"steps": STEPS, "breakpoints": settings})
            store.append("runs", [table_row("runs", run_id=name, config=config)])
            used = table_row("run_rows", run_row_id=name, run_id=name, row_id=slot.row_id, verdict_id="v")
            store.append("run_rows", [used])
            store.append("profiles", [profile(key(slot.row_id, name), slot.row_id, name)])
    return slot.row_id


@pytest.fixture
def shared(rollout: str, workspace: Workspace) -> Iterator[Store]:
    with Store(workspace) as store:
        yield store


@pytest.mark.parametrize("name", SETTINGS)
def test_runs_that_share_a_rollout_each_go_by_their_own_breakpoint(shared: Store, rollout: str, name: str) -> None:
    assert find_used_profiles(shared, name) == [key(rollout, name)]
    report = read_report(shared, name)
    assert [row["mean_entropy_nats"] for row in report.entropies if row["step_offset"] == 0] == [0.1 * BREAKS[name]]
    # step 1 of 4 is in the third tenth, step 2 in the sixth
    assert [row["tenth"] for row in report.break_positions if row["num"]] == [{"narrow": 2, "wide": 5}[name]]
    assert read_trajectory(shared, name, rollout)["profile"]["breakpoint_step"] == BREAKS[name]


def test_what_was_read_again_counts_in_the_run_that_went_by_it(shared: Store, rollout: str, table_row: Build) -> None:
    again = profile("again", rollout, "narrow") | {"entropy_source": "rescored"}
    shared.append("profiles", [again])
    assert find_used_profiles(shared, "narrow") == [key(rollout, "narrow")]
    decision = table_row("decisions", decision_id="d", run_id="narrow", phase="breakpoint", subject_id=rollout,
                         decision="rescored")  # fmt: skip
    shared.append("decisions", [decision])
    assert find_used_profiles(shared, "narrow") == ["again"]
    assert find_used_profiles(shared, "wide") == [key(rollout, "wide")]


def test_a_run_without_rollouts_has_nothing_to_choose(shared: Store) -> None:
    assert find_used_profiles(shared, "no such run") == []
