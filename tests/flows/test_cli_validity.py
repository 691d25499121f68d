"""`heal validate-pure` on a finished run of the lab: every text is accounted for, and a second start makes nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.pure_variants import measure

SMALL = {"max_prefixes": 5, "num_generations": 6, "max_per_prefix": 1, "num_resamples": 200}


def copy_of(finished_run: Any, folder: Path, **pure: Any) -> Path:
    """Return a config for a copy of the finished run's workspace."""
    shutil.copytree(finished_run.workspace, folder / "workspace", symlinks=True)
    settings = yaml.safe_load(finished_run.config.read_text())
    settings |= {"workspace": str(folder / "workspace"), "pure": pure}
    path = folder / "test.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def test_every_text_of_the_test_is_in_the_store(finished_run: Any, open_run: Any, tmp_path: Path) -> None:
    config = copy_of(finished_run, tmp_path, validity=SMALL)
    extra = finished_run.rows("SELECT sum(num_tokens) AS num FROM token_spend WHERE phase IN ('hints', 'repairs')")
    done = finished_run.heal("validate-pure", config, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    test = json.loads(done.stdout)
    run = open_run(finished_run.heal, config, tmp_path / "workspace")
    # it belongs to the run whose rollouts it rests on, which stays complete as it was
    assert test["run_id"] == finished_run.summary["run_id"]
    assert run.one("SELECT completed FROM run_status")
    assert run.rows("SELECT sum(num_tokens) AS num FROM token_spend WHERE phase IN ('hints', 'repairs')") == extra
    texts = run.rows("SELECT * FROM validity_texts")
    natural = [row for row in texts if row["kind"] == "natural"]
    assert 0 < len(natural) <= test["num_prefixes_used"]
    # paths may share their prefix; no text stands there twice
    distinct = run.one(
        "SELECT count(DISTINCT (t.problem_id, t.text, t.prefix)) FROM validity_texts v JOIN trajectories t "
        "USING (trajectory_id) WHERE v.kind = 'natural'"
    )
    assert distinct == len(natural)
    # beside each natural text one of each kind, built or not
    for kind in ("pasted", "rationalised", "borrowed"):
        assert sum(row["kind"] == kind for row in texts) == len(natural)
    assert sum(row["num"] for row in test["texts"]) == len(texts)
    for row in texts:
        assert (row["score_id"] is not None) == (row["outcome"] in ("scored", "rejected"))
        assert (row["ratio"] is not None) == (row["outcome"] == "scored")
        assert (row["reason"] is None) == (row["outcome"] == "scored")
    # what is built ends as the natural text does, and the verifier calls it right
    built = run.rows(
        "SELECT t.text, n.text AS natural, r.label FROM validity_texts v "
        "JOIN run_trajectories r ON r.trajectory_id = v.trajectory_id AND r.phase = 'validity_built' "
        "JOIN trajectories t ON t.trajectory_id = v.trajectory_id JOIN trajectories n ON n.trajectory_id = v.sources[1]"
    )
    assert built
    for row in built:
        # on a line of its own, though no token of the lab's texts is a line break by itself
        last_line = "\n" + row["natural"].rsplit("\n", 1)[-1]
        assert f"\n{row['text']}".endswith(last_line) and row["text"] != row["natural"]
        assert row["label"] == "correct"
    tokens = run.one("SELECT sum(num_tokens) FROM token_spend WHERE phase LIKE 'validity%' AND kind <> 'shortcut'")
    assert test["spent"]["num_tokens"] == tokens
    assert run.one("SELECT num_tokens FROM phase_spend WHERE phase = 'validity'") == tokens
    scored = run.one("SELECT num_scored_tokens FROM phase_spend WHERE phase = 'validity_scores'")
    assert test["spent"]["num_scored_tokens"] == scored > 0
    assert finished_run.heal("store", "check", "--workspace", tmp_path / "workspace").returncode == 0
    # from the stored terms of each step the benchmark of other readings comes to the same
    aurocs = run.rows("SELECT kind, auroc, low, high FROM validity_aurocs WHERE measure = 'ratio'")
    other = measure(tmp_path / "workspace", None)["auroc"]
    for row in aurocs:
        assert other[row["kind"]]["P_k / (U_k + e), D8's ratio"][0] == pytest.approx(row["auroc"], abs=1e-3)
    assert {row["kind"] for row in aurocs} == other.keys()

    again = finished_run.heal("validate-pure", config)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "newly made: nothing" in " ".join(again.stderr.split())
    assert f"validity test {test['validity_id']}" in again.stdout and "pure.score: auto takes" in again.stdout


@pytest.mark.full
def test_a_run_with_the_score_auto_goes_by_what_the_test_chose(
    finished_run: Any, open_run: Any, tmp_path: Path
) -> None:
    config = copy_of(finished_run, tmp_path, score="auto", validity=SMALL)
    for phase in ("rollouts", "profiles", "repairs", "selection"):
        done = finished_run.heal("run", config, "--phase", phase)
        assert done.returncode == 0, done.stdout + done.stderr
    run = open_run(finished_run.heal, config, tmp_path / "workspace")
    (chosen,) = run.rows("SELECT run_id, decision, reason FROM decisions WHERE phase = 'pure_score'")
    assert chosen["run_id"] != finished_run.summary["run_id"]
    (test,) = run.rows("SELECT run_id, chosen, verdict FROM validity_tests")
    assert (test["run_id"], test["verdict"], test["chosen"]) == tuple(chosen.values())
    names = run.rows(f"SELECT DISTINCT score_name FROM pure_scores WHERE run_id = '{chosen['run_id']}'")
    assert names == [{"score_name": chosen["reason"]}]
    extra = run.one(f"SELECT count(*) FROM decisions WHERE phase = 'pure' AND run_id = '{chosen['run_id']}'")
    assert extra > 0
