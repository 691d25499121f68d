"""The optional package lm-evaluation-harness: which versions there are, and whether it has the tasks.

It is looked for, and never imported: it runs in a child, maybe of another interpreter. What does not belong
here: evaluating (`evaluate`).
"""

from __future__ import annotations

import functools
import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from heal_core.children import child_environment
from heal_core.errors import ConfigError
from heal_core.lm_eval.config import LmEvalConfig

_REMEDY = "Install it with `pip install 'heal-distill[lm-eval]'`, or name an interpreter that has it in python."
_VERSIONS = """
import importlib.metadata as m, json
def version(name):
    try:
        return m.version(name)
    except m.PackageNotFoundError:
        return None
print(json.dumps({name: version(name) for name in ("lm_eval", "transformers", "torch")}))
"""
_CHECK_SECONDS = 600.0


def interpreter(config: LmEvalConfig) -> str:
    """Return the interpreter that runs the harness."""
    return config.python or sys.executable


def identify_harness(config: LmEvalConfig) -> dict[str, Any]:
    """Return what shapes results beside student and settings: versions, and the task files of one's own.

    Raises:
        ConfigError: If the harness is not installed, or the folder of task files is missing.
    """
    versions = _versions(interpreter(config))
    if versions["lm_eval"] is None:
        raise ConfigError(
            f"evaluation.lm_eval needs the package lm-eval, which {interpreter(config)} does not have. {_REMEDY}"
        )
    return {**versions, "task_files": _digest_folder(config.include_path)}


def check_tasks(config: LmEvalConfig) -> None:
    """Ask the harness whether it knows the tasks: some seconds, in a child.

    Raises:
        ConfigError: If it does not, or cannot read the task files.
    """
    command = [interpreter(config), "-m", "lm_eval", "validate", "--tasks", ",".join(config.tasks)]
    if config.include_path is not None:
        command += ["--include_path", config.include_path]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_CHECK_SECONDS, env=child_environment(), check=False
        )
    except subprocess.TimeoutExpired as error:
        raise ConfigError(f"evaluation.lm_eval: `{' '.join(command)}` did not end in {_CHECK_SECONDS:g} s") from error
    if done.returncode != 0:
        said = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        raise ConfigError(
            f"evaluation.lm_eval.tasks: {said[-1] if said else 'lm-eval refused them'}. `lm-eval ls tasks` lists those "
            "that there are; evaluation.lm_eval.include_path names a folder with your own."
        )


@functools.lru_cache(maxsize=8)
def _versions(python: str) -> dict[str, str | None]:
    try:
        done = subprocess.run(
            [python, "-c", _VERSIONS], capture_output=True, text=True, timeout=60, env=child_environment(), check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise ConfigError(
            f"evaluation.lm_eval.python: {python} cannot be run ({error}). Expected a Python interpreter. {_REMEDY}"
        ) from error
    found: dict[str, str | None] = json.loads(done.stdout)
    return found


def _digest_folder(folder: str | None) -> str | None:
    """Return the SHA-256 over the files of a folder, None without one."""
    if folder is None:
        return None
    root = Path(folder)
    if not root.is_dir():
        raise ConfigError(f"evaluation.lm_eval.include_path: {folder} is no folder. Expected one with task files.")
    digest = hashlib.sha256()
    for file in sorted(path for path in root.rglob("*") if path.is_file()):
        with file.open("rb") as stream:
            content = hashlib.file_digest(stream, "sha256").hexdigest()
        digest.update(f"{file.relative_to(root)}:{content}\n".encode())
    return digest.hexdigest()
