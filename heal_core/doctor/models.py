"""The models of a run, judged from their folders without loading them.

What does not belong here: what they take (`sizes`), and loading one (`engine`).
"""

from __future__ import annotations

import os
import sys
from contextlib import closing
from pathlib import Path

from heal_core.config import RunConfig
from heal_core.doctor.finding import Finding
from heal_core.doctor.sizes import ModelSize, model_size, models_of
from heal_core.engines.base import EngineConfig
from heal_core.engines.identity import check_context, find_folder, has_chat_template
from heal_core.engines.loading import check_model_folder
from heal_core.engines.settings import read_settings
from heal_core.engines.start import start_engine
from heal_core.engines.vllm.program import find_program
from heal_core.errors import ConfigError, HealError, ModelError

_SERVER_SECONDS = 5.0


def check_models(config: RunConfig) -> tuple[list[Finding], dict[str, ModelSize]]:
    """Return a finding per model of a run, and by role the sizes of those that are whole."""
    checked = {role: check_model(role, model, config) for role, model in models_of(config).items()}
    sizes = {role: size for role, (_, size) in checked.items() if size is not None}
    return [finding for finding, _ in checked.values()], sizes


def check_model(role: str, model: EngineConfig, config: RunConfig) -> tuple[Finding, ModelSize | None]:
    """Judge a model's folder without reading its weights; return its size, too, where that is known."""
    if model.server is not None:
        return _check_served(role, model), None
    try:
        folder = find_folder(model)
        if folder is None:
            return _not_fetched(role, model), None
        check_model_folder(folder)
        size = model_size(model, folder, config.rollouts.sampling.max_tokens)
        context = read_settings(folder).get("max_position_embeddings")
    except ModelError as error:
        place = f"set {role}.model_name_or_path to a model's folder (seen from {Path.cwd()})"
        return Finding(role, "fail", str(error), f"copy or download the whole model again, or {place}"), None
    if model.engine == "vllm":
        try:
            find_program(model.launch)
        except ConfigError as error:
            return Finding(role, "fail", str(error), f"or set {role}.engine=hf"), size
    local = model.model_copy(update={"model_name_or_path": str(folder)})
    found = f"{model.model_name_or_path}: {_describe_count(size.num_parameters)} parameters, context of "
    found += f"{context} tokens" if context else "a length that config.json does not tell"
    return _check_context(role, local, config) or _check_texts(role, local, config, found), size


def _check_served(role: str, model: EngineConfig) -> Finding:
    """Ask the servers of a model what they run."""
    impatient = model.model_copy(update={"stall_seconds": min(model.stall_seconds, _SERVER_SECONDS)})
    try:
        with closing(start_engine(impatient)) as engine:
            kind = engine.description
    except HealError as error:
        remedy = "start the server, or correct what it names; `curl BASE_URL/models` shows what it serves"
        return Finding(role, "fail", str(error), remedy)
    able = ", ".join(sorted(str(capability) for capability in kind.capabilities))
    return Finding(role, "ok", f"{model.model_name_or_path}: served, context of {kind.context_tokens} tokens, {able}")


def _check_context(role: str, model: EngineConfig, config: RunConfig) -> Finding | None:
    """Return which answers leave no room for a prompt, None where all do."""
    limits = {"rollouts.sampling.max_tokens": config.rollouts.sampling.max_tokens}
    if role == "teacher":
        limits["hints.sampling.max_tokens"] = config.hints.sampling.max_tokens
    for key, max_tokens in limits.items():
        try:
            check_context(model, max_tokens, key)
        except ModelError as error:
            return Finding(role, "fail", str(error), f"set {key} to at most half of that context")
    return None


def _check_texts(role: str, model: EngineConfig, config: RunConfig, found: str) -> Finding:
    """Judge how a model is prompted, and that a scorer reads the teacher's tokens."""
    if role == "scorer" and not _have_same_tokenizer(config.teacher, model):
        found += "; its tokenizer.json is not the teacher's, whose tokens it reads"
        return Finding(role, "warn", found, "take a scorer of the teacher's family, or leave `scorer` out")
    if not has_chat_template(model):
        remedy = f"for a chat model, copy its chat_template.jinja into {model.model_name_or_path}; else leave it"
        return Finding(role, "warn", f"{found}, no chat template: it is prompted with plain text", remedy)
    return Finding(role, "ok", f"{found}, chat template")


def _have_same_tokenizer(*models: EngineConfig) -> bool:
    """Return whether the models that are on this disk have the same file tokenizer.json."""
    try:
        folders = [folder for folder in map(find_folder, models) if folder is not None]
        return len({(folder / "tokenizer.json").read_bytes() for folder in folders}) == 1
    except (ModelError, OSError):
        return False


def _not_fetched(role: str, model: EngineConfig) -> Finding:
    """Return what it means that a model of the hub is not on this disk."""
    hub = Path(sys.executable).with_name("hf")
    revision = f" --revision {model.revision}" if model.revision else ""
    fetch = f"`HF_HUB_OFFLINE=0 {hub} download {model.model_name_or_path}{revision}` fetches it before the night"
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}:
        found = f"{model.model_name_or_path} is not on this disk, and HF_HUB_OFFLINE keeps a run from fetching it"
        return Finding(role, "fail", found, fetch)
    found = f"{model.model_name_or_path} is not on this disk: the first run will fetch it"
    return Finding(role, "warn", found, fetch)


def _describe_count(number: int) -> str:
    for unit, name in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if number >= unit:
            return f"{number / unit:.1f}{name}"
    return str(number)
