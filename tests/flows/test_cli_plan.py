"""`heal plan`: on an empty workspace, on a finished run, with a probe, and what it refuses."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.cli.plan import plan
from heal_core.errors import ConfigError, InputError, ModelError
from heal_core.store.inspect import fetch_rows, open_store
from heal_core.store.workspace import Workspace

ROOT = Path(__file__).parents[2]
N, NUM_PROBLEMS = 8, 36

Planned = Callable[..., dict[str, Any]]


@pytest.fixture
def planned(heal: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Planned:
    """Return a function that plans the reduced demo and returns the JSON, its works by name."""
    monkeypatch.chdir(ROOT)

    def run(*overrides: str, workspace: Path = tmp_path / "empty", **options: Any) -> dict[str, Any]:
        config = heal.config(tmp_path / "made")
        plan(config, [f"workspace={workspace}", *overrides], as_json=True, **options)
        told: dict[str, Any] = json.loads(capsys.readouterr().out)
        return {**told, "works": {work["name"]: work for work in told["works"]}}

    return run


def test_an_empty_workspace_is_planned_from_the_settings_and_left_empty(planned: Planned, tmp_path: Path) -> None:
    told = planned()
    rollouts = told["works"]["rollouts"]
    assert (rollouts["wanted"], rollouts["stored"], rollouts["is_exact"]) == (N * NUM_PROBLEMS, 0, True)
    assert rollouts["tokens"] == rollouts["wanted"] * 224  # each as long as it may get
    assert "upper bound: rollouts.sampling.max_tokens" in rollouts["basis"]
    assert (rollouts["seconds"], told["bands_basis"]) == (None, "assumed")
    assert told["run_id"] is None
    assert told["num_train"] + told["num_held_out"] == NUM_PROBLEMS
    assert not (tmp_path / "empty").exists()


def test_models_that_are_not_here_are_planned_from_what_is_known(planned: Planned) -> None:
    with socket.socket() as nobody:  # listens to none: a connection would be refused, and a wait seen
        nobody.bind(("127.0.0.1", 0))
        told = planned(
            "teacher.model_name_or_path=owner/huge-teacher",
            "teacher.engine=openai",
            f"teacher.server.base_url=http://127.0.0.1:{nobody.getsockname()[1]}/v1",
            "student.model_name_or_path=owner/large-student",
            "teacher.price.completion=0.5",
        )
    assert any("owner/huge-teacher is not on this machine" in what for what in told["unknown"])
    assert any("size of the student" in what for what in told["unknown"])
    assert told["works"]["rollouts"]["cost"] == pytest.approx(N * NUM_PROBLEMS * 224 * 0.5 / 1e6)
    assert told["works"]["training"]["disk_bytes"] == 0


def test_controls_are_counted(planned: Planned) -> None:
    plain = planned()["works"]
    on = ("controls.unhinted=true", "controls.random_breakpoint=true", "controls.ceiling_samples=200")
    works = planned(*on)["works"]
    assert works["control_hints"]["wanted"] == plain["hints"]["wanted"] > 0
    assert works["control_repairs"]["wanted"] == pytest.approx(2 * plain["repairs"]["wanted"])
    assert works["control_pure"]["wanted"] == pytest.approx(2 * plain["pure"]["wanted"])
    assert works["ceiling"]["wanted"] > 0
    assert not any(name.startswith("control") or name == "ceiling" for name in plain)


def test_problems_can_be_assumed(planned: Planned) -> None:
    told = planned("problems.path=nowhere.jsonl", num_problems=1_000_000)
    assert (told["num_train"], told["num_held_out"]) == (650_000, 350_000)
    assert told["works"]["rollouts"]["wanted"] == 8_000_000
    with pytest.raises(InputError, match=r"nowhere\.jsonl"):
        planned("problems.path=nowhere.jsonl")


SERVER = ("engine=openai", "server.base_url=http://127.0.0.1:1/v1")


@pytest.mark.parametrize(
    ("overrides", "error", "words"),
    [
        ([f"teacher.{name}" for name in (*SERVER, "server.api=chat")], ConfigError, "repair.max_paths: 0"),
        ([f"student.{name}" for name in SERVER], ConfigError, "student"),
        (["teacher.model_name_or_path=./nowhere"], ModelError, "no such folder"),
        (["rollouts.sampling.max_tokens=100000"], ModelError, "context"),
    ],
)
def test_what_a_run_would_refuse_is_refused(
    planned: Planned, overrides: list[str], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        planned(*overrides)


def test_neither_torch_nor_prefect_is_loaded(heal: Any, tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from flows.cli.plan import plan; "
        f"plan(Path({str(heal.config(tmp_path / 'w'))!r})); "
        "sys.exit(', '.join({'torch', 'prefect', 'transformers'} & sys.modules.keys()) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "in all" in done.stdout


@pytest.mark.slow
def test_a_probe_is_stored_graded_and_counted(planned: Planned, tmp_path: Path) -> None:
    workspace = tmp_path / "probed"
    told = planned(workspace=workspace, probe=8)
    rollouts = told["works"]["rollouts"]
    assert rollouts["stored"] == 8 * 4
    assert "probe of 32" in rollouts["basis"]
    assert told["bands_basis"] == "the rollouts that are graded of 8 problems"
    with open_store(workspace) as store:
        (row,) = fetch_rows(
            store,
            "SELECT count(*) AS num, count(v.label) AS graded, avg(num_tokens) AS tokens, avg(t.seconds) AS seconds "
            "FROM trajectories t LEFT JOIN latest_verdicts v USING (trajectory_id)",
        )
    assert row["num"] == row["graded"] == 32
    assert rollouts["tokens"] == pytest.approx((N * NUM_PROBLEMS - 32) * row["tokens"])
    assert rollouts["seconds"] == pytest.approx((N * NUM_PROBLEMS - 32) * row["seconds"])
    with pytest.raises(InputError, match="--problems"):
        planned(workspace=workspace, probe=8, num_problems=10)


@pytest.mark.slow
def test_a_complete_run_has_nothing_to_make(planned: Planned, finished_run: Any) -> None:
    with Workspace(finished_run.workspace).lock():  # a plan needs no lock
        told = planned(workspace=finished_run.workspace)
    assert (told["run_id"], told["is_complete"]) == (finished_run.summary["run_id"], True)
    assert {name: work["missing"] for name, work in told["works"].items()} == dict.fromkeys(told["works"], 0)
    assert told["bands_basis"] == "counted"
    assert {band: num for band, num in told["bands"].items() if num} == pytest.approx(
        {band: num for band, num in finished_run.summary["bands"].items() if num}
    )


@pytest.mark.slow
def test_raising_n_is_planned_to_the_rollout(planned: Planned, finished_run: Any) -> None:
    told = planned(f"rollouts.num_generations={N + 2}", workspace=finished_run.workspace)
    # B2 went on from N with the same recipe, so that some of the demanded are there already
    indices = f"sample_index BETWEEN {N} AND {N + 1}"
    drawn = finished_run.one(f"SELECT count(*) FROM trajectories WHERE kind = 'rollout' AND {indices}")
    assert told["works"]["rollouts"]["missing"] == 2 * NUM_PROBLEMS - drawn
    assert told["run_id"] is None


@pytest.mark.slow
def test_another_score_is_planned_to_sample_nothing_again(planned: Planned, finished_run: Any) -> None:
    told = planned("pure.score=jump", workspace=finished_run.workspace)
    works = told["works"]
    assert told["run_id"] is None
    for name in ("rollouts", "hints", "repairs", "guided", "pure"):
        num = finished_run.one(f"SELECT count(*) FROM run_rows WHERE phase = '{name}'")
        assert (works[name]["wanted"], works[name]["missing"]) == pytest.approx((num, 0)), name
    assert f"as in run {finished_run.summary['run_id']}" in works["training"]["basis"]
    assert works["training"]["seconds"] > 0
    # the untrained student's answers are there, those of three others are not
    assert works["evaluation"]["missing"] == pytest.approx(works["evaluation"]["wanted"] * 3 / 4)
