"""A model folder -> model, tokenizer and what the engine says of them.

torch and transformers are imported inside functions: the parent process checks folders
with this module and must not pay for them. What does not belong here: finding the
folder and its digest (`identity`), sampling, scoring.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heal_core.engines.base import Capability, EngineConfig, EngineDescription
from heal_core.engines.identity import digest_files
from heal_core.engines.settings import adapter_base
from heal_core.engines.tokens import ModelTokens, end_ids, first_line, load_tokenizer, template_digest
from heal_core.errors import ConfigError, ModelError

VOCABULARY_FILES = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt")


@dataclass(frozen=True)
class LoadedModel(ModelTokens):
    """A model ready to run, with the tokenizer that speaks for it.

    Attributes:
        model: A transformers causal language model in evaluation mode.
        pad_id: Fills rows up to a rectangle; never attended to.
        device: A torch device.
    """

    model: Any
    pad_id: int
    device: Any


def load(config: EngineConfig, folder: Path) -> LoadedModel:
    """Return the model in `folder` on the device of `config`, in evaluation mode.

    Raises:
        ModelError: If the folder cannot be read, or lacks weights or tokenizer.
        ConfigError: If the device does not exist.
    """
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    if config.num_threads is not None:
        torch.set_num_threads(config.num_threads)
    check_model_folder(folder)
    device = _device(config.device)
    model = _load_model(config, folder).to(device).eval()
    tokenizer = load_tokenizer(config, folder)
    description = EngineDescription(
        model_name_or_path=config.model_name_or_path,
        weight_digest=digest_files(folder),
        chat_template_digest=template_digest(tokenizer.chat_template),
        engine=f"hf transformers-{transformers.__version__} torch-{torch.__version__.split('+')[0]}",
        dtype=str(model.dtype).removeprefix("torch."),
        context_tokens=_context_tokens(config, model),
        vocabulary_size=int(model.get_output_embeddings().weight.shape[0]),
        capabilities=frozenset(Capability),
    )
    eos_ids = end_ids(tokenizer, model.generation_config.eos_token_id, model.config.eos_token_id)
    pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else min(eos_ids)
    return LoadedModel(tokenizer, description, eos_ids, model, pad_id, device)


def check_model_folder(folder: Path) -> None:
    """Check, without reading the weights, that a folder holds what a model needs.

    Raises:
        ModelError: Naming the file that is missing or cannot be read.
    """
    names = {entry.name for entry in folder.iterdir()} if os.access(folder, os.R_OK | os.X_OK) else None
    if names is None:
        raise ModelError(f"{folder}: the model folder cannot be read; check its permissions")
    if "config.json" not in names:
        raise ModelError(f"{folder}: expected config.json in the model folder, found none; check the path")
    if not any(name.endswith(".safetensors") for name in names):
        found = "only .bin weights" if any(name.endswith(".bin") for name in names) else "no weights"
        raise ModelError(f"{folder}: expected *.safetensors, found {found}; convert or download them")
    if not names.intersection(VOCABULARY_FILES):
        raise ModelError(
            f"{folder}: expected a tokenizer ({', '.join(VOCABULARY_FILES)}), found none; "
            "save the tokenizer into the model folder"
        )


def _device(name: str) -> Any:
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device: expected auto, cpu or cuda[:n], found {name!r}") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device: {name!r} was asked for, but torch finds no GPU; use auto or cpu")
    return device


def _load_model(config: EngineConfig, folder: Path) -> Any:
    import inspect

    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    base = adapter_base(folder)
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            base or folder,
            dtype="auto" if config.dtype == "auto" else getattr(torch, config.dtype),
            use_safetensors=True,
            trust_remote_code=config.trust_remote_code,
            local_files_only=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise ModelError(f"{config.model_name_or_path}: cannot be loaded: {first_line(error)}") from error
    model, info = loaded
    if info["missing_keys"]:
        raise ModelError(
            f"{config.model_name_or_path}: {len(info['missing_keys'])} weights are missing, "
            f"{sorted(info['missing_keys'])[0]} among them; the weight files are incomplete"
        )
    if base is not None:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, str(folder)).merge_and_unload()
    from heal_core.engines.attention import group_queries

    group_queries(model)
    if not {"position_ids", "logits_to_keep"} <= set(inspect.signature(model.forward).parameters):
        raise ModelError(
            f"{config.model_name_or_path}: the hf engine cannot run {type(model).__name__}; "
            "serve it with vLLM and use the openai engine"
        )
    return model


def _context_tokens(config: EngineConfig, model: Any) -> int:
    length = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if not isinstance(length, int) or length < 1:
        raise ModelError(
            f"{config.model_name_or_path}: expected max_position_embeddings in config.json, found {length!r}"
        )
    return length
