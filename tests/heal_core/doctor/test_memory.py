"""The machine's memory and GPUs against demands; GPUs are made up, as there may be none here."""

from __future__ import annotations

from collections.abc import Callable

import psutil
import pytest

from heal_core.doctor import memory
from heal_core.doctor.finding import Finding
from heal_core.doctor.memory import Demand, available_memory, check_gpus, check_memory
from heal_core.engines.gpu import Gpu
from heal_core.errors import HealError

GIB = 2**30
TEACHER = Demand("the teacher", "auto", 8 * GIB, 12 * GIB, "set teacher.batch_size=4")
TRAINING = Demand("training", "auto", 5 * GIB, 5 * GIB, "take a smaller student")
FakeVersions = Callable[..., None]
Machine = Callable[..., None]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, fake_versions: FakeVersions) -> Machine:
    """Return a function that sets what is free in the machine, in GiB, and its GPUs."""

    def set_up(free_gib: float = 100, *gpus: Gpu, torch: str = "2.13.0+cu130") -> None:
        fake_versions(torch=torch)
        monkeypatch.setattr(memory, "available_memory", lambda: int(free_gib * GIB))
        monkeypatch.setattr(memory, "list_gpus", lambda: list(gpus))

    return set_up


def judge(*demands: Demand, is_busy: bool = False) -> dict[str, Finding]:
    return {finding.check: finding for finding in check_memory(demands, is_busy)}


def test_who_has_the_memory_of_gpus_is_told(machine: Machine) -> None:
    machine(1, Gpu(0, "NVIDIA H100", 81559, 61440, (4242, 4343)), Gpu(1, "NVIDIA H100", 81559, 81007))
    held = check_gpus()
    assert held.state == "warn"
    assert "0: NVIDIA H100, 60.0 GiB of 79.6 GiB free; 1: NVIDIA H100, 79.1 GiB" in held.found
    assert "ps -o pid,etime,user,args -p 4242,4343" in held.remedy
    machine(1, Gpu(1, "NVIDIA H100", 81559, 81007))
    assert check_gpus().state == "ok"
    machine(1)
    assert "models run on the CPU" in check_gpus().found


def test_a_gpu_that_torch_cannot_use_is_told(machine: Machine) -> None:
    gpu = Gpu(0, "NVIDIA H100", 81559, 61440)
    machine(100, gpu, torch="2.13.0+cpu")
    assert "torch 2.13.0+cpu cannot use it" in check_gpus().found
    assert list(judge(TEACHER)) == ["memory"]


def test_an_nvidia_smi_that_does_not_work_is_a_warning(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> list[Gpu]:
        raise HealError("nvidia-smi does not answer: version mismatch")

    machine()
    monkeypatch.setattr(memory, "list_gpus", fail)
    assert (check_gpus().state, check_gpus().found) == ("warn", "nvidia-smi does not answer: version mismatch")
    assert list(judge(TEACHER)) == ["memory"]


@pytest.mark.parametrize(
    ("free_gib", "state"),
    [
        (13, "ok"),
        (11, "warn"),  # it loads, but a full batch may not fit
        (7.5, "fail"),
    ],
)
def test_memory_is_compared_with_the_largest_demand(machine: Machine, free_gib: float, state: str) -> None:
    machine(free_gib)
    finding = judge(TRAINING, TEACHER)["memory"]
    assert finding.state == state
    assert "the teacher needs 8.0 GiB, with a full batch up to 12.0 GiB" in finding.found
    assert state == "ok" or "set teacher.batch_size=4" in finding.remedy


def test_what_does_not_start_at_all_is_told_before_what_is_larger(machine: Machine) -> None:
    machine(2)
    starts, does_not = Demand("a", "cpu", GIB, 9 * GIB, "x"), Demand("b", "cpu", 3 * GIB, 3 * GIB, "y")
    assert "b needs 3.0 GiB" in judge(starts, does_not)["memory"].found


def test_a_run_that_goes_on_explains_why_memory_is_short(machine: Machine) -> None:
    machine(7.5)
    assert judge(TEACHER, is_busy=True)["memory"].state == "warn"


def test_each_place_is_judged_by_what_runs_there(machine: Machine) -> None:
    machine(100, Gpu(0, "NVIDIA", 80 * 1024, 4 * 1024))
    on_gpu = judge(TEACHER)
    assert (on_gpu["memory"].state, on_gpu["memory cuda:0"].state) == ("ok", "fail")
    split = judge(Demand("the teacher", "cpu", 8 * GIB, 8 * GIB, "x"), TRAINING)
    assert "the teacher needs 8.0 GiB" in split["memory"].found
    assert "4.0 GiB available; training needs 5.0 GiB" in split["memory cuda:0"].found
    assert split["memory cuda:0"].state == "fail"


@pytest.mark.parametrize(("device", "place"), [("cuda", "cuda:0"), ("cuda:1", "cuda:1")])
def test_a_gpu_that_is_not_there_is_told(machine: Machine, device: str, place: str) -> None:
    machine()
    finding = judge(Demand("the teacher", device, GIB, GIB, "x"))[f"memory {place}"]
    assert finding.state == "fail"
    assert f"names {place}, but torch 2.13.0+cu130 has no such GPU here" in finding.found


def test_memory_is_told_without_a_config() -> None:
    (finding,) = check_memory()
    assert finding.state == "ok"
    available = available_memory()
    assert available is not None
    assert 0 < available <= psutil.virtual_memory().total
