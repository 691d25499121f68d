"""The description by which LLaMA-Factory finds a data set: `dataset_info.json`, merged into one that is there.

Source: the documented format of LLaMA-Factory's data folder (`data/README.md`). What does not belong here: the rows.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from heal_core.errors import InputError
from heal_core.store.durable import write_atomically

INFO_FILE = "dataset_info.json"


def describe_dataset(file_name: str) -> dict[str, Any]:
    """Return the entry of a file of conversations."""
    return {
        "file_name": file_name,
        "formatting": "sharegpt",
        "columns": {"messages": "conversations"},
        "tags": {"role_tag": "from", "content_tag": "value", "user_tag": "human", "assistant_tag": "gpt"},
    }


def read_info(folder: Path) -> dict[str, Any]:
    """Return the data sets that are described in a folder; none where nothing is.

    Raises:
        InputError: If the file cannot be read: what others wrote there must not be lost.
    """
    path = folder / INFO_FILE
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read as JSON ({error}): repair it, or export into another folder."
        ) from error
    if not isinstance(found, dict):
        raise InputError(f"{path} holds a {type(found).__name__}, expected an object with an entry per data set.")
    return found


def check_name(folder: Path, name: str, force: bool) -> None:
    """Check that an entry may be written.

    Raises:
        InputError: If there is one of this name and `force` is off, or the file cannot be read.
    """
    if name in read_info(folder) and not force:
        raise InputError(
            f"{folder / INFO_FILE} has a data set {name!r} already: give another --name, or --force to replace it."
        )


def add_entry(folder: Path, name: str, file_name: str) -> int:
    """Describe a file as the data set `name`, leave all others as they are, and return how many others there are."""
    info = read_info(folder)
    others = len(info.keys() - {name})
    text = json.dumps({**info, name: describe_dataset(file_name)}, indent=2, ensure_ascii=False) + "\n"
    write_atomically(folder / INFO_FILE, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    return others
