"""What the harness is told, and what is read of its report; the report is one that lm-eval 0.4.13 wrote, shortened."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from heal_core.engines import gpu
from heal_core.engines.base import EngineConfig
from heal_core.errors import ConfigError, EvaluationError, TimeIsUpError
from heal_core.evaluation import EvaluationConfig
from heal_core.lm_eval.config import LmEvalConfig
from heal_core.lm_eval.evaluate import LmEvalResult, harness_settings, read_report, run_harness
from heal_core.lm_eval.harness import check_tasks, identify_harness

STUDENT = EngineConfig(model_name_or_path="student", dtype="float32", device="cpu")
REPORT: dict[str, Any] = {
    "results": {
        "lab_choice": {"name": "lab_choice", "alias": "lab_choice", "sample_len": 3, "acc,none": 0.25,
                       "acc_stderr,none": 0.125},
        "lab_text": {"alias": "lab_text", "exact_match,strict": 1, "exact_match_stderr,strict": "N/A",
                     "exact_match,flexible": 0.5, "exact_match_stderr,flexible": 0.1},
        "lab": {"alias": "lab", "acc,none": 0.25},
    },
    "versions": {"lab_choice": 1.0},
    "n-shot": {"lab_choice": 2, "lab_text": 0},
    "higher_is_better": {"lab_choice": {"acc": True}},
    "n-samples": {"lab_choice": {"original": 30, "effective": 3}},
    "lm_eval_version": "0.4.13",
    "task_hashes": {"lab_choice": "937f"},
}  # fmt: skip


def test_every_number_of_a_report_is_a_row_and_nothing_else_is() -> None:
    found = {(row.task, row.metric, row.filter): row for row in read_report(REPORT)}
    assert found.keys() == {
        ("lab_choice", "acc", "none"), ("lab_text", "exact_match", "strict"), ("lab_text", "exact_match", "flexible"),
        ("lab", "acc", "none"),
    }  # fmt: skip
    assert found["lab_choice", "acc", "none"] == LmEvalResult(
        "lab_choice", "acc", "none", 0.25, 0.125, True, 3, 2, "1.0", "937f", "0.4.13"
    )
    assert found["lab_text", "exact_match", "strict"].standard_error is None
    group = found["lab", "acc", "none"]
    assert (group.num_samples, group.task_version, group.task_hash, group.num_fewshot) == (None, None, None, None)


def test_a_folder_with_an_adapter_alone_names_its_base(tmp_path: Path) -> None:
    config = LmEvalConfig(tasks=["lab"], limit=5, model_args={"max_length": 64})
    whole = harness_settings(config, STUDENT, tmp_path, tmp_path / "out")
    assert whole["model_args"] == {"pretrained": str(tmp_path), "dtype": "float32", "max_length": 64}
    assert (whole["limit"], whole["device"], whole["tasks"]) == (5, "cpu", ["lab"])
    (tmp_path / "config.json").write_text("{}")  # a stage's folder has it, whether or not it has the weights
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "the/base"}))
    adapter = harness_settings(config, STUDENT, tmp_path, tmp_path / "out")["model_args"]
    assert adapter == {"pretrained": "the/base", "peft": str(tmp_path), "tokenizer": str(tmp_path),
                       "dtype": "float32", "max_length": 64}  # fmt: skip
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter_config.json").rename(tmp_path / "adapter/adapter_config.json")  # beside merged weights
    assert "peft" not in harness_settings(config, STUDENT, tmp_path, tmp_path / "out")["model_args"]


def test_a_student_that_runs_anywhere_is_told_a_device_since_the_harness_would_take_a_gpu_that_is_not_there(
    tmp_path: Path,
) -> None:
    student = EngineConfig(model_name_or_path="student")
    told = harness_settings(LmEvalConfig(tasks=["lab"]), student, tmp_path, tmp_path / "out")
    assert told["device"] == ("cuda" if gpu.free_mib() else "cpu")
    assert "dtype" not in told["model_args"]


def test_pace_is_in_no_key_and_what_shapes_results_is() -> None:
    plain = LmEvalConfig(tasks=["lab"])
    assert LmEvalConfig(tasks=["lab"], batch_size=1, python="/p", call_seconds=1.0, include_path="i").identity() == (
        plain.identity()
    )
    for changes in ({"limit": 5}, {"num_fewshot": 1}, {"apply_chat_template": True}, {"gen_kwargs": {"top_p": 1}}):
        assert LmEvalConfig(tasks=["lab"], **changes).identity() != plain.identity()
    assert EvaluationConfig().identity() == {"num_generations": 4}
    assert EvaluationConfig(lm_eval=plain).identity()["lm_eval"] == plain.identity()
    with pytest.raises(ValidationError, match="tasks"):
        LmEvalConfig(tasks=[])


def test_an_interpreter_without_the_harness_is_refused_with_the_remedy(tmp_path: Path) -> None:
    bare = tmp_path / "python"  # -S: without site-packages, as an environment that lacks it
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    bare.chmod(0o755)
    with pytest.raises(ConfigError, match=r"pip install 'heal-distill\[lm-eval\]'"):
        identify_harness(LmEvalConfig(tasks=["lab"], python=str(bare)))
    with pytest.raises(ConfigError, match="cannot be run"):
        identify_harness(LmEvalConfig(tasks=["lab"], python=str(tmp_path / "none")))


def test_other_task_files_are_other_results(tmp_path: Path, lm_eval: None) -> None:
    config = LmEvalConfig(tasks=["lab"], include_path=str(tmp_path))
    (tmp_path / "lab.yaml").write_text("task: lab")
    before = identify_harness(config)
    assert before["lm_eval"] and before["task_files"] and before == identify_harness(config)
    (tmp_path / "lab.yaml").write_text("task: lab2")
    assert identify_harness(config)["task_files"] != before["task_files"]
    with pytest.raises(ConfigError, match="is no folder"):
        identify_harness(LmEvalConfig(tasks=["lab"], include_path=str(tmp_path / "none")))


def test_a_child_is_ended_when_the_run_has_to_end_and_its_failure_is_told(tmp_path: Path) -> None:
    slow = tmp_path / "slow"
    slow.write_text("#!/bin/sh\nexec sleep 600\n")
    failing = tmp_path / "failing"
    failing.write_text("#!/bin/sh\necho no such luck\nexit 3\n")
    for program in (slow, failing):
        program.chmod(0o755)

    def end() -> None:
        raise TimeIsUpError("it is seven o'clock")

    with pytest.raises(TimeIsUpError):
        run_harness(LmEvalConfig(tasks=["t"], python=str(slow)), STUDENT, tmp_path, tmp_path / "a", end)
    with pytest.raises(EvaluationError, match=r"took longer than evaluation\.lm_eval\.call_seconds"):
        config = LmEvalConfig(tasks=["t"], python=str(slow), call_seconds=0.1)
        run_harness(config, STUDENT, tmp_path, tmp_path / "b", lambda: None)
    with pytest.raises(EvaluationError, match=r"(?s)exit code 3; its log .*no such luck"):
        run_harness(LmEvalConfig(tasks=["t"], python=str(failing)), STUDENT, tmp_path, tmp_path / "c", lambda: None)


def test_a_report_without_a_number_is_an_error_since_nothing_stored_would_be_measured_again(tmp_path: Path) -> None:
    report = {"results": {"lab_text": {"alias": "lab_text", "bleu,none": "N/A"}}, "lm_eval_version": "0.4.13"}
    (tmp_path / "report.json").write_text(json.dumps(report))
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\ncd {tmp_path} && mkdir a/output && cp report.json a/output/results_1.json\n")
    program.chmod(0o755)
    config = LmEvalConfig(tasks=["lab_text"], python=str(program))
    with pytest.raises(EvaluationError, match=r"no number for lab_text; .*\"bleu,none\": \"N/A\".*results_1\.json"):
        run_harness(config, STUDENT, tmp_path, tmp_path / "a", lambda: None)


@pytest.mark.full
def test_the_labs_student_is_evaluated_on_a_task_of_ones_own_without_a_network(
    tmp_path: Path, lm_eval: None, lm_eval_task: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    config = LmEvalConfig(tasks=["lab_choice"], include_path=str(lm_eval_task), limit=2)
    check_tasks(config)
    with pytest.raises(ConfigError, match=r"Tasks not found: lab_chose"):
        check_tasks(LmEvalConfig(tasks=["lab_choice", "lab_chose"], include_path=str(lm_eval_task)))
    model = Path(__file__).parents[3] / "deployments/lab/student"
    (row,) = run_harness(config, STUDENT, model, tmp_path / "folder", lambda: None)
    assert (row.task, row.metric, row.filter, row.num_samples) == ("lab_choice", "acc", "none", 2)
    assert row.task_hash and row.task_version == "1.0" and row.lm_eval_version == "0.4.13"
    assert 0 <= row.value <= 1
