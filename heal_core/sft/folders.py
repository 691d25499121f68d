"""Where a stage writes, so that a kill at any moment leaves nothing that could be mistaken for finished.

Beside the output folder stand `<output>.lock` and, until it is finished, `<output>.partial`
with checkpoints, log and progress. The model is written there and renamed into place. What is
whole, a checkpoint or a finished folder, carries a mark with the sizes of its files.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from safetensors import SafetensorError, safe_open

from heal_core.errors import HealError, TrainingError

_COMPLETE_FILE = "complete.json"
_LOCK_POLL_SECONDS = 0.1
_NOTHING_BYTES = 2**20
_FULL = (errno.ENOSPC, errno.EDQUOT)
_SIGNS_OF_FULL = ("No space left", "os error 28", "os error 122", "disk quota", "inline_container", "iostream error")
"""What safetensors says, which wraps the system's error, and torch, which says where in a file it was."""


def partial_dir(output_dir: Path) -> Path:
    """Return the folder of an unfinished stage."""
    return output_dir.with_name(output_dir.name + ".partial")


def checkpoints_dir(output_dir: Path) -> Path:
    """Return the folder of the checkpoints that a killed stage resumes from."""
    return partial_dir(output_dir) / "checkpoints"


def progress_path(output_dir: Path) -> Path:
    """Return the file in which the child says how far it is."""
    return partial_dir(output_dir) / "progress.json"


def preflight_path(output_dir: Path) -> Path:
    """Return the file in which the child says what it is about to train on."""
    return partial_dir(output_dir) / "preflight.json"


def dtype_path(output_dir: Path) -> Path:
    """Return the file in which the child notes which precision it found faster."""
    return partial_dir(output_dir) / "dtype"


def stopped_path(output_dir: Path) -> Path:
    """Return the file in which a child that ended at its time says so."""
    return partial_dir(output_dir) / "stopped.txt"


@contextlib.contextmanager
def lock_output(output_dir: Path, wait_seconds: float = 60.0) -> Iterator[None]:
    """Hold the lock of an output folder; the kernel frees it when the holder dies.

    Waits, since the child of a parent that was just killed needs a moment to die.

    Raises:
        TrainingError: If another process still holds it after `wait_seconds`.
    """
    output_dir.parent.mkdir(parents=True, exist_ok=True)
    path = output_dir.with_name(output_dir.name + ".lock")
    deadline = time.monotonic() + wait_seconds
    with path.open("ab") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise TrainingError(
                        f"{output_dir}: another process trains into it ({path} is held); wait or end it"
                    ) from None
                time.sleep(_LOCK_POLL_SECONDS)
        yield


def write_text(path: Path, text: str, *, durable: bool = True) -> None:
    """Replace the file at `path`, so that a reader sees the old text or the new one.

    `durable` also brings it to disk before the call returns.
    """
    write_file(path, lambda temporary: temporary.write_text(text, encoding="utf-8"), durable=durable)


def write_file(path: Path, write: Callable[[Path], object], *, durable: bool = True) -> None:
    """Let `write` write a file that then replaces the one at `path`, at once."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    write(temporary)
    if durable:
        _sync(temporary)
    temporary.replace(path)
    if durable:
        _sync(path.parent)


def claim_partial(output_dir: Path, key: str) -> None:
    """Prepare the unfinished folder for the training `key`; another training's remains are removed."""
    folder = partial_dir(output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    owner = folder / "training_key"
    if not owner.is_file() or owner.read_text(encoding="utf-8") != key:
        shutil.rmtree(checkpoints_dir(output_dir), ignore_errors=True)
        dtype_path(output_dir).unlink(missing_ok=True)
        write_text(owner, key)


def mark_complete(folder: Path) -> None:
    """Bring a folder to disk and note its files' sizes, the sign that it was written to the end."""
    sizes = {str(f.relative_to(folder)): f.stat().st_size for f in _files(folder)}
    _sync_tree(folder)
    write_text(folder / _COMPLETE_FILE, json.dumps(sizes))


def last_complete_checkpoint(folder: Path) -> Path | None:
    """Return the newest checkpoint that was written to the end."""
    return max(filter(_is_complete, folder.glob("checkpoint-*")), key=checkpoint_step, default=None)


def remove_torn_checkpoints(folder: Path) -> None:
    """Remove what was not written to the end: the trainer would write into it and count it among those it keeps."""
    for checkpoint in list(folder.glob("checkpoint-*")):
        if not _is_complete(checkpoint):
            shutil.rmtree(checkpoint)


def checkpoint_step(checkpoint: Path) -> int:
    """Return the optimizer step after which a checkpoint was written."""
    return int(checkpoint.name.removeprefix("checkpoint-"))


@contextlib.contextmanager
def told_if_full(output_dir: Path, label: str) -> Iterator[None]:
    """Turn what the libraries say of a full disk into one clear error.

    Raises:
        TrainingError: If there is no room.
    """
    try:
        yield
    except HealError:
        raise
    except Exception as error:
        folder = partial_dir(output_dir)
        free = shutil.disk_usage(output_dir.parent).free
        is_told = getattr(error, "errno", None) in _FULL or any(sign in str(error) for sign in _SIGNS_OF_FULL)
        if not is_told and free > _NOTHING_BYTES:
            raise
        last = last_complete_checkpoint(checkpoints_dir(output_dir))
        kept = f"{last.name} is kept, and the stage goes on from it" if last else "it begins anew"
        raise TrainingError(
            f"{label}: the disk is full ({free / 2**20:.0f} MiB free): {folder} could not be written; {kept} once "
            "there is room and it is run again"
        ) from error


def _is_complete(checkpoint: Path) -> bool:
    return (checkpoint / _COMPLETE_FILE).is_file() and not _other_sizes(checkpoint)


def _other_sizes(folder: Path) -> dict[str, str]:
    """Return what is wrong with files, by name: they are gone, or not as long as the folder's mark says."""
    sizes: dict[str, int] = json.loads((folder / _COMPLETE_FILE).read_text(encoding="utf-8"))
    faults = {}
    for name, size in sizes.items():
        if not (folder / name).is_file():
            faults[name] = "is gone"
        elif (found := (folder / name).stat().st_size) != size:
            faults[name] = f"has {found} bytes instead of {size}"
    return faults


def find_faults(folder: Path) -> list[str]:
    """Return what is wrong with a finished folder: files that are gone or cut, and weights without a whole header.

    In a folder without a mark, files that are cut are found if they are empty or weights. A
    changed byte inside the weights is not found.
    """
    files = {str(file.relative_to(folder)): file for file in sorted(_files(folder))}
    if (folder / _COMPLETE_FILE).is_file():
        try:
            faults = _other_sizes(folder)
        except ValueError:
            faults = {_COMPLETE_FILE: "cannot be read"}
    else:
        faults = {name: "is empty" for name, file in files.items() if not file.stat().st_size}
        if not any(name.endswith(".safetensors") for name in files):
            faults["*.safetensors"] = "is gone"
    for name, file in files.items():
        if file.suffix == ".safetensors" and name not in faults:
            try:
                with safe_open(file, framework="numpy"):
                    pass
            except (SafetensorError, OSError) as error:
                faults[name] = f"cannot be read ({error})"
    return [f"{name} {fault}" for name, fault in faults.items()]


def publish(model_dir: Path, output_dir: Path) -> None:
    """Mark a finished model folder, bring it to disk, move it into place and remove what training left behind."""
    mark_complete(model_dir)
    model_dir.rename(output_dir)
    _sync(output_dir.parent)
    remove_partial(output_dir)


def remove_partial(output_dir: Path) -> None:
    """Remove the unfinished folder of a finished stage; safe to call twice."""
    shutil.rmtree(partial_dir(output_dir), ignore_errors=True)


def _files(folder: Path) -> list[Path]:
    return [f for f in folder.rglob("*") if f.is_file() and f.name != _COMPLETE_FILE]


def _sync_tree(folder: Path) -> None:
    for path in [*_files(folder), *(d for d in folder.rglob("*") if d.is_dir()), folder]:
        _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
