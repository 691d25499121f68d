"""The model card of a trained stage: metadata for the hub, and what a user must know, all of it from the store.

No path of this machine stands in it (`names`). What does not belong here: the files of the model (`model`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from heal_core.arms import ARMS, arm_named
from heal_core.chat import PLAIN_TEMPLATE
from heal_core.curriculum import STAGES
from heal_core.export.names import is_hub_id, public_name
from heal_core.prompts import BOXED, student_prompt
from heal_core.reference import make_reference
from heal_core.store.model_card import TrainingFacts

TAG = "heal"
"""The tag by which a folder is known as one that was exported."""

_BANDS = {"all": "all", "easy": "easy", "hard": "hard", "extremely_hard": "extremely hard", "ungraded": "ungraded"}
_KINDS = {"rollout": "base rollouts", "guided": "guided samples", "repair": "repairs"}
_VERSIONS = ("python", "torch", "transformers", "trl", "peft", "accelerate", "datasets")
_SETTINGS = (
    "learning_rate", "lr_scheduler_type", "warmup_ratio", "batch_size", "max_length", "weight_decay", "adam_beta1",
    "adam_beta2", "max_grad_norm", "seed",
)  # fmt: skip


@dataclass(frozen=True)
class CardChoices:
    """What only a user knows.

    Attributes:
        name: What the model is called.
        base_model: Hub id of the base student; None where it has none.
        license: An identifier of the hub, such as apache-2.0.
        languages: ISO 639 codes.
        what: How the folder holds the model: "whole weights in bfloat16", "a LoRA adapter".
        is_adapter: It is a PEFT adapter.
        has_chat_template: Whether the tokenizer has one.
    """

    name: str
    base_model: str | None
    license: str | None
    languages: tuple[str, ...]
    what: str
    is_adapter: bool
    has_chat_template: bool


def make_card(facts: TrainingFacts, choices: CardChoices) -> ModelCard:
    """Return the card of the last of the stages."""
    data = ModelCardData(
        license=choices.license,
        language=list(choices.languages) or None,
        base_model=choices.base_model,
        datasets=_hub_datasets(facts.config) or None,
        library_name="peft" if choices.is_adapter else "transformers",
        pipeline_tag="text-generation",
        tags=[TAG, "distillation", "reasoning", "sft", *(["lora"] if choices.is_adapter else [])],
        model_name=choices.name,
        eval_results=_eval_results(facts) or None,
    )
    sections = [
        _what_it_is(facts, choices),
        _training_data(facts),
        _training(facts),
        _evaluation(facts),
        _how_to_use(facts, choices),
        _limits(facts, choices),
    ]
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n# {choices.name}\n\n" + "\n\n".join(sections) + "\n")


def _what_it_is(facts: TrainingFacts, choices: CardChoices) -> str:
    run, stage = facts.run, facts.stages[-1]["stage"]
    return (
        f"{_role_name(facts, 'student')}, fine-tuned on {arm_named(facts.arm).examples}; the teacher is "
        f"{_role_name(facts, 'teacher')}. These are {choices.what}, after stage {stage}.\n\n"
        + _table(
            ["made by", ""],
            [
                ["run", run["run_id"]],
                ["checkpoint", facts.stages[-1]["checkpoint_id"]],
                ["heal version", run["heal_version"]],
                ["git revision", run["git_revision"] or "not known"],
                ["seed", run["seed"]],
            ],
        )
    )


def _training_data(facts: TrainingFacts) -> str:
    problems = [
        [public_name(row["source"]) or "not named", row["split"].replace("_", "-"), row["num_problems"]]
        for row in facts.problems
    ]
    kinds = [kind for kind in _KINDS if any(row["kind"] == kind for row in facts.examples)]
    rows = []
    for stage in facts.stages:
        of_stage = [row for row in facts.examples if row["stage"] == stage["stage"]]
        counts = [sum(row["num_examples"] for row in of_stage if row["kind"] == kind) for kind in kinds]
        rows.append([stage["stage"], *counts, stage["num_dropped_over_long"], stage["num_examples"]])
    return (
        "## Training data\n\n"
        + _table(["problems of", "split", "number"], problems)
        + "\n\nHeld-out problems are in no stage. Each stage holds the examples of the one before.\n\n"
        + _table(["stage", *(_KINDS[kind] for kind in kinds), "dropped, too long", "trained on"], rows)
    )


def _training(facts: TrainingFacts) -> str:
    sft, last = facts.config["sft"], facts.stages[-1]["result"]
    epochs = dict(zip(STAGES, facts.config["curriculum"]["epochs"], strict=True))
    rows = [
        [
            stage["stage"], epochs[stage["stage"]], stage["num_optimizer_steps"], stage["num_tokens"],
            _number(stage["loss_first"]), _number(stage["loss_last"]),
        ]
        for stage in facts.stages
    ]  # fmt: skip
    settings = [[name, sft[name]] for name in _SETTINGS if name in sft]
    if num := last.get("num_trained_parameters"):
        settings.append(["trained parameters", num])
    settings += [["lora", _lora_words(sft.get("lora"))], ["dtype", last["dtype"]], ["device", last["device"]]]
    versions = last["versions"]
    settings += [[name, versions[name]] for name in _VERSIONS if name in versions]
    start = f"It began with checkpoint {facts.parents[0]} of an earlier run.\n\n" if facts.parents else ""
    return (
        "## Training\n\n" + start + "Supervised fine-tuning in stages, each from the one before; the loss is on the "
        "responses alone.\n\n"
        + _table(["stage", "epochs", "optimizer steps", "tokens read", "loss at start", "at end"], rows)
        + "\n\n"
        + _table(["setting", "value"], settings)
    )


def _lora_words(lora: Mapping[str, Any] | None) -> str:
    """Return the settings of LoRA, "none" where all weights were trained."""
    if not lora:
        return "none: all weights were trained"
    return ", ".join(f"{name} {value}" for name, value in lora.items() if value is not None)


def _evaluation(facts: TrainingFacts) -> str:
    if not facts.evaluation:
        return "## Evaluation\n\nThe run has not evaluated its students so far."
    k = facts.evaluation[0]["k"]
    sampling = facts.config["evaluation"].get("sampling") or facts.config["rollouts"]["sampling"]
    sampled = ", ".join(f"{name} {value}" for name, value in sampling.items() if value is not None)
    arms, bands = list(ARMS), list(_BANDS)
    rows = sorted(
        facts.evaluation,
        key=lambda row: (row["benchmark"] or "", _place(row["band"], bands), _place(row["arm"], arms)),
    )
    table = [
        [
            _group(row), row["num_problems"], arm_named(row["arm"]).label,
            _share(row["avg_at_k"]),
            _share(row["standard_error"]), _share(row["pass_at_k"]), _share(row["truncated_share"]),
        ]
        for row in rows
    ]  # fmt: skip
    stage = facts.stages[-1]["stage"]
    other = "" if stage == "III" else f" The students in it are those of stage III; this is stage {stage}."
    return (
        f"## Evaluation\n\nOn the held-out problems of the run, {k} samples each ({sampled}); bands are by how often "
        f"the teacher solves a problem. In %, with the standard error over problems.{other}\n\n"
        + _table(["problems that are", "number", "model", f"avg@{k}", "± SE", f"pass@{k}", "cut at the limit"], table)
        + "\n\nProblems of the same source are like those trained on: other benchmarks may come out otherwise."
    )


def _how_to_use(facts: TrainingFacts, choices: CardChoices) -> str:
    wordings = dict.fromkeys(make_reference("", kind, "").wording for kind in facts.problem_types) or {BOXED: None}
    prompts = [student_prompt("{problem}", wording) for wording in wordings]
    if not choices.has_chat_template:
        prompts = [PLAIN_TEMPLATE.format_map({"x": prompt}) for prompt in prompts]
    max_tokens = facts.config["rollouts"]["sampling"].get("max_tokens")
    as_text = "The tokenizer has no chat template: send it as plain text." if not choices.has_chat_template else (
        "It is one user turn, in the tokenizer's chat template, without a system prompt of yours."
    )  # fmt: skip
    return (
        "## How to use\n\nThe prompt it is trained with, letter for letter (one per kind of problem):\n\n"
        + "\n\n".join(f"````\n{prompt}\n````" for prompt in prompts)
        + f"\n\n{as_text}\n\n```python\n{_python(choices, max_tokens)}\n```\n\n{_serve(choices)}"
    )


def _python(choices: CardChoices, max_tokens: int | None) -> str:
    if choices.is_adapter:
        load = (
            "from peft import AutoPeftModelForCausalLM\nfrom transformers import AutoTokenizer\n\n"
            f'model = AutoPeftModelForCausalLM.from_pretrained("{choices.name}")\n'
        )
    else:
        load = (
            "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
            f'model = AutoModelForCausalLM.from_pretrained("{choices.name}")\n'
        )
    load += f'tokenizer = AutoTokenizer.from_pretrained("{choices.name}")\n'
    instruction = student_prompt("").strip().replace("\\", "\\\\")
    ask = f'prompt = "What is 6 * 7?\\n\\n{instruction}"\n'
    if choices.has_chat_template:
        ask += (
            'turns = [{"role": "user", "content": prompt}]\n'
            "inputs = tokenizer.apply_chat_template(turns, add_generation_prompt=True, "
            'return_tensors="pt", return_dict=True)\n'
        )
    else:
        ask += 'inputs = tokenizer(f"Problem:\\n{prompt}\\n\\nSolution:\\n", return_tensors="pt")\n'
    return (
        load + ask + f"output = model.generate(**inputs, max_new_tokens={max_tokens or 1024})\n"
        'print(tokenizer.decode(output[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True))'
    )


def _serve(choices: CardChoices) -> str:
    if choices.is_adapter:
        base = choices.base_model or "BASE"
        return f"```\nvllm serve {base} --enable-lora --lora-modules {choices.name}=/path/to/this/folder\n```"
    return f"```\nvllm serve {choices.name}\n```"


def _limits(facts: TrainingFacts, choices: CardChoices) -> str:
    teacher, student = (_role_name(facts, role) for role in ("teacher", "student"))
    told = f"`{choices.license}`, as its publisher says" if choices.license else "not stated"
    return (
        "## Limits and licence\n\n"
        "- Trained on problems whose answers a program can check; elsewhere it may do worse than before.\n"
        "- Its answers can be wrong and its reasoning need not be how it came to an answer.\n"
        "- One training with one seed: differences of a few points between models can be chance.\n"
        f"- Licence: {told}. Nobody checked it here: the terms of the base model ({student}), of the teacher "
        f"({teacher}) for what is made of its outputs, and of the problems all apply."
    )


# ---- metadata


def _hub_datasets(config: Mapping[str, Any]) -> list[str]:
    """Return the ids of the data sets on the hub that problems were taken from."""
    problems = config["problems"]
    sources = [problems, *(problems.get("sources") or [])]
    ids = [source["dataset"]["path"] for source in sources if source.get("dataset")]
    return [name for name in dict.fromkeys(ids) if is_hub_id(name)]


def _eval_results(facts: TrainingFacts) -> list[EvalResult]:
    """Return the scores of this very model over all held-out problems; the students of stage III are evaluated."""
    if facts.stages[-1]["stage"] != "III":
        return []
    sources = ", ".join(dict.fromkeys(public_name(row["source"]) for row in facts.problems if row["source"]))
    return [
        EvalResult(
            task_type="text-generation",
            task_name="Solving held-out problems",
            dataset_type="held-out",
            dataset_name=f"Held-out problems of {sources or 'the run'}",
            metric_type=f"{metric}@{row['k']}",
            metric_name=f"{metric}@{row['k']} over {row['num_problems']} problems",
            metric_value=round(row[f"{metric}_at_k"], 4),
        )
        for row in facts.evaluation
        if row["arm"] == facts.arm and row["band"] == "all" and row["benchmark"] is None
        for metric in ("avg", "pass")
    ]


# ---- words


def _role_name(facts: TrainingFacts, role: str) -> str:
    return public_name(facts.config[role]["model_name_or_path"])


def _group(row: Mapping[str, Any]) -> str:
    """Return which problems a row of scores is about."""
    if row["benchmark"] is not None:
        return f"of {public_name(row['benchmark'])}"
    return _BANDS.get(row["band"], str(row["band"]))


def _place(name: str, order: Sequence[str]) -> int:
    return order.index(name) if name in order else len(order)


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)
