"""`heal eval` of a student that is named, on benchmark files: nothing is trained, and each benchmark has its rows."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

STUDENT = "deployments/lab/student"


def eval_config(finished_run: Any, folder: Path, **evaluation: Any) -> Path:
    """Write the finished run's settings for a copy of its workspace, with its held-out problems as two benchmarks."""
    workspace = folder / "workspace"
    shutil.copytree(finished_run.workspace, workspace, symlinks=True)
    problems = finished_run.rows(
        "SELECT question AS problem, answer FROM problems JOIN run_problems USING (problem_id) "
        "WHERE split = 'held_out' ORDER BY problem_id"
    )
    sources = []
    for name, rows in (("exam", problems[:4]), ("quiz", problems[4:6])):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
        sources.append({"path": str(folder / f"{name}.jsonl"), "split": "held_out", "name": name})
    settings = yaml.safe_load(finished_run.config.read_text())
    settings |= {"workspace": str(workspace), "problems": {"sources": sources, "duplicate_jaccard": 0.95}}
    settings["evaluation"] |= {"num_generations": 2, **evaluation}
    path = folder / "eval.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def test_a_given_student_is_evaluated_on_benchmarks_without_training(
    finished_run: Any, open_run: Any, tmp_path: Path
) -> None:
    config = eval_config(finished_run, tmp_path, pass_at=[1, 2])
    student = tmp_path / "a student"
    shutil.copytree(STUDENT, student)
    done = finished_run.heal("eval", config, "--student", student)
    assert done.returncode == 0, done.stdout + done.stderr
    run = open_run(finished_run.heal, config, tmp_path / "workspace")
    generated = run.summary["generated"]
    # the teacher's rollouts are there, and so are the untrained student's answers, whose weights the given one has
    assert {name: num for name, num in generated.items() if num} == {}
    evaluation = run.summary["evaluation"]
    assert evaluation.keys() == {"teacher", "base", "given"}
    assert [(name, of["problems"]) for name, of in evaluation["given"]["benchmarks"].items()] == [
        ("exam", 4),
        ("quiz", 2),
    ]
    assert evaluation["given"]["benchmarks"] == evaluation["base"]["benchmarks"]
    this = f"run_id = '{run.summary['run_id']}'"
    rows = run.rows(f"SELECT arm, benchmark, num_problems, avg_at_k FROM eval_benchmarks WHERE {this}")
    assert {(row["arm"], row["benchmark"]) for row in rows} == {
        (arm, name) for arm in evaluation for name in ("exam", "quiz")
    }
    for row in rows:
        assert row["avg_at_k"] == evaluation[row["arm"]]["benchmarks"][row["benchmark"]]["avg_at_k"]
    pass_at = run.rows(
        f"SELECT arm, k, pass_at_k FROM eval_pass_at WHERE {this} AND band = 'all' AND benchmark IS NULL"
    )
    assert {(row["arm"], row["k"]) for row in pass_at} == {(arm, k) for arm in evaluation for k in (1, 2)}
    for row in pass_at:
        assert row["pass_at_k"] == pytest.approx(evaluation[row["arm"]]["avg_at_k" if row["k"] == 1 else "pass_at_k"])
    # the very same answers: no difference, and no certainty of it
    contrasts = run.rows(f"SELECT arm, against, difference, low, is_powered FROM eval_contrasts WHERE {this}")
    assert contrasts and {tuple(row.values()) for row in contrasts} == {("given", "base", 0.0, None, False)}
    assert "exam: 4 problems" in done.stdout and "given student" in done.stdout


def test_a_given_student_is_for_an_evaluation(finished_run: Any, tmp_path: Path) -> None:
    done = finished_run.heal("run", eval_config(finished_run, tmp_path, student=STUDENT))
    assert done.returncode == 2
    assert "start `heal eval`" in " ".join(done.stderr.split())


@pytest.mark.full
def test_tasks_of_lm_eval_are_evaluated_once(
    finished_run: Any, open_run: Any, tmp_path: Path, lm_eval: None, lm_eval_task: Path
) -> None:
    harness = {"tasks": ["lab_choice"], "include_path": str(lm_eval_task)}
    # which of the students was promoted, if any, is chance in so small a run
    student = str(finished_run.workspace / "students" / "heal" / "stage-III")
    config = eval_config(finished_run, tmp_path, lm_eval=harness, student=student)
    done = finished_run.heal("eval", config, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    run = open_run(finished_run.heal, config, tmp_path / "workspace")
    assert [(row["arm"], row["task"], row["metric"], row["num_samples"]) for row in run.summary["lm_eval"]] == [
        ("base", "lab_choice", "acc", 3), ("given", "lab_choice", "acc", 3)
    ]  # fmt: skip
    assert run.summary["generated"]["lm_evals"] == 2
    stored = run.rows("SELECT arm, value, task_hash, lm_eval_version FROM lm_eval_summary ORDER BY arm")
    assert len({row["task_hash"] for row in stored}) == 1 and stored[0]["lm_eval_version"] == "0.4.13"
    assert "lab_choice (3)" in done.stdout
    # another run of the same students and tasks
    again = finished_run.heal("eval", config, "evaluation.pass_at=[1]", timeout=600)
    assert again.returncode == 0, again.stdout + again.stderr
    run = open_run(finished_run.heal, config, tmp_path / "workspace")
    assert run.summary["generated"]["lm_evals"] == 0
    assert run.one("SELECT count(*) FROM run_lm_evals") == 4
    (tmp_path / "lm_eval_tasks" / "lab_choice.yaml").unlink()
    refused = finished_run.heal("eval", config, timeout=600)
    assert refused.returncode == 2
    assert "Tasks not found: lab_choice" in " ".join(refused.stderr.split())
