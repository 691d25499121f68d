"""`heal export` as a person meets it, of a finished run: counts that add up, and files that others read."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from heal_core.prompts import student_prompt

pytestmark = pytest.mark.slow


def test_a_stage_goes_out_in_training_order(finished_run: Any, heal: Any, tmp_path: Path) -> None:
    path = tmp_path / "stage.jsonl"
    done = heal("export", "messages", path, "-w", finished_run.workspace, "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    wanted = finished_run.rows(
        "SELECT s.trajectory_id, p.question, t.prefix || t.text AS response FROM stage_examples s "
        "JOIN trajectories t USING (trajectory_id) JOIN problems p ON p.problem_id = s.problem_id "
        "WHERE s.arm = 'heal' AND s.stage = 'III' ORDER BY s.position"
    )
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["trajectory_id"] for row in rows] == [row["trajectory_id"] for row in wanted]
    for row, want in zip(rows, wanted, strict=True):
        turns = [student_prompt(want["question"]), want["response"]]
        assert [turn["content"] for turn in row["messages"]] == turns
    assert told["num_examples"] == sum(told["kinds"].values()) == told["template"]["num_same"] == len(wanted) > 0
    assert (told["num_dropped_over_long"], told["max_length_tokens"]) == (0, 512)

    again = heal("export", "messages", path, "-w", finished_run.workspace)
    assert again.returncode == 2 and "exists already" in again.stderr
    forced = heal("export", "messages", path, "-w", finished_run.workspace, "--force", "--stage", "I")
    assert f"{told['kinds']['rollout']} examples of arm heal, stage I" in forced.stdout
    assert len(path.read_text().splitlines()) == told["kinds"]["rollout"]


def test_llama_factory_finds_it_beside_what_was_there(finished_run: Any, heal: Any, tmp_path: Path) -> None:
    (tmp_path / "dataset_info.json").write_text('{"theirs": {"file_name": "x.json"}}')
    done = heal("export", "sharegpt", tmp_path, "-w", finished_run.workspace, "--arm", "rejection_sampling")
    assert done.returncode == 0, done.stderr
    assert "describes it as rejection_sampling_stage_III, beside 1 others" in done.stdout
    info = json.loads((tmp_path / "dataset_info.json").read_text())
    assert info.keys() == {"theirs", "rejection_sampling_stage_III"}
    file = tmp_path / info["rejection_sampling_stage_III"]["file_name"]
    num = finished_run.one("SELECT count(*) FROM stage_examples WHERE arm = 'rejection_sampling' AND stage = 'III'")
    assert len(file.read_text().splitlines()) == num


def test_problems_go_out_without_those_that_are_held_out(finished_run: Any, heal: Any, tmp_path: Path) -> None:
    told = {}
    for name, options in (("train", ["--repairs", "--guided"]), ("all", ["--held-out"])):
        path = tmp_path / f"{name}.parquet"
        done = heal("export", "openr1", path, "-w", finished_run.workspace, "--json", *options)
        assert done.returncode == 0, done.stderr
        told[name] = json.loads(done.stdout) | {"rows": pq.read_table(path).to_pylist()}
    rollouts, train, held_out = (
        finished_run.one(query)
        for query in (
            "SELECT count(*) FROM run_trajectories JOIN run_problems USING (run_id, problem_id) "
            "WHERE phase = 'rollouts' AND split = 'train'",
            "SELECT count(*) FROM run_problems WHERE split = 'train'",
            "SELECT count(*) FROM run_problems WHERE split = 'held_out'",
        )
    )
    assert told["train"]["splits"] == {"train": train} == {"train": len(told["train"]["rows"])}
    assert told["train"]["num_held_out_left_out"] == held_out == told["all"]["splits"]["held_out"]
    assert told["train"]["kinds"]["rollout"] == rollouts
    kinds = [kind for row in told["train"]["rows"] for kind in row["kinds"]]
    assert told["train"]["num_generations"] == len(kinds)
    assert told["train"]["kinds"] == {kind: kinds.count(kind) for kind in ("guided", "repair", "rollout")}
    kept = finished_run.one("SELECT count(*) FROM kept_examples JOIN trajectories USING (trajectory_id) "
                            "WHERE kind = 'repair'")  # fmt: skip
    assert told["train"]["kinds"]["repair"] == kept > 0
    correct = [flag for row in told["train"]["rows"] for flag in row["correctness"]]
    assert told["train"]["num_correct"] == correct.count(True)
    assert told["all"]["kinds"] == {"rollout": finished_run.summary["rollouts"]}
    printed = heal("export", "openr1", path, "-w", finished_run.workspace, "--held-out", "--force").stdout
    assert f"warning: {held_out} problems are held out" in printed


def test_the_data_formats_load_neither_torch_nor_prefect(finished_run: Any, tmp_path: Path) -> None:
    program = (
        "import sys; from flows.cli.main import app\n"
        f"app(['export', 'messages', {str(tmp_path / 'a.parquet')!r}, '--no-check'], standalone_mode=False)\n"
        f"app(['export', 'openr1', {str(tmp_path / 'b.parquet')!r}], standalone_mode=False)\n"
        "print(sorted({'torch', 'transformers', 'prefect'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={"HEAL_WORKSPACE": str(finished_run.workspace), "PATH": "", "PYTHONPATH": ":".join(filter(None, sys.path))},
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
    assert "not checked against a chat template: --no-check" in done.stdout


def test_a_student_goes_out_with_its_card(finished_run: Any, heal: Any, tmp_path: Path) -> None:
    folder = tmp_path / "student"
    done = heal("export", "model", folder, "-w", finished_run.workspace, "--license", "mit", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["checkpoint_id"] == finished_run.one(
        "SELECT checkpoint_id FROM checkpoints JOIN run_rows ON row_id = checkpoint_id "
        "WHERE arm = 'heal' AND phase = 'training' AND stage = 'III'"
    )
    assert sorted(path.name for path in folder.iterdir()) == told["files"]
    card = (folder / "README.md").read_text()
    score = finished_run.one("SELECT avg_at_k FROM evaluations WHERE arm = 'heal' AND band = 'all'")
    assert "license: mit" in card and f"value: {round(score, 4)}" in card
    assert str(finished_run.workspace) not in card
    again = heal("export", "model", folder, "-w", finished_run.workspace)
    assert again.returncode == 2 and "exists already" in again.stderr
    halved = heal("export", "model", folder, "-w", finished_run.workspace, "--force", "--dtype", "bfloat16")
    assert "whole weights in bfloat16" in halved.stdout
    unsent = heal("export", "model", tmp_path / "other", "-w", finished_run.workspace, "--push-to-hub", "ann/student")
    assert unsent.returncode == 2 and "HF_HUB_OFFLINE is set" in unsent.stderr
    assert not (tmp_path / "other").exists()


def test_what_cannot_be_exported_is_told(finished_run: Any, heal: Any, tmp_path: Path) -> None:
    done = heal("export", "messages", tmp_path / "a.jsonl", "-w", finished_run.workspace, "--arm", "hael")
    assert done.returncode == 2
    assert "no examples of arm 'hael'" in done.stderr and "heal III" in done.stderr
    done = heal("export", "messages", tmp_path / "a.jsonl", "-w", tmp_path)
    assert done.returncode == 2 and "heal.duckdb" in done.stderr
    assert not list(tmp_path.iterdir())
