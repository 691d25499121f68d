from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    Gemma3TextConfig,
    MambaConfig,
    MistralConfig,
    Qwen2Config,
)

from heal_core.engines.base import EngineConfig
from heal_core.engines.loading import LoadedModel, load
from heal_core.engines.packable import why_not_packable

SMALL = {
    "vocab_size": 778, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 16, "pad_token_id": 0, "bos_token_id": None, "eos_token_id": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def teacher(lab_teacher: Path) -> LoadedModel:
    return load(EngineConfig(model_name_or_path=str(lab_teacher), num_threads=1, device="cpu"), lab_teacher)


def with_model(teacher: LoadedModel, config: Any, dtype: torch.dtype = torch.float32) -> LoadedModel:
    torch.manual_seed(0)
    return replace(teacher, model=AutoModelForCausalLM.from_config(config).to(dtype).eval())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_plain_attention_is(teacher: LoadedModel, dtype: torch.dtype) -> None:
    assert why_not_packable(teacher) is None
    assert why_not_packable(with_model(teacher, Qwen2Config(**SMALL), dtype)) is None
    assert why_not_packable(with_model(teacher, MistralConfig(**SMALL, sliding_window=None), dtype)) is None


def test_eager_attention_is_too(teacher: LoadedModel) -> None:
    eager = with_model(teacher, Qwen2Config(**SMALL, attn_implementation="eager"))
    assert why_not_packable(eager) is None


def test_windows_are_not(teacher: LoadedModel) -> None:
    # longer than what is tried, so that trying would not show them
    mistral = with_model(teacher, MistralConfig(**SMALL, sliding_window=64))
    assert "sliding window of 64" in str(why_not_packable(mistral))
    gemma = with_model(teacher, Gemma3TextConfig(**SMALL, sliding_window=64))
    assert "sliding_attention" in str(why_not_packable(gemma))


def test_a_model_without_attention_is_not(teacher: LoadedModel) -> None:
    mamba = MambaConfig(vocab_size=778, hidden_size=32, num_hidden_layers=2, state_size=4, pad_token_id=0)
    assert why_not_packable(with_model(teacher, mamba)) is not None


def test_a_model_that_counts_positions_itself_is_not(teacher: LoadedModel) -> None:
    # ALiBi: distances are those in the tree, not those in the row
    bloom = BloomConfig(vocab_size=778, hidden_size=32, n_layer=2, n_head=2, pad_token_id=0)
    assert why_not_packable(with_model(teacher, bloom)) is not None


def test_one_that_ignores_its_mask_is_found_by_trying(teacher: LoadedModel) -> None:
    odd = with_model(teacher, Qwen2Config(**SMALL))
    run = odd.model.base_model.forward

    def blind(*args: Any, attention_mask: Any = None, **kwargs: Any) -> Any:
        return run(*args, **kwargs)

    odd.model.base_model.forward = blind
    assert "came out different" in str(why_not_packable(odd))
