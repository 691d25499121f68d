"""The folder that a model is exported to: what may be replaced there, and how it is replaced.

What does not belong here: what is in it (`model`), and single files (`files`).
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from huggingface_hub import ModelCard

from heal_core.errors import InputError
from heal_core.export.card import TAG
from heal_core.store.durable import replace_file, sync_file

CARD_FILE = "README.md"


def check_folder(path: Path, force: bool) -> None:
    """Check that a folder may be written, before anything is read for it.

    What a killed export left of the folder that it was about to replace gets its name back first.

    Raises:
        InputError: If something stands there, and `force` is off or it was not written by an export.
    """
    _restore(path)
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    if not force:
        raise InputError(f"{path} exists already: give another name, or --force to replace it.")
    if not path.is_dir() or not _is_exported(path):
        raise InputError(
            f"{path} holds no model that heal exported, so --force does not replace it: remove it yourself."
        )


def put_in_place(temporary: Path, path: Path) -> None:
    """Bring a folder to disk and give it its name; what stood there goes only then.

    A folder cannot take the name of one that has files, so for a moment nothing has the name: what stood there is
    called `NAME.PID.old`, and the new one `NAME.PID.tmp`. A kill in that moment leaves both; `check_folder` of the
    next export gives the old one its name back. An error in that moment does so at once.
    """
    for file in [*temporary.iterdir(), temporary]:
        sync_file(file)
    old = path.with_name(f"{path.name}.{os.getpid()}.old")
    if path.exists():
        path.rename(old)
    try:
        replace_file(temporary, path)
    except BaseException:
        if old.exists() and not path.exists():
            old.rename(path)
        raise
    if old.exists():
        old.rename(temporary)  # half removed, it must not be taken for one to restore
        shutil.rmtree(temporary, ignore_errors=True)


def _restore(path: Path) -> None:
    """Give the folder its name back that a killed `put_in_place` had renamed; the newest, if there are several."""
    if path.exists() or not path.parent.is_dir():
        return
    form = re.compile(re.escape(path.name) + r"\.\d+\.old")
    left = [folder for folder in path.parent.iterdir() if form.fullmatch(folder.name) and _is_exported(folder)]
    if left:
        max(left, key=lambda folder: folder.stat().st_ctime_ns).rename(path)


def _is_exported(folder: Path) -> bool:
    card = folder / CARD_FILE
    if not card.is_file():
        return False
    tags = ModelCard.load(card, ignore_metadata_errors=True).data.tags
    return TAG in (tags or [])
