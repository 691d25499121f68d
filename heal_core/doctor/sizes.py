"""What the models of a run take, in memory and on the disk, from the headers of their files.

Estimates, to be told before the night that something cannot fit. What does not belong here:
what there is (`memory`, `workspace`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from heal_core.config import RunConfig
from heal_core.controls import num_trained_stages
from heal_core.doctor.finding import GIB
from heal_core.doctor.memory import Demand
from heal_core.engines.base import EngineConfig
from heal_core.engines.settings import read_json, read_settings
from heal_core.errors import ModelError

_LIBRARIES_BYTES = GIB  # torch, transformers and a CUDA context, beside the model
_TRAINING_BYTES = 16  # per parameter: weights, gradients and AdamW's two moments in float32
_FROZEN_BYTES = 4  # per parameter under an adapter, which is small
_PROMPT_TOKENS = 512  # a long problem with a hint
_STAGE_BYTES = 4  # per parameter: stages are saved in float32


@dataclass(frozen=True)
class ModelSize:
    """What a model takes: its weights as loaded, and the cache of one answer of the greatest length."""

    num_parameters: int
    loaded_bytes: int
    answer_bytes: int


def models_of(config: RunConfig) -> dict[str, EngineConfig]:
    """Return the models that a run loads, by role."""
    models = {"teacher": config.teacher, "student": config.student}
    return models if config.scorer is None else {**models, "scorer": config.scorer}


def model_size(model: EngineConfig, folder: Path, max_tokens: int) -> ModelSize:
    """Return what a model takes that gives answers of up to `max_tokens`.

    Raises:
        ModelError: If a file is missing, cut, or of another format.
    """
    num_parameters, loaded_bytes = read_weights(folder)
    if model.dtype != "auto":
        loaded_bytes = num_parameters * (4 if model.dtype == "float32" else 2)
    numbers = _cached_numbers(read_settings(folder)) * (_PROMPT_TOKENS + max_tokens)
    answer_bytes = numbers * loaded_bytes // max(1, num_parameters)
    return ModelSize(num_parameters, loaded_bytes, answer_bytes)


def list_demands(config: RunConfig, sizes: Mapping[str, ModelSize]) -> list[Demand]:
    """Return what the engines and the training of a run need, as far as the sizes are known, which are by role."""
    demands = [_engine_demand(role, model, sizes[role]) for role, model in models_of(config).items() if role in sizes]
    if "student" in sizes and not config.sft.launcher:
        per_parameter = _TRAINING_BYTES if config.sft.lora is None else _FROZEN_BYTES
        need = sizes["student"].num_parameters * per_parameter + _LIBRARIES_BYTES
        remedy = (
            "take a smaller student, train an adapter (sft.lora.r=16), or take several GPUs: "
            "sft.launcher=[accelerate,launch,--config_file,fsdp.yaml]"
        )
        demands.append(Demand("training", config.sft.device, need, need, remedy))
    return demands


def stages_bytes(config: RunConfig, student: ModelSize | None) -> int:
    """Return what the stages of all arms take on the disk; 0 where the student's size is not known, or of adapters."""
    if student is None or (config.sft.lora is not None and config.sft.lora.save == "adapter"):
        return 0
    return num_trained_stages(config.controls.arms) * _STAGE_BYTES * student.num_parameters


def read_weights(folder: Path) -> tuple[int, int]:
    """Return a model's number of parameters and their bytes, from the headers of its files, which must be whole.

    Raises:
        ModelError: If a file is missing, cut, or no safetensors.
    """
    num_parameters = num_bytes = 0
    for path in _weight_files(folder):
        try:
            with safe_open(path, framework="numpy") as tensors:
                for name in tensors.keys():  # noqa: SIM118  (it is no mapping)
                    num_parameters += math.prod(tensors.get_slice(name).get_shape())
            num_bytes += path.stat().st_size
        except (OSError, SafetensorError) as error:
            raise ModelError(f"{path} is missing, cut, or a pointer of git-lfs: {error}") from error
    return num_parameters, num_bytes


def _engine_demand(role: str, model: EngineConfig, size: ModelSize) -> Demand:
    least = size.loaded_bytes + _LIBRARIES_BYTES
    smaller = "" if model.dtype.endswith("16") else f" or {role}.dtype=bfloat16"
    remedy = f"set {role}.batch_size={max(1, model.batch_size // 4)}{smaller}"
    return Demand(f"the {role}", model.device, least, least + model.batch_size * size.answer_bytes, remedy)


def _cached_numbers(settings: Mapping[str, Any]) -> int:
    """Return how many numbers a model keeps per token; 0 where the architecture does not say."""
    heads, layers = settings.get("num_attention_heads") or 0, settings.get("num_hidden_layers") or 0
    head_size = settings.get("head_dim") or (settings.get("hidden_size", 0) // heads if heads else 0)
    return int(2 * layers * (settings.get("num_key_value_heads") or heads) * head_size)


def _weight_files(folder: Path) -> list[Path]:
    """Return the files that transformers would load: the one, those of the index, or all."""
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file():
        return [single]
    if not index.is_file():
        return sorted(folder.glob("*.safetensors"))
    return [folder / name for name in sorted(set(read_json(index).get("weight_map", {}).values()))]
