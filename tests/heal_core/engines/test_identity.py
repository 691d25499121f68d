import json
import os
import shutil
from pathlib import Path

import pytest

from heal_core.engines.base import EngineConfig
from heal_core.engines.identity import check_context, digest_files, identify_model, resolve_folder
from heal_core.errors import ModelError


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Return a folder that looks like a model; nothing here loads it."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    (folder / "model-00001-of-00002.safetensors").write_bytes(b"one")
    (folder / "model-00002-of-00002.safetensors").write_bytes(b"two")
    (folder / "tokenizer.json").write_text("{}")
    (folder / "tokenizer_config.json").write_text("{}")
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    return folder


def config(folder: Path | str, **changes: object) -> EngineConfig:
    return EngineConfig(model_name_or_path=str(folder), **changes)


@pytest.mark.parametrize(
    "name",
    [
        "model-00002-of-00002.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
        "config.json",
        "generation_config.json",  # a new file
    ],
)
def test_whatever_shapes_a_text_changes_the_digest(model: Path, name: str) -> None:
    before = digest_files(model)
    with (model / name).open("ab") as stream:
        stream.write(b" ")
    assert digest_files(model) != before


def test_a_file_of_the_same_size_is_read_again(model: Path) -> None:
    before = digest_files(model)
    weights = model / "model-00001-of-00002.safetensors"
    weights.write_bytes(b"eno")
    os.utime(weights, ns=(0, 1))  # the clock of a file system may be coarse
    assert digest_files(model) != before


def test_the_same_bytes_under_another_name_are_another_model(model: Path) -> None:
    before = digest_files(model)
    (model / "chat_template.jinja").rename(model / "chat_template.json")
    assert digest_files(model) != before


def test_a_readme_does_not_change_the_digest(model: Path) -> None:
    before = digest_files(model)
    (model / "README.md").write_text("hello")
    assert digest_files(model) == before


def test_a_model_may_move(model: Path, tmp_path: Path) -> None:
    before = identify_model(config(model))
    moved = tmp_path / "elsewhere" / "other"
    shutil.copytree(model, moved)
    assert identify_model(config(moved)) == before
    assert str(model) not in json.dumps(before)


def test_precision_is_part_of_the_identity_and_speed_is_not(model: Path) -> None:
    one = identify_model(config(model))
    assert identify_model(config(model, dtype="bfloat16")) != one
    assert identify_model(config(model, batch_size=1, num_threads=1, stall_seconds=1)) == one


def test_a_home_folder_is_expanded(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(model.parent))
    assert resolve_folder(config("~/model")) == model


@pytest.mark.parametrize("name", ["/no/such/model", "./no-such-model", "~/no-such-model", "a/b/c"])
def test_a_missing_folder_is_refused_without_asking_the_hub(name: str) -> None:
    with pytest.raises(ModelError, match=f"model {name}: no such folder. Expected a Hugging Face model folder"):
        identify_model(config(name))


def test_a_file_is_no_model(model: Path) -> None:
    with pytest.raises(ModelError, match="no such folder"):
        identify_model(config(model / "config.json"))


def test_weights_must_be_safetensors(model: Path) -> None:
    for weights in model.glob("*.safetensors"):
        weights.unlink()
    (model / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(ModelError, match=r"holds no \*.safetensors. Only safetensors weights are read; convert them"):
        identify_model(config(model))


def test_a_folder_without_config_is_refused(model: Path) -> None:
    (model / "config.json").unlink()
    with pytest.raises(ModelError, match=r"holds no config.json. Expected a Hugging Face model folder"):
        identify_model(config(model))


@pytest.mark.parametrize(
    "settings", [{"max_position_embeddings": 512}, {"text_config": {"max_position_embeddings": 512}}]
)
def test_a_limit_that_leaves_no_room_for_a_prompt_is_refused(model: Path, settings: dict[str, object]) -> None:
    (model / "config.json").write_text(json.dumps(settings))
    check_context(config(model), 511, "some.max_tokens")
    with pytest.raises(ModelError, match=r"some\.max_tokens is 512, but .* context of 512 .*Lower some\.max_tokens"):
        check_context(config(model), 512, "some.max_tokens")


def test_a_context_that_is_not_told_is_checked_later(model: Path) -> None:
    check_context(config(model), 10**9, "some.max_tokens")


def test_a_config_that_cannot_be_read_is_named(model: Path) -> None:
    (model / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"config\.json cannot be read"):
        check_context(config(model), 1, "some.max_tokens")


def test_a_name_that_no_hub_answers_for_is_refused_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match=r"owner/no-such-model: neither .* Check the name and the network, or give"):
        identify_model(config("owner/no-such-model"))


def test_vllm_is_told_by_its_version_and_by_arguments_that_matter(model: Path, tmp_path: Path) -> None:
    def identity(version: str, **settings: object) -> dict[str, object]:
        environment = tmp_path / version
        info = environment / f"lib/python3.11/site-packages/vllm-{version}.dist-info"
        info.mkdir(parents=True, exist_ok=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.4\nName: vllm\nVersion: {version}\n")
        program = environment / "bin" / "vllm"
        program.parent.mkdir(exist_ok=True)
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
        launch = {"command": [str(program)], **settings}
        return identify_model(config(model, engine="vllm", dtype="bfloat16", launch=launch))

    first = identity("0.32.0")
    assert first["engine"] == "vllm 0.32.0"
    assert first["files"] == digest_files(model)
    assert identity("0.32.0", replicas=2) == first
    assert identity("0.33.0") != first
    assert identity("0.32.0", args=["--quantization", "fp8"]) != first
