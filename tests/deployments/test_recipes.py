"""The recipes: each is meant, fits its models' contexts, and says what it costs."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.scale import JOBS, Job, cost
from heal_core.config import RunConfig, load_config
from heal_core.gradable import find_ungradable
from heal_core.problems import load_problems
from heal_core.sft.config import SftConfig
from heal_core.sft.launch import run_stage
from heal_core.sft.spec import StageSpec
from heal_core.split import HELD_OUT, TRAIN
from heal_core.verify.config import VerifyConfig
from heal_core.verify.pool import VerifierPool

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "deployments" / "recipes"
PROMPT_TOKENS = {"laptop.yaml": 256, "single-gpu.yaml": 1024, "paper-scale.yaml": 2048}
"""The longest problem that each is made for; what is longer is refused or left out, and counted."""
CONTEXT_TOKENS = {"laptop.yaml": 8192}
"""Of the smallest model, where no server is told a limit: SmolLM2-135M's."""


def load(name: str) -> RunConfig:
    return load_config(RECIPES / name)


def option(words: Sequence[str], name: str) -> int:
    """Return the number behind an option of a command."""
    return int(words[list(words).index(name) + 1])


def test_all_recipes_are_checked_here() -> None:
    assert {path.name for path in RECIPES.glob("*.yaml")} == PROMPT_TOKENS.keys() | {"fsdp.yaml"}


@pytest.mark.parametrize("name", PROMPT_TOKENS)
def test_a_recipe_keeps_its_own_workspace_and_names_its_engines(name: str) -> None:
    config = load(name)
    engines = {"laptop.yaml": "hf hf", "single-gpu.yaml": "vllm vllm", "paper-scale.yaml": "openai vllm"}
    assert config.workspace == name.removesuffix(".yaml")
    assert f"{config.teacher.engine} {config.student.engine}" == engines[name]
    assert config.evaluation.num_generations <= config.rollouts.num_generations
    assert f"heal run deployments/recipes/{name}" in (RECIPES / name).read_text()


@pytest.mark.parametrize("name", PROMPT_TOKENS)
def test_the_longest_texts_fit_contexts_and_training(name: str) -> None:
    config = load(name)
    answer = config.rollouts.sampling.max_tokens
    contexts = [
        option(model.launch.args, "--max-model-len") for model in (config.teacher, config.student) if model.launch
    ]
    # who writes a hint sees the problem and the failed attempt
    longest = PROMPT_TOKENS[name] + answer + config.hints.sampling.max_tokens
    assert longest <= min(contexts, default=CONTEXT_TOKENS.get(name, 0))
    assert config.sft.max_length >= PROMPT_TOKENS[name] + answer


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.recipe)
def test_the_header_says_what_the_sums_say(job: Job) -> None:
    assert f"#   {cost(job)}\n" in (RECIPES / job.recipe).read_text()


def test_the_servers_of_the_header_give_what_the_recipe_asks_for() -> None:
    config, text = load("paper-scale.yaml"), (RECIPES / "paper-scale.yaml").read_text()
    header = text[: text.index("workspace:")].replace("#", " ").replace("\\\n", " ")
    serve = re.search(r"vllm serve .*", header)
    router = re.search(r"vllm-router --port .*", header)
    assert serve and router and config.teacher.server and config.student.launch
    served, routed = serve[0].split(), router[0].split()
    assert served[2] == config.teacher.model_name_or_path
    assert option(served, "--max-model-len") == option(config.student.launch.args, "--max-model-len")
    assert option(served, "--max-logprobs") >= config.teacher.server.top_logprobs
    assert config.teacher.server.base_urls == (f"http://127.0.0.1:{option(routed, '--port')}/v1",)
    assert option(routed, "--request-timeout-secs") >= config.teacher.server.request_seconds
    assert config.rollouts.num_generations == 30


def test_the_launcher_finds_its_file_and_the_batch_divides() -> None:
    sft = load("paper-scale.yaml").sft
    fsdp = yaml.safe_load((ROOT / sft.launcher[-1]).read_text())
    assert sft.device_share(fsdp["num_processes"]) == 1
    # transformers refuses to do it twice
    assert sft.gradient_checkpointing and not fsdp["fsdp_config"]["fsdp_activation_checkpointing"]


@pytest.mark.usefixtures("reasoning_gym")
def test_the_laptop_has_problems_on_both_sides() -> None:
    with VerifierPool(VerifyConfig()) as pool:
        loaded = load_problems(load("laptop.yaml").problems, lambda problems: find_ungradable(problems, pool))
    sides = [problem.split for problem in loaded.problems]
    assert (sides.count(TRAIN), sides.count(HELD_OUT)) == (46, 24)
    assert {row.reason.partition(":")[0] for row in loaded.quarantined} == {"near_duplicate_of_held_out"}
    # at least 3 characters a token
    assert max(len(problem.question) for problem in loaded.problems) / 3 < PROMPT_TOKENS["laptop.yaml"]


@pytest.mark.full
def test_training_split_over_processes_learns_what_one_process_learns(tmp_path: Path) -> None:
    recipe = load("paper-scale.yaml").sft
    settings = yaml.safe_load((ROOT / recipe.launcher[-1]).read_text())
    fsdp = tmp_path / "fsdp.yaml"
    fsdp.write_text(yaml.safe_dump({**settings, "num_processes": 2, "use_cpu": True, "mixed_precision": "no"}))
    examples = tmp_path / "examples.jsonl"
    examples.write_text(
        "".join(f'{{"example_id": "{n}", "prompt": "{n} + 1?", "response": "It is {n + 1}."}}\n' for n in range(8))
    )

    def train(name: str, launcher: tuple[str, ...]) -> list[float]:
        config = SftConfig(
            learning_rate=3e-4, device="cpu", dtype="float32", num_threads=1, max_length=128,
            gradient_checkpointing=recipe.gradient_checkpointing, launcher=launcher,
        )  # fmt: skip
        spec = StageSpec(
            stage="I", arm="heal", model_name_or_path=str(ROOT / "deployments/lab/student"), examples_path=examples,
            num_optimizer_steps=3, output_dir=tmp_path / name, config=config,
        )  # fmt: skip
        return [step.loss for step in run_stage(spec).steps]

    launcher = (str(Path(sys.executable).with_name("accelerate")), *recipe.launcher[1:-1], str(fsdp))
    one, two = train("one", ()), train("two", launcher)
    assert two == pytest.approx(one, abs=1e-4) and one[-1] < one[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", PROMPT_TOKENS)
def test_each_is_planned_without_its_models_and_sources(name: str, heal: Any, tmp_path: Path) -> None:
    config = RECIPES / name
    done = heal("plan", config, f"workspace={tmp_path / 'none'}", "--problems", "1000", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    settings = load_config(config)
    (rollouts,) = (row for row in told["works"] if row["name"] == "rollouts")
    assert rollouts["wanted"] == 1000 * settings.rollouts.num_generations
    assert not (tmp_path / "none").exists(), "a plan writes nothing"
