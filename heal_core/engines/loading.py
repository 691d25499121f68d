"""A model folder -> model, tokenizer and what the engine says of them.

torch and transformers are imported inside functions: the parent process checks folders
with this module and must not pay for them. What does not belong here: finding the
folder and its digest (`identity`), sampling, scoring.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from heal_core.chat import end_of_turn_id, render_prompt_ids
from heal_core.engines.base import Capability, EngineConfig, EngineDescription
from heal_core.engines.identity import digest_files
from heal_core.errors import ConfigError, ModelError, RequestError

VOCABULARY_FILES = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt")


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to run, with the tokenizer that speaks for it.

    Attributes:
        model: A transformers causal language model in evaluation mode.
        tokenizer: Its tokenizer.
        eos_ids: Tokens that end a turn, at least one.
        pad_id: Fills rows up to a rectangle; never attended to.
        device: A torch device.
    """

    model: Any
    tokenizer: Any
    description: EngineDescription
    eos_ids: frozenset[int]
    pad_id: int
    device: Any

    def prompt_ids(self, prompt: str) -> list[int]:
        """Return the tokens of one user turn, up to where the answer begins. Source: definition D2.

        Raises:
            RequestError: If the chat template refuses a single user turn.
        """
        try:
            return render_prompt_ids(self.tokenizer, prompt)
        except TemplateError as error:
            raise RequestError(
                f"{self.description.model_name_or_path}: its chat template refuses a user turn alone: {error}"
            ) from error

    def check_length(self, row_id: str, ids: Sequence[int], num_more_tokens: int, remedy: str) -> None:
        """Check that a row fits the model.

        Raises:
            RequestError: If it is longer than the context, or holds a token that the vocabulary lacks.
        """
        name, context = self.description.model_name_or_path, self.description.context_tokens
        excess = len(ids) + num_more_tokens - context
        if excess > 0:
            raise RequestError(
                f"{name}: {row_id} needs {len(ids)} + {num_more_tokens} tokens, {excess} more than "
                f"the context of {context}; {remedy}"
            )
        if not ids or max(ids) >= self.description.vocabulary_size or min(ids) < 0:
            raise RequestError(
                f"{name}: {row_id} expected tokens 0..{self.description.vocabulary_size - 1}, found "
                f"{f'{min(ids)}..{max(ids)}' if ids else 'none'}; token ids must come from this model"
            )


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
    tokenizer = _load_tokenizer(config, folder)
    description = EngineDescription(
        model_name_or_path=config.model_name_or_path,
        weight_digest=digest_files(folder),
        chat_template_digest=_template_digest(tokenizer.chat_template),
        engine=f"hf transformers-{transformers.__version__} torch-{torch.__version__.split('+')[0]}",
        dtype=str(model.dtype).removeprefix("torch."),
        context_tokens=_context_tokens(config, model),
        vocabulary_size=int(model.get_output_embeddings().weight.shape[0]),
        capabilities=frozenset(Capability),
    )
    eos_ids = _eos_ids(model, tokenizer)
    pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else min(eos_ids)
    return LoadedModel(model, tokenizer, description, eos_ids, pad_id, device)


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


def _template_digest(template: str | dict[str, str] | None) -> str:
    return "none" if template is None else hashlib.sha256(json.dumps(template).encode()).hexdigest()


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

    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype="auto" if config.dtype == "auto" else getattr(torch, config.dtype),
            use_safetensors=True,
            trust_remote_code=config.trust_remote_code,
            local_files_only=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise ModelError(f"{config.model_name_or_path}: cannot be loaded: {_first_line(error)}") from error
    model, info = loaded
    if info["missing_keys"]:
        raise ModelError(
            f"{config.model_name_or_path}: {len(info['missing_keys'])} weights are missing, "
            f"{sorted(info['missing_keys'])[0]} among them; the weight files are incomplete"
        )
    if not {"position_ids", "logits_to_keep"} <= set(inspect.signature(model.forward).parameters):
        raise ModelError(
            f"{config.model_name_or_path}: the hf engine cannot run {type(model).__name__}; "
            "serve it with vLLM and use the openai engine"
        )
    return model


def _load_tokenizer(config: EngineConfig, folder: Path) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=config.trust_remote_code, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        raise ModelError(
            f"{config.model_name_or_path}: its tokenizer cannot be loaded: {_first_line(error)}"
        ) from error


def _context_tokens(config: EngineConfig, model: Any) -> int:
    length = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if not isinstance(length, int) or length < 1:
        raise ModelError(
            f"{config.model_name_or_path}: expected max_position_embeddings in config.json, found {length!r}"
        )
    return length


def _eos_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """Return every token that ends an answer: those of the model's files and that of the chat template."""
    found: set[int] = set()
    for value in (model.generation_config.eos_token_id, model.config.eos_token_id, tokenizer.eos_token_id):
        found.update(value if isinstance(value, list) else [] if value is None else [value])
    if tokenizer.chat_template is not None or not found:
        try:
            found.add(end_of_turn_id(tokenizer))
        except TemplateError as error:
            raise ModelError(f"{tokenizer.name_or_path}: its chat template cannot be used: {error}") from error
    return frozenset(found)


def _first_line(error: BaseException) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
