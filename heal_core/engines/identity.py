"""The identity of a model, read from its files without loading it.

What goes into content keys must be known before anything is loaded, or a run that has
nothing to do would have to start every engine to find out.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
from pathlib import Path
from typing import Any

from heal_core.engines.base import EngineConfig
from heal_core.engines.server_config import LaunchConfig
from heal_core.engines.settings import ADAPTER_CONFIG, read_settings
from heal_core.engines.vllm.program import find_program
from heal_core.errors import ModelError

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "spiece.model",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "tokenizer_config.json",
)
TEMPLATE_FILES = ("chat_template.jinja", "chat_template.json")
CONFIG_FILES = ("config.json", "generation_config.json", ADAPTER_CONFIG)

version = functools.cache(importlib.metadata.version)
"""The version of an installed package; to read it takes milliseconds, and a run asks a hundred times."""


def identify_model(config: EngineConfig) -> dict[str, Any]:
    """Return what shapes a model's texts: weights, tokenizer, template, engine versions, precision.

    The path is not in it, so that a folder may move.

    Raises:
        ModelError: If the folder cannot be read or holds no safetensors.
    """
    if config.server is None:
        return {"files": digest_files(resolve_folder(config)), **identify_engine(config)}
    served = {"model": config.model_name_or_path, "revision": config.revision, **config.server.identity()}
    if config.server.api == "chat":
        return {"served": served, **identify_engine(config)}
    return {"files": digest_files(resolve_folder(config), with_weights=False), "served": served} | identify_engine(
        config
    )


def identify_engine(config: EngineConfig) -> dict[str, Any]:
    """Return what shapes texts besides the model's files: engine, its versions, precision.

    Raises:
        ConfigError: If it is vLLM, and there is none.
    """
    if config.engine == "openai":  # which versions and precision a server has, it may not say
        return {"engine": "openai"}
    if config.engine == "vllm":
        launch = config.launch or LaunchConfig()
        return {"engine": f"vllm {find_program(launch).version}", "dtype": config.dtype, **launch.identity()}
    return {
        "engine": f"hf transformers-{version('transformers')} torch-{version('torch')}",
        "dtype": config.dtype,
    }


def has_chat_template(config: EngineConfig) -> bool:
    """Return whether a model has a chat template; without one prompts are plain text (D2)."""
    if config.server is not None and config.server.api == "chat":
        return True  # the server's
    folder = resolve_folder(config)
    settings = folder / "tokenizer_config.json"
    return any((folder / name).is_file() for name in TEMPLATE_FILES) or (
        settings.is_file() and '"chat_template"' in settings.read_text(encoding="utf-8")
    )


def resolve_folder(config: EngineConfig) -> Path:
    """Return the local folder of a model; a hub id is fetched (or found in the local cache).

    Of a model that a server runs, only the tokenizer and the settings are fetched.

    Raises:
        ModelError: If there is no such folder, and no such model on the hub or no hub.
    """
    folder = _named_folder(config)
    if folder is not None:
        return folder
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    weights = [] if config.server is not None else ["*.safetensors"]
    try:
        return Path(
            snapshot_download(
                config.model_name_or_path,
                revision=config.revision,
                allow_patterns=["*.json", "*.model", "*.txt", "*.jinja", *weights],
            )
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise ModelError(
            f"model {config.model_name_or_path}: neither a local folder nor to be had from the hub "
            f"({type(error).__name__}). Check the name and the network, or give a local path."
        ) from error


def find_folder(config: EngineConfig) -> Path | None:
    """Return a model's folder on this disk, None for a hub id that has not been fetched; no network is asked.

    Raises:
        ModelError: If it is a path without a folder, or no name of a model.
    """
    folder = _named_folder(config)
    if folder is not None:
        return folder
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(config.model_name_or_path, revision=config.revision, local_files_only=True))
    except LocalEntryNotFoundError:
        return None
    except HFValidationError as error:
        raise ModelError(
            f"model {config.model_name_or_path}: neither a local folder nor a name that a model of the hub can have"
        ) from error


def _named_folder(config: EngineConfig) -> Path | None:
    """Return the folder that a model's name is the path of, None where it is a hub id.

    Raises:
        ModelError: If it is a path, and there is no such folder.
    """
    folder = Path(config.model_name_or_path).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists() or config.model_name_or_path.startswith(("/", ".", "~")) or folder.parts[2:]:
        raise ModelError(
            f"model {config.model_name_or_path}: no such folder. Expected a Hugging Face model folder "
            "(config.json, *.safetensors, tokenizer files) or a hub id like owner/name."
        )
    return None


def check_context(config: EngineConfig, max_tokens: int, key: str) -> None:
    """Check what can be known of a model's context before it is loaded; prompts are checked when they are sent.

    Args:
        config: The model.
        max_tokens: The longest answer that will be asked of it.
        key: The setting that says so.

    Raises:
        ModelError: If the context leaves no room for a prompt.
    """
    if config.server is not None and config.server.api == "chat":
        return
    context = read_settings(resolve_folder(config)).get("max_position_embeddings")
    if context is not None and max_tokens >= context:
        raise ModelError(
            f"{key} is {max_tokens}, but {config.model_name_or_path} has a context of {context} tokens, prompt "
            f"included. Lower {key}, or use a model with a longer context."
        )


def digest_files(folder: Path, with_weights: bool = True) -> str:
    """Return the SHA-256 over weights, tokenizer, template and config of a model folder.

    Raises:
        ModelError: If a needed file is missing; weights must be safetensors.
    """
    weights = sorted(folder.glob("*.safetensors")) if with_weights else []
    if with_weights and not weights:
        raise ModelError(
            f"model folder {folder} holds no *.safetensors. Only safetensors weights are read; convert them."
        )
    if not (folder / "config.json").is_file():
        raise ModelError(f"model folder {folder} holds no config.json. Expected a Hugging Face model folder.")
    others = [folder / name for name in (*TOKENIZER_FILES, *TEMPLATE_FILES, *CONFIG_FILES)]
    digest = hashlib.sha256()
    for file in [*weights, *(path for path in others if path.is_file())]:
        status = file.stat()
        digest.update(f"{file.name}:{_file_digest(file, status.st_size, status.st_mtime_ns)}\n".encode())
    return digest.hexdigest()


@functools.lru_cache(maxsize=1024)
def _file_digest(file: Path, size: int, modified_ns: int) -> str:
    """Return a file's SHA-256; size and time are in the cache's key only."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
