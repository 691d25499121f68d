"""The recipes: each is meant, fits its models' contexts, and says what it costs."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Sequence
from functools import cache
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
from heal_core.sft.spec import StageResult, StageSpec
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
    assert {path.name for path in RECIPES.glob("*.yaml")} == PROMPT_TOKENS.keys() | {"fsdp.yaml", "ddp.yaml"}


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


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., StageResult]:
    """Return a function that trains the lab's student a little, under a launcher."""
    recipe = load("paper-scale.yaml").sft
    folder = tmp_path_factory.mktemp("split")
    examples = folder / "examples.jsonl"
    examples.write_text(
        "".join(
            f'{{"example_id": "{n}", "prompt": "{n} + 1?", "response": "{"So it goes. " * (n % 4)}It is {n + 1}."}}\n'
            for n in range(11)
        )
    )

    @cache
    def train(name: str, launcher: tuple[str, ...] = ()) -> StageResult:
        config = SftConfig(
            learning_rate=3e-4, device="cpu", dtype="float32", num_threads=1, max_length=128, micro_batch_tokens=100,
            gradient_checkpointing=recipe.gradient_checkpointing, launcher=launcher, save_every_steps=1,
        )  # fmt: skip
        spec = StageSpec(
            stage="I", arm="heal", model_name_or_path=str(ROOT / "deployments/lab/student"), examples_path=examples,
            num_optimizer_steps=3, output_dir=folder / name, config=config, held_out_path=examples,
        )  # fmt: skip
        return run_stage(spec)

    return train


@pytest.mark.full
@pytest.mark.parametrize(
    ("name", "changes"),
    [
        # a precision in the file, which the settings overrule
        ("fsdp.yaml", {"use_cpu": True, "mixed_precision": "bf16"}),
        # accelerate starts one process for MULTI_CPU, without a word
        ("ddp.yaml", {"use_cpu": True, "mixed_precision": "bf16"}),
    ],
)
def test_training_split_over_processes_learns_what_one_process_learns(
    name: str, changes: dict[str, Any], train: Callable[..., StageResult], tmp_path: Path
) -> None:
    settings = yaml.safe_load((RECIPES / name).read_text()) | changes | {"num_processes": 2}
    settings.pop("gpu_ids", None)
    launched = tmp_path / name
    launched.write_text(yaml.safe_dump(settings))
    accelerate = str(Path(sys.executable).with_name("accelerate"))
    one, two = train("one"), train(name, (accelerate, "launch", "--config_file", str(launched)))
    assert [s.loss for s in two.steps] == pytest.approx([s.loss for s in one.steps], abs=1e-4)
    assert [s.grad_norm for s in two.steps] == pytest.approx([s.grad_norm for s in one.steps], rel=1e-3)
    # the same examples in the same order, counted over both processes
    assert [(s.positions, s.num_tokens) for s in two.steps] == [(s.positions, s.num_tokens) for s in one.steps]
    assert [h.step for h in two.held_out] == [0, 3] and two.steps[-1].loss < two.steps[0].loss
    # of 11 held-out solutions each of two processes reads 5
    assert (one.held_out[0].num_examples, two.held_out[0].num_examples) == (11, 10)


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
