"""What the machine says of its GPUs, with a stand-in for `nvidia-smi` where there is none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from heal_core.engines.gpu import Gpu, free_mib, list_gpus, wait_until_free
from heal_core.errors import HealError


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def test_each_gpu_tells_its_free_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, "echo '80000\n79000'")
    assert free_mib() == [80000, 79000]


@pytest.mark.parametrize("script", ["exit 9", "echo 'No devices were found'", "true"])
def test_a_machine_without_one_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    install(tmp_path, monkeypatch, script)
    assert free_mib() is None


def test_no_such_program_is_no_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert free_mib() is None
    assert list_gpus() == []


def test_each_gpu_tells_who_has_its_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = """
    case "$1" in
      --query-gpu*) echo "GPU-a, 0, 81559, 61440, NVIDIA H100"; echo "GPU-b, 1, 81559, 81007, NVIDIA H100";;
      --query-compute-apps*) echo "GPU-a, 4242"; echo "GPU-a, 4343";;
    esac"""
    install(tmp_path, monkeypatch, script)
    first, second = list_gpus()
    assert first == Gpu(0, "NVIDIA H100", 81559, 61440, (4242, 4343))
    assert second == Gpu(1, "NVIDIA H100", 81559, 81007)


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18", "version mismatch"),
        ("test $1 = --query-compute-apps=gpu_uuid,pid || echo 'GPU-a, 0, [N/A], [N/A], NVIDIA GB10'", "[N/A]"),
    ],
)
def test_a_program_that_does_not_work_is_an_error_with_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, told: str
) -> None:
    install(tmp_path, monkeypatch, script)
    with pytest.raises(HealError) as raised:
        list_gpus()
    assert told in str(raised.value)


def test_it_is_waited_for_until_the_memory_is_back() -> None:
    answers = [[10_000, 80_000], [50_000, 80_000], [79_900, 80_000]]
    # 79,900 is within the tolerance of 80,000
    assert wait_until_free([80_000, 80_000], 30, lambda: answers.pop(0)) == []
    assert answers == []


def test_a_gpu_whose_memory_stays_taken_is_named() -> None:
    assert wait_until_free([80_000, 80_000], 0.0, lambda: [80_000, 10_000]) == [1]


def test_nothing_is_waited_for_where_there_is_no_gpu() -> None:
    assert wait_until_free(None, 60, lambda: pytest.fail("not to be asked")) == []
    assert wait_until_free([80_000], 60, lambda: None) == []
