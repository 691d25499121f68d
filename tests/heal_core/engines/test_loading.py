import json
import shutil
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from heal_core.engines.base import Capability, EngineConfig
from heal_core.engines.loading import LoadedModel, check_model_folder, load
from heal_core.errors import ConfigError, ModelError

TEACHER = Path(__file__).parents[3] / "deployments" / "lab" / "teacher"
ANSWER_ONLY_TEMPLATE = "{{ raise_exception('no user turns here') }}"


def load_folder(folder: Path, **settings: object) -> LoadedModel:
    return load(EngineConfig(model_name_or_path=str(folder), num_threads=1, **settings), folder)


def make_model(folder: Path, chat_template: str | None = None) -> Path:
    """Write a tiny random Llama with one token per byte into `folder`."""
    vocabulary = {char: index for index, char in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    backend = Tokenizer(models.BPE(vocab={**vocabulary, "<|end|>": 256}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|end|>")
    tokenizer.chat_template = chat_template
    tokenizer.save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=260,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=128,
        bos_token_id=None,
        eos_token_id=257,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(TEACHER, tmp_path / "teacher"))


def test_the_lab_teacher_is_described() -> None:
    loaded = load_folder(TEACHER)
    description = loaded.description
    assert description.model_name_or_path == str(TEACHER)
    assert description.dtype == "float32"
    assert description.context_tokens == json.loads((TEACHER / "config.json").read_text())["max_position_embeddings"]
    assert description.vocabulary_size == loaded.model.config.vocab_size
    assert description.capabilities == set(Capability)
    assert description.chat_template_digest != "none"
    assert loaded.eos_ids == {loaded.tokenizer.convert_tokens_to_ids("<|end|>")}


def test_a_prompt_is_rendered_with_the_chat_template() -> None:
    loaded = load_folder(TEACHER)
    assert loaded.tokenizer.decode(loaded.prompt_ids("1 + 1?")) == "<|user|>1 + 1?<|end|><|assistant|>"


def test_without_a_chat_template_the_plain_prompt_is_used(tmp_path: Path) -> None:
    loaded = load_folder(make_model(tmp_path))
    assert loaded.description.chat_template_digest == "none"
    assert loaded.tokenizer.decode(loaded.prompt_ids("x?")) == "Problem:\nx?\n\nSolution:\n"
    assert loaded.eos_ids == {256, 257}  # the tokenizer's and the model's own


def test_a_list_of_end_tokens_is_taken_whole(folder: Path) -> None:
    path = folder / "generation_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "eos_token_id": [1, 5]}))
    assert load_folder(folder).eos_ids == {1, 5}


def test_a_template_that_refuses_a_user_turn_is_a_model_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="chat template"):
        load_folder(make_model(tmp_path, ANSWER_ONLY_TEMPLATE))


@pytest.mark.parametrize(
    ("removed", "message"),
    [
        ("config.json", "expected config.json"),
        ("tokenizer.json", "expected a tokenizer"),
        ("model.safetensors", "no weights"),
    ],
)
def test_a_missing_file_is_named(folder: Path, removed: str, message: str) -> None:
    check_model_folder(folder)
    (folder / removed).unlink()
    with pytest.raises(ModelError, match=message):
        check_model_folder(folder)


def test_pickled_weights_are_refused(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"only \.bin weights"):
        check_model_folder(folder)


def test_damaged_weights_are_a_model_error(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_folder(folder)


def test_weights_that_lack_a_layer_are_refused(folder: Path) -> None:
    # transformers would fill the fifth layer with random numbers and go on
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "num_hidden_layers": 5}))
    with pytest.raises(ModelError, match="weights are missing"):
        load_folder(folder)


def test_a_damaged_config_is_a_model_error(folder: Path) -> None:
    (folder / "config.json").write_text("{")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_folder(folder)


def test_a_device_that_does_not_exist_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="device"):
        load_folder(TEACHER, device="abacus")
