"""The lab's tokenizer under any chat template, examples as the store gives them, and a stage that can be exported."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from heal_core.export.examples import TracedExample
from heal_core.export.model import ModelChoices, export_model
from heal_core.prompts import student_prompt
from heal_core.store.inspect import open_store
from heal_core.store.store import Store
from heal_core.store.workspace import Workspace

Row = dict[str, Any]

STUDENT = Path(__file__).parents[3] / "deployments/lab/student"


@pytest.fixture(scope="session")
def new_tokenizer() -> Callable[..., Any]:
    """Return a function that loads the tokenizer, with another template if one is given."""
    from transformers import AutoTokenizer

    def load(*chat_template: str | None) -> Any:
        tokenizer = AutoTokenizer.from_pretrained(STUDENT, local_files_only=True)
        if chat_template:
            (tokenizer.chat_template,) = chat_template
        return tokenizer

    return load


SPECIAL_TOKENS = {
    "deepseek_r1_distill": ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", ["<｜User｜>", "<｜Assistant｜>"]),
    "qwen3": ("<|endoftext|>", "<|im_end|>", ["<|im_start|>"]),
    "llama3": ("<|begin_of_text|>", "<|eot_id|>", ["<|start_header_id|>", "<|end_header_id|>"]),
}
"""Of published models: what begins a text, what ends a turn, and what else its chat template writes."""


@pytest.fixture(scope="session")
def published(new_tokenizer: Callable[..., Any]) -> Callable[[str], Any]:
    """Return a function that gives the tokenizer a published model's chat template, of those that TRL ships."""
    import trl

    folder = Path(trl.__file__).parent / "chat_templates"

    def load(name: str) -> Any:
        begin, end, others = SPECIAL_TOKENS[name.removesuffix("_training")]
        tokenizer = new_tokenizer((folder / f"{name}.jinja").read_text(encoding="utf-8"))
        tokenizer.add_special_tokens({"bos_token": begin, "eos_token": end, "additional_special_tokens": others})
        return tokenizer

    return load


@pytest.fixture
def make_example() -> Callable[..., TracedExample]:
    def build(response: str = "So it is \\boxed{2}", prompt: str = "1 + 1?", name: str = "t0") -> TracedExample:
        return TracedExample(name, "p0", prompt, response, "heal", "III", "rollout", "easy")

    return build


@pytest.fixture
def lab_student() -> Path:
    return STUDENT


CONFIG: dict[str, dict[str, Any]] = {
    "student": {"model_name_or_path": "ann/student-0.4m"},
    "teacher": {"model_name_or_path": "/home/ann/models/teacher"},
    "problems": {"path": None, "dataset": {"path": "ann/sums"}, "sources": []},
    "rollouts": {"sampling": {"temperature": 0.6, "top_p": 0.95, "max_tokens": 64}},
    "evaluation": {"num_generations": 4},
    "curriculum": {"epochs": [2, 1, 2]},
    "sft": {"learning_rate": 1e-5, "batch_size": 8, "seed": 0, "max_length": 512},
}


@pytest.fixture
def checkpoint(workspace: Workspace, lab_student: Path) -> Path:
    """The folder of a stage, as training leaves it."""
    folder = workspace.checkpoints / "c3"
    shutil.copytree(lab_student, folder)
    for name in ("result.json", "preflight.json", "README.md"):
        (folder / name).write_text("{}")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "_name_or_path": str(workspace.checkpoints / "c2")}))
    return folder


@pytest.fixture
def base_student() -> str:
    """What the run's config names the student."""
    return str(CONFIG["student"]["model_name_or_path"])


@pytest.fixture
def export(
    store: Store,
    workspace: Workspace,
    table_row: Callable[..., Row],
    checkpoint: Path,
    tmp_path: Path,
    base_student: str,
) -> Callable[..., Any]:
    """Return a function that exports stage III of a run that is stored by hand."""
    result = {"dtype": "float32", "device": "cpu", "versions": {"torch": "2.13.0"}}
    config = {**CONFIG, "student": {"model_name_or_path": base_student}}
    store.append("runs", [table_row("runs", config=json.dumps(config), git_revision="abc")])
    for problem, split in (("p0", "train"), ("p1", "held_out")):
        row = table_row("problems", problem_id=problem, source="/home/ann/sums.jsonl")
        store.append("problems", [row])
        store.append(
            "run_problems", [table_row("run_problems", run_problem_id=problem, problem_id=problem, split=split)]
        )
    store.append(
        "checkpoints",
        [
            {
                "checkpoint_id": "c3", "parent_checkpoint_id": None, "stage": "III", "folder": "checkpoints/c3",
                "num_examples": 5, "num_dropped_over_long": 1, "num_optimizer_steps": 7, "num_tokens": 99,
                "loss_first": 0.5, "loss_last": 0.25, "seconds": 1.0, "result": json.dumps(result),
            }
        ],
    )  # fmt: skip
    used = table_row("run_rows", phase="training", arm="heal", kind="checkpoint", row_id="c3")
    store.append("run_rows", [used])
    scores = {
        ("heal", None): 0.5,
        ("base", None): 0.125,
        ("some_new_arm", None): 0.25,
        ("heal", "/home/ann/aime"): 0.75,
    }
    store.append(
        "evaluations",
        [
            {
                "evaluation_id": f"{arm} {benchmark}", "run_id": "run", "arm": arm, "band": "all", "k": 4,
                "num_problems": 9, "avg_at_k": score, "standard_error": 0.0625, "pass_at_k": 0.75,
                "truncated_share": 0.0, "no_answer_share": 0.0, "benchmark": benchmark,
            }
            for (arm, benchmark), score in scores.items()
        ],
    )  # fmt: skip
    store.publish(force=True)

    def run(stage: str = "III", arm: str = "heal", **choices: Any) -> Any:
        path = tmp_path / "exported"
        with open_store(workspace.root) as reader:
            return export_model(reader, workspace, "run", arm, stage, path, ModelChoices(name="mine", **choices))

    return run


@pytest.fixture(scope="session")
def greedy_text() -> Callable[[Path, str], str]:
    """Return a function that has transformers answer a question by the most probable tokens."""

    def answer(folder: Path, question: str) -> str:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        turns = [{"role": "user", "content": student_prompt(question)}]
        inputs = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        output = model.generate(**inputs, do_sample=False, max_new_tokens=96)[0, inputs["input_ids"].shape[1] :]
        return str(tokenizer.decode(output, skip_special_tokens=True))

    return answer
