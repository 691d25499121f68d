"""The weights of a finished folder, copied in another precision.

What does not belong here: training, and which folder is copied (`heal_core/export/model.py`).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

WEIGHT_SUFFIX = ".safetensors"
INDEX_FILE = "model.safetensors.index.json"


def cast_weights(source: Path, target: Path, dtype: str) -> None:
    """Write the tensors of one safetensors file with all floating-point ones in `dtype`, named as torch names it."""
    import torch
    from safetensors import safe_open
    from safetensors.torch import save_file

    wanted: torch.dtype = getattr(torch, dtype)
    with safe_open(source, framework="pt") as file:
        metadata = file.metadata()
        # `contiguous` copies nothing that is so already; safetensors refuses tensors that share memory
        tensors = {
            name: tensor.to(wanted).contiguous() if tensor.is_floating_point() else tensor
            for name in file.keys()  # noqa: SIM118  # the file is no mapping
            for tensor in [file.get_tensor(name)]
        }
    save_file(tensors, target, metadata=metadata)


def weights_dtype(folder: Path) -> str:
    """Return what the floating-point weights of a folder are stored in, such as float32; `mixed` if they differ."""
    from safetensors import safe_open

    names = {"F32": "float32", "BF16": "bfloat16", "F16": "float16", "F64": "float64"}
    found: set[str] = set()
    for path in sorted(folder.glob(f"*{WEIGHT_SUFFIX}")):
        with safe_open(path, framework="numpy") as file:
            keys = list(file.keys())
            found.update(file.get_slice(key).get_dtype() for key in keys)
    kinds = {names[kind] for kind in found if kind in names}
    return kinds.pop() if len(kinds) == 1 else "mixed"


def cast_config(settings: dict[str, Any], dtype: str) -> dict[str, Any]:
    """Return a model's config that says what its weights are stored in, under the name that it has there."""
    known = [name for name in ("dtype", "torch_dtype") if name in settings] or ["dtype"]
    return {**settings, **dict.fromkeys(known, dtype)}


def resize_index(index: Path) -> None:
    """Note in the index of weights in several files how large they are now."""
    content = json.loads(index.read_text(encoding="utf-8"))
    size = sum(_tensor_bytes(path) for path in index.parent.glob(f"*{WEIGHT_SUFFIX}"))
    content["metadata"] = {**content.get("metadata", {}), "total_size": size}
    index.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _tensor_bytes(path: Path) -> int:
    """Return the size of a file's tensors: what follows its length and its header."""
    with path.open("rb") as file:
        return path.stat().st_size - 8 - int.from_bytes(file.read(8), "little")
