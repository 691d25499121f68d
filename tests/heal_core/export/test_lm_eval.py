"""An exported folder under lm-evaluation-harness, on a task that is made here and needs no network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

pytestmark = [
    pytest.mark.full,  # its imports take most of a minute
    pytest.mark.skipif(find_spec("lm_eval") is None, reason="lm-eval is an extra: it is not installed"),
]

TASK = """\
task: lab_sums
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}\\n\\nPlease reason step by step, and put your final answer within \\\\boxed{{}}."
doc_to_target: "{{{{answer}}}}"
generation_kwargs: {{until: ["<|end|>"], do_sample: false, max_gen_toks: 96}}
filter_list:
  - name: boxed
    filter:
      - {{function: regex, regex_pattern: '\\\\boxed\\{{(-?\\d+)\\}}'}}
      - {{function: take_first}}
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
"""


def test_lm_eval_gets_the_texts_that_the_checkpoint_writes(
    export: Callable[..., Any], checkpoint: Path, greedy_text: Callable[..., str], tmp_path: Path
) -> None:
    problems = checkpoint_problems()
    data = tmp_path / "sums.jsonl"
    data.write_text("".join(json.dumps(problem) + "\n" for problem in problems))
    (tmp_path / "lab_sums.yaml").write_text(TASK.format(data=data))
    done = subprocess.run(
        [
            sys.executable, "-m", "lm_eval", "run", "--model", "hf",
            "--model_args", f"pretrained={export().path},dtype=float32", "--tasks", "lab_sums",
            "--include_path", str(tmp_path), "--apply_chat_template", "--log_samples",
            "--output_path", str(tmp_path / "out"), "--device", "cpu", "--batch_size", "4",
        ],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    (samples,) = tmp_path.glob("out/**/samples_lab_sums_*.jsonl")
    found = {
        sample["doc"]["question"]: sample["resps"][0][0] for sample in map(json.loads, samples.read_text().splitlines())
    }
    assert found == {problem["question"]: greedy_text(checkpoint, problem["question"]) for problem in problems}
    (results,) = tmp_path.glob("out/**/results_*.json")
    right = [f"\\boxed{{{problem['answer']}}}" in found[problem["question"]] for problem in problems]
    assert json.loads(results.read_text())["results"]["lab_sums"]["exact_match,boxed"] == sum(right) / len(right)


def checkpoint_problems() -> list[dict[str, str]]:
    """Return some of the lab's problems, the shortest ones, of which the student solves a few."""
    lines = (Path(__file__).parents[3] / "deployments/lab/problems.jsonl").read_text().splitlines()
    shortest = sorted(lines, key=len)[:4]
    return [{"question": row["problem"], "answer": row["answer"]} for row in map(json.loads, shortest)]
