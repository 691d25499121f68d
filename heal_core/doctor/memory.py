"""The memory of the machine and of its GPUs, who holds it, and whether it is enough for the models of a run.

One child process with a model is loaded at a time, so that what is free is compared with
each. What does not belong here: what a model takes (`sizes`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from heal_core.doctor.environment import installed_version
from heal_core.doctor.finding import Finding, State, describe_size
from heal_core.engines.gpu import Gpu, list_gpus
from heal_core.errors import HealError


@dataclass(frozen=True)
class Demand:
    """What one child process needs to start, and what it may come to need."""

    what: str
    device: str
    least_bytes: int
    full_bytes: int
    remedy: str


def check_gpus() -> Finding:
    """Tell which GPUs there are and who has their memory; none is no fault."""
    try:
        gpus = list_gpus()
    except HealError as error:
        remedy = "`nvidia-smi` shows the whole message; after an update of the driver, reboot"
        return Finding("gpu", "warn", str(error), remedy)
    if not gpus:
        return Finding("gpu", "ok", "none (no nvidia-smi): models run on the CPU")
    found = "; ".join(f"{gpu.index}: {gpu.name}, {_describe_free(gpu)}" for gpu in gpus)
    if _torch_is_for_cpu():
        remedy = "install torch's build for CUDA, with the command from https://pytorch.org/get-started/locally/"
        return Finding("gpu", "warn", f"{found}; but torch {installed_version('torch')} cannot use it", remedy)
    if holders := ",".join(str(pid) for gpu in gpus for pid in gpu.holders):
        remedy = f"`ps -o pid,etime,user,args -p {holders}` shows what they are; `kill` what is left over"
        return Finding("gpu", "warn", f"{found}; held by process {holders}", remedy)
    return Finding("gpu", "ok", found)


def check_memory(demands: Sequence[Demand] = (), is_busy: bool = False) -> Iterator[Finding]:
    """Yield whether there is enough, for the CPU and for each GPU that is used.

    A run that is going on has some of the memory, so that nothing fails then.
    """
    free = _free_bytes()
    by_place: dict[str, list[Demand]] = {"cpu": []}
    for demand in demands:
        by_place.setdefault(_place(demand.device, free), []).append(demand)
    for place, here in by_place.items():
        yield _judge(place, free.get(place), here, is_busy)


def available_memory() -> int | None:
    """Return the bytes of memory that processes may still take, a container's limit included; None off Linux."""
    try:
        text = Path("/proc/meminfo").read_text()
    except OSError:
        return None
    free = int(text.partition("MemAvailable:")[2].split()[0]) * 1024
    try:
        group = Path("/sys/fs/cgroup", Path("/proc/self/cgroup").read_text().strip().rpartition("::/")[2])
        limit, used = int((group / "memory.max").read_text()), int((group / "memory.current").read_text())
        cache = re.search(r"^inactive_file (\d+)$", (group / "memory.stat").read_text(), re.MULTILINE)
    except (OSError, ValueError):  # no such group, or `max`: no limit
        return free
    return min(free, limit - used + (int(cache[1]) if cache else 0))


def _free_bytes() -> dict[str, int]:
    """Return what is free by place, `cpu` or `cuda:n`, as far as it is known and torch can use it."""
    try:
        gpus = [] if _torch_is_for_cpu() else list_gpus()
    except HealError:
        gpus = []
    free = {f"cuda:{gpu.index}": gpu.free_mib * 2**20 for gpu in gpus}
    available = available_memory()
    return free if available is None else {"cpu": available, **free}


def _describe_free(gpu: Gpu) -> str:
    return f"{describe_size(gpu.free_mib * 2**20)} of {describe_size(gpu.total_mib * 2**20)} free"


def _torch_is_for_cpu() -> bool:
    return (installed_version("torch") or "").endswith("+cpu")


def _place(device: str, free: Mapping[str, int]) -> str:
    """Return where a model runs, as `cpu` or `cuda:n`."""
    if device == "auto":
        return "cuda:0" if "cuda:0" in free else "cpu"
    return "cuda:0" if device == "cuda" else device


def _judge(place: str, free: int | None, demands: list[Demand], is_busy: bool) -> Finding:
    check = "memory" if place == "cpu" else f"memory {place}"
    if free is None and place != "cpu":
        found = f"the config names {place}, but torch {installed_version('torch')} has no such GPU here"
        return Finding(check, "fail", found, "set teacher.device, student.device and sft.device to auto")
    if free is None or not demands:
        return Finding(check, "ok", "not known here" if free is None else f"{describe_size(free)} available")
    largest = max(demands, key=lambda demand: (demand.least_bytes > free, demand.full_bytes))
    found = f"{describe_size(free)} available; {largest.what} needs {describe_size(largest.least_bytes)}"
    if largest.full_bytes > largest.least_bytes:
        found += f", with a full batch up to {describe_size(largest.full_bytes)}"
    if largest.full_bytes <= free:
        return Finding(check, "ok", found)
    state: State = "warn" if largest.least_bytes <= free or is_busy else "fail"
    return Finding(check, state, found, f"end what else holds memory, or {largest.remedy}")
