"""A tiny random student whose tokens are single bytes, so that lengths can be counted by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from heal_core.sft.config import SftConfig
from heal_core.sft.spec import StageSpec

SPECIAL_TOKENS = ["<|pad|>", "<|end|>", "<|user|>", "<|assistant|>", "<|eos|>"]
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
CONTEXT_TOKENS = 128


def new_tokenizer(chat_template: str | None) -> PreTrainedTokenizerFast:
    """Return a tokenizer of the 256 bytes and five special tokens; its EOS is not what ends a turn."""
    vocabulary = {token: i for i, token in enumerate([*SPECIAL_TOKENS, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|pad|>",
        eos_token="<|eos|>",
        additional_special_tokens=SPECIAL_TOKENS[1:4],
        chat_template=chat_template,
        clean_up_tokenization_spaces=False,
    )


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return new_tokenizer(CHAT_TEMPLATE)


@pytest.fixture(scope="session")
def plain_tokenizer() -> PreTrainedTokenizerFast:
    return new_tokenizer(None)


@pytest.fixture(scope="session")
def student_dir(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> Path:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT_TOKENS,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        attention_dropout=0.1,  # so that a resume must restore the random state, too
    )
    folder = tmp_path_factory.mktemp("student")
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def make_spec(student_dir: Path, tmp_path: Path) -> Callable[..., StageSpec]:
    """Return a function that builds a spec over the examples it is given."""

    def build(rows: list[tuple[str, str, str]], **changes: Any) -> StageSpec:
        path = tmp_path / "examples.jsonl"
        lines = [json.dumps({"example_id": i, "prompt": p, "response": r}) for i, p, r in rows]
        path.write_text("".join(line + "\n" for line in lines))
        values: dict[str, Any] = {
            "stage": "I",
            "arm": "heal",
            "model_name_or_path": str(student_dir),
            "examples_path": path,
            "num_optimizer_steps": 3,
            "output_dir": tmp_path / "checkpoint",
            "config": SftConfig(num_threads=1, device="cpu"),
        }
        return StageSpec(**(values | changes))

    return build
