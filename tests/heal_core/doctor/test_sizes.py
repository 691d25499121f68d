"""What models take, computed from their files; the arithmetic is in the comments."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from heal_core.config import RunConfig
from heal_core.doctor.sizes import ModelSize, list_demands, model_size, read_weights, stages_bytes
from heal_core.engines.base import EngineConfig
from heal_core.errors import ModelError

LAB = Path(__file__).parents[3] / "deployments/lab"
GIB = 2**30
MakeConfig = Callable[..., RunConfig]


def test_weights_are_counted_from_their_headers(tmp_path: Path) -> None:
    # 2 x 3 + 4 = 10 parameters
    tensors = {"a": np.zeros((2, 3), np.float32), "b": np.zeros(4, np.float16)}
    whole = tmp_path / "model.safetensors"
    save_file(tensors, whole, {"format": "pt"})
    save_file(tensors, tmp_path / "copy.safetensors", {"format": "pt"})  # not what transformers would load
    num_bytes = whole.stat().st_size
    assert read_weights(tmp_path) == (10, num_bytes)
    whole.rename(tmp_path / "part.safetensors")
    assert read_weights(tmp_path) == (20, 2 * num_bytes)


def test_a_shard_that_the_index_names_must_be_there(teacher: Path) -> None:
    (teacher / "model.safetensors").rename(teacher / "model-00001-of-00002.safetensors")
    weights = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (teacher / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weights}))
    with pytest.raises(ModelError, match=r"model-00002-of-00002\.safetensors is missing, cut, or"):
        read_weights(teacher)


def test_what_a_model_takes_is_computed_from_its_files() -> None:
    settings = json.loads((LAB / "teacher/config.json").read_text())
    num_parameters, stored_bytes = read_weights(LAB / "teacher")
    heads = settings["num_attention_heads"]
    head_size = settings.get("head_dim") or settings["hidden_size"] // heads
    # keys and values of each layer, for 224 tokens of answer and 512 of prompt
    numbers = 2 * settings["num_hidden_layers"] * settings["num_key_value_heads"] * head_size * (224 + 512)

    def size(dtype: str) -> ModelSize:
        return model_size(EngineConfig(model_name_or_path="x", dtype=dtype), LAB / "teacher", 224)

    assert size("float32") == ModelSize(num_parameters, 4 * num_parameters, 4 * numbers)
    assert size("bfloat16") == ModelSize(num_parameters, 2 * num_parameters, 2 * numbers)
    assert size("auto").loaded_bytes == stored_bytes


def test_a_run_needs_memory_for_engines_and_training(make_config: MakeConfig) -> None:
    sizes = {"teacher": ModelSize(7 * 2**29, 7 * GIB, GIB // 4), "student": ModelSize(GIB // 4, GIB // 2, 0)}
    run = make_config(teacher__batch_size=16, teacher__dtype="auto", student__dtype="bfloat16", sft__device="cuda")
    teacher, student, training = list_demands(run, sizes)
    # 7 + 1 for the libraries, and 16 x 0.25 of cache
    assert (teacher.what, teacher.least_bytes, teacher.full_bytes) == ("the teacher", 8 * GIB, 12 * GIB)
    assert teacher.remedy == "set teacher.batch_size=4 or teacher.dtype=bfloat16"
    assert (student.full_bytes, student.remedy) == (3 * GIB // 2, "set student.batch_size=16")
    # 16 bytes x 0.25 + 1
    assert (training.what, training.device, training.full_bytes) == ("training", "cuda", 5 * GIB)


def test_what_is_not_known_or_spread_over_gpus_is_left_out(make_config: MakeConfig) -> None:
    sizes = {"student": ModelSize(GIB // 4, GIB // 2, 0)}
    demands = list_demands(make_config(sft__launcher=["accelerate", "launch"]), sizes)
    assert [demand.what for demand in demands] == ["the student"]


def test_what_training_will_write_is_known(make_config: MakeConfig) -> None:
    run = make_config(controls={"rejection_sampling": True, "equal_tokens": False})
    # 2 arms of 3 stages, of which they share one, 4 bytes a parameter
    assert stages_bytes(run, ModelSize(1000, 2000, 0)) == 20_000
    assert stages_bytes(run, None) == 0
