"""The settings in a model's folder, read as they stand: an architecture need not be known to be read here.

What does not belong here: what a model is for content keys (`identity`), and loading one (`loading`).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from heal_core.errors import ModelError

ADAPTER_CONFIG, BASE_KEY = "adapter_config.json", "base_model_name_or_path"
"""PEFT's file of an adapter, and its key for the model that the adapter belongs onto."""


def read_settings(folder: Path) -> dict[str, Any]:
    """Return a model's settings, those of its text part where it has several.

    Raises:
        ModelError: If there are none that can be read.
    """
    settings = read_json(folder / "config.json")
    return {**settings, **(settings.get("text_config") or {})}


def adapter_base(folder: Path) -> str | None:
    """Return the model that a folder's adapter belongs onto, a path or an id; None where it holds no adapter.

    Raises:
        ModelError: If what it says cannot be read.
    """
    path = folder / ADAPTER_CONFIG
    return str(read_json(path)[BASE_KEY]) if path.is_file() else None


def read_json(path: Path) -> dict[str, Any]:
    """Return what a file of a model's folder holds.

    Raises:
        ModelError: If it is not there, or no JSON object.
    """
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}. Expected a Hugging Face model folder.") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path}: expected a JSON object, found {type(content).__name__}")
    return content
