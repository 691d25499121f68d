"""What to look at before the first night and after a bad one: findings, each with its remedy.

The environment is judged by metadata and small commands alone, and everything else is
imported where it is needed, so that this works where a package is broken. Nothing is
changed or fetched, and nothing loaded but the engine when that is asked for. What does not belong
here: what a Prefect server says (`flows.schedule`), and how findings are shown (`flows.cli.doctor`).
"""

from __future__ import annotations

import datetime
import fcntl
import json
import math
import os
import platform
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import zoneinfo
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from heal_core.errors import HealError, InputError, ModelError, StoreError

if TYPE_CHECKING:
    from heal_core.config import RunConfig
    from heal_core.engines.base import EngineConfig

State = Literal["ok", "warn", "fail"]

PACKAGE = "heal-distill"
_NAMED = ("prefect", "fastapi", "sqlalchemy", "duckdb", "torch", "transformers", "trl")
_CONSEQUENCES = {
    "fastapi": "a newer one breaks every flow",
    "sqlalchemy": "with a newer one cron schedules create no runs",
}
_GIB = 2**30
_WARN_FREE_BYTES, _FAIL_FREE_BYTES = 10 * _GIB, _GIB
_LIBRARIES_BYTES = _GIB  # torch, transformers and a CUDA context, beside the model
_PROMPT_TOKENS = 512  # a long problem with a hint; only an estimate hangs on it
_TRAINING_BYTES = 16  # per parameter: weights, gradients and AdamW's two moments in float32
_MAX_HEADER_BYTES = 100 * 2**20
_COMMAND_SECONDS = 20.0


@dataclass(frozen=True)
class Finding:
    """What one check found; `remedy` is a command or an edit, and empty only where all is well."""

    check: str
    state: State
    found: str
    remedy: str = ""

    def __post_init__(self) -> None:
        assert (self.state == "ok") == (not self.remedy), self


@dataclass(frozen=True)
class Gpu:
    """A GPU as nvidia-smi sees it; `holders` are the processes that have some of its memory."""

    index: int
    name: str
    total_bytes: int
    free_bytes: int
    holders: tuple[str, ...] = ()


@dataclass(frozen=True)
class ModelSize:
    """What a model takes: its weights as loaded, and the cache of one answer of the greatest length."""

    num_parameters: int
    loaded_bytes: int
    answer_bytes: int


@dataclass(frozen=True)
class Demand:
    """What one child process needs to start, and what it may come to need."""

    what: str
    least_bytes: int
    full_bytes: int
    remedy: str


# The environment


def check_environment() -> Iterator[Finding]:
    """Yield what can be said without a config."""
    yield check_python()
    yield check_platform()
    yield from check_versions()
    yield check_gpus()
    yield check_sandbox()
    yield check_clock()


def check_python() -> Finding:
    """Judge the interpreter by the range in the installed package's metadata."""
    version = platform.python_version()
    required = str(metadata.metadata(PACKAGE)["Requires-Python"] or "") if _installed(PACKAGE) else ""
    if SpecifierSet(required).contains(version, prereleases=True):
        return Finding("python", "ok", f"{version}, {sys.executable}")
    remedy = "make the environment anew: `rm -rf .venv && make PYTHON=/path/to/python3.11 .venv/.stamp`"
    return Finding("python", "fail", f"{version}, but HEAL needs {required} ({sys.executable})", remedy)


def check_platform() -> Finding:
    """Judge the operating system: only Linux ends children whose parent was killed."""
    found = f"{platform.system()} {platform.release()}, {os.cpu_count()} CPU cores"
    if sys.platform == "linux":
        return Finding("platform", "ok", found)
    remedy = "run nights on Linux; here, after a kill, `pgrep -fl 'heal_core|flows.server'`, and `kill` what is left"
    return Finding("platform", "warn", f"{found}: engines and training outlive a `heal` that is killed", remedy)


def check_versions() -> Iterator[Finding]:
    """Compare every package that HEAL needs, directly or not, with what its dependents ask for. Imports none."""
    if _installed(PACKAGE) is None:
        found = f"{PACKAGE} is not installed for {sys.executable}, so that no range of versions is known"
        yield Finding("packages", "fail", found, "in HEAL's folder `make .venv/.stamp`, then use .venv/bin/heal")
        return
    wanted = _wanted_versions()
    faults = [fault for name, ranges in wanted.items() if (fault := _version_fault(name, ranges))]
    yield from faults
    if not faults:
        named = ", ".join(f"{name} {_installed(name)}" for name in _NAMED)
        yield Finding("packages", "ok", f"{named}; all {len(wanted)} are in the ranges asked for")
    if vllm := _installed("vllm"):
        found = f"vllm {vllm} is in this environment: it asks for another FastAPI and torch than HEAL does"
        remedy = f"`{sys.executable} -m pip uninstall vllm`; install it in an environment of its own"
        yield Finding("vllm", "warn", found, remedy)


def check_gpus() -> Finding:
    """Tell which GPUs there are and who has their memory; none is no fault."""
    gpus = find_gpus()
    if isinstance(gpus, str):
        remedy = "`nvidia-smi` shows the whole message; after an update of the driver, reboot"
        return Finding("gpu", "warn", f"nvidia-smi does not answer: {gpus}", remedy)
    if not gpus:
        return Finding("gpu", "ok", "none (no nvidia-smi): models run on the CPU")
    found = "; ".join(
        f"{gpu.index}: {gpu.name}, {_size(gpu.free_bytes)} of {_size(gpu.total_bytes)} free" for gpu in gpus
    )
    if _torch_is_for_cpu():
        remedy = "install torch's build for CUDA, with the command from https://pytorch.org/get-started/locally/"
        return Finding("gpu", "warn", f"{found}; but torch {_installed('torch')} cannot use it", remedy)
    if holders := [holder for gpu in gpus for holder in gpu.holders]:
        pids = ",".join(holder.split()[0] for holder in holders)
        remedy = f"`ps -o pid,etime,user,args -p {pids}` shows what they are; `kill` what is left over"
        return Finding("gpu", "warn", f"{found}; held by process {'; '.join(holders)}", remedy)
    return Finding("gpu", "ok", found)


def check_sandbox() -> Finding:
    """Try bubblewrap. Only information: HEAL does not yet execute what models write."""
    purpose = "needed for code problems, which this version does not run"
    if shutil.which("bwrap") is None:
        remedy = "nothing for now; later `apt install bubblewrap`"
        return Finding("sandbox", "warn", f"no bwrap on PATH; {purpose}", remedy)
    code, output = _run(["bwrap", "--ro-bind", "/", "/", "--unshare-all", "true"])
    if code == 0:
        return Finding("sandbox", "ok", f"bwrap works; {purpose}")
    remedy = (
        "nothing for now; later allow user namespaces: on Ubuntu "
        "`sysctl kernel.apparmor_restrict_unprivileged_userns=0`, in Docker --security-opt seccomp=unconfined"
    )
    return Finding("sandbox", "warn", f"bwrap does not work here ({_last_line(output)}); {purpose}", remedy)


def check_clock() -> Finding:
    """Name the local time zone, in which a time of day is read."""
    name, now = local_zone(), datetime.datetime.now().astimezone()
    found = f"{now:%Y-%m-%d %H:%M}, UTC{now:%z}, {name or 'a zone without a name'}"
    try:
        zoneinfo.ZoneInfo(name or "")
    except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError):
        remedy = "`timedatectl set-timezone Europe/Berlin` (or yours), or `export TZ=Europe/Berlin` for the worker"
        return Finding("clock", "warn", f"{found}: no zone that Python knows, so that no schedule can name it", remedy)
    return Finding("clock", "ok", found)


def local_zone() -> str | None:
    """Return the name of the local time zone, None where the system does not say."""
    if "TZ" in os.environ:
        return os.environ["TZ"].removeprefix(":") or "UTC"
    localtime = Path("/etc/localtime")
    if localtime.is_symlink():
        return str(localtime.resolve()).partition("zoneinfo/")[2] or None
    try:
        return Path("/etc/timezone").read_text().strip() or None
    except OSError:
        return None if localtime.exists() else "UTC"


def find_gpus() -> tuple[Gpu, ...] | str:
    """Return the GPUs, none without nvidia-smi; a text is why it does not answer."""
    if shutil.which("nvidia-smi") is None:
        return ()
    columns = "--format=csv,noheader,nounits"
    code, listed = _run(["nvidia-smi", "--query-gpu=uuid,index,memory.total,memory.free,name", columns])
    if code != 0:
        return _last_line(listed)
    _, apps = _run(["nvidia-smi", "--query-compute-apps=gpu_uuid,pid,used_memory,process_name", columns])
    holders = [row for row in (line.split(", ", 3) for line in apps.splitlines()) if len(row) == 4]
    gpus = []
    try:
        for line in listed.splitlines():
            uuid, index, total, free, name = line.split(", ", 4)
            mine = tuple(f"{pid} ({program}, {used} MiB)" for on, pid, used, program in holders if on == uuid)
            gpus.append(Gpu(int(index), name, int(total) * 2**20, int(free) * 2**20, mine))
    except ValueError:  # a GPU that fell off the bus, or one that shares the memory of the CPU
        return f"expected numbers, found {_last_line(listed)}"
    return tuple(gpus)


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _wanted_versions() -> dict[str, dict[str, SpecifierSet]]:
    """Return for each package that HEAL needs, directly or not, who asks for which versions."""
    wanted: dict[str, dict[str, SpecifierSet]] = {}
    pending, seen = [(PACKAGE, frozenset[str]())], set()
    while pending:
        owner, extras = pending.pop()
        if (owner, extras) in seen or _installed(owner) is None:
            continue
        seen.add((owner, extras))
        for requirement in map(Requirement, metadata.requires(owner) or []):
            marker = requirement.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in extras or {""}):
                name = canonicalize_name(requirement.name)
                ranges = wanted.setdefault(name, {})
                ranges[owner] = ranges.get(owner, SpecifierSet()) & requirement.specifier
                pending.append((name, frozenset(requirement.extras)))
    return wanted


def _version_fault(name: str, ranges: Mapping[str, SpecifierSet]) -> Finding | None:
    """Return what is wrong with a package's version; where only another package minds, it is a warning."""
    installed = _installed(name)
    minding = {
        by: wanted for by, wanted in ranges.items() if not (installed and wanted.contains(installed, prereleases=True))
    }
    if not minding:
        return None
    asked = ", ".join(f"{by} needs {name}{wanted}" for by, wanted in sorted(minding.items()))
    consequence = f": {_CONSEQUENCES[name]}" if name in _CONSEQUENCES else ""
    found = f"{installed or 'not installed'}, but {asked}{consequence}"
    good = ",".join(sorted({str(clause) for wanted in ranges.values() for clause in wanted}))
    state: State = "fail" if installed is None or PACKAGE in minding else "warn"
    return Finding(f"package {name}", state, found, f"`{sys.executable} -m pip install '{name}{good}'`")


def _torch_is_for_cpu() -> bool:
    return (_installed("torch") or "").endswith("+cpu")


# Disk, workspace, store


def check_disk(folder: Path, stored_bytes: int = 0, expected_bytes: int = 0) -> Finding:
    """Judge the free space of the file system that holds `folder`, which need not exist yet.

    Args:
        folder: A path on it.
        stored_bytes: What the workspace takes.
        expected_bytes: What training will write.
    """
    usage = shutil.disk_usage(_existing_parent(folder))
    found = f"{_size(usage.free)} of {_size(usage.total)} free at {folder}"
    if stored_bytes:
        found += f"; the workspace takes {_size(stored_bytes)}"
    if expected_bytes:
        found += f"; stages of training yet to come up to {_size(expected_bytes)}"
    if usage.free >= max(_WARN_FREE_BYTES, expected_bytes):
        return Finding("disk", "ok", found)
    remedy = f"`du -xhd1 {_existing_parent(folder)}` shows what takes room; or set `workspace` to a larger disk"
    if stored_bytes:
        gc = f"`heal store gc -w {folder}` removes what no run refers to (`heal store size -w {folder}` shows what is)"
        remedy = f"{gc}; or set `workspace` to a larger disk"
    return Finding("disk", "fail" if usage.free < _FAIL_FREE_BYTES else "warn", found, remedy)


def check_file_system(folder: Path) -> Finding:
    """Try in a temporary folder what the store lives on: a lock that excludes, renaming over a file, links."""
    place = _existing_parent(folder)
    try:
        with tempfile.TemporaryDirectory(prefix=".heal-doctor-", dir=place) as scratch:
            lack = _lack(Path(scratch))
    except OSError as error:
        lack = f"cannot be written: {error.strerror}"
    if lack is None:
        return Finding("file system", "ok", f"{place}: can be written; locks, renames and links work")
    remedy = "set `workspace` to a folder of yours on a local disk (a network disk often has no locks)"
    return Finding("file system", "fail", f"{place}: {lack}", remedy)


def check_lock(folder: Path) -> Finding:
    """Tell whether a process holds the workspace."""
    from heal_core.store.workspace import Workspace

    workspace = Workspace(folder)
    holder = workspace.holder()
    if holder is None:
        return Finding("lock", "ok", "free: no run is going on in the workspace")
    if not holder:
        remedy = f"`fuser -v {workspace.lock_file}` shows which; wait for it, or stop it"
        return Finding("lock", "warn", "held by a process that has not said which it is", remedy)
    remedy = f"`heal status -w {folder}` shows how far it is; wait, or `kill {holder}`: what is finished is stored"
    return Finding("lock", "warn", f"held by process {holder}: {_command_line(holder)}", remedy)


def check_store(folder: Path, is_busy: bool = False) -> Finding:
    """Open the published store; tell its schema and how the last run stands."""
    from heal_core.store.database import newest_schema
    from heal_core.store.inspect import open_store, run_overview
    from heal_core.store.workspace import Workspace

    workspace, newest = Workspace(folder), newest_schema()
    rebuild = f"`heal store rebuild -w {folder}` makes it anew from the parts, which are the truth"
    if not workspace.database.exists():
        if any(workspace.parts.glob("*/*.parquet")) and not is_busy:
            return Finding("store", "warn", f"{folder} holds parts, but no heal.duckdb to query", rebuild)
        return Finding("store", "ok", f"none yet in {folder}: the first run makes it")
    try:
        with open_store(folder) as store:
            (schema,) = store.execute("SELECT max(name) FROM migrations").fetchone() or (None,)
            runs = run_overview(store) if schema == newest else []
    except StoreError as error:
        return Finding("store", "fail", str(error), rebuild)
    if str(schema) > newest:
        remedy = "bring HEAL's folder up to date (`git pull`), or set another `workspace`"
        return Finding("store", "fail", f"of a newer HEAL: schema {schema}, this one knows {newest}", remedy)
    if schema != newest:
        return Finding("store", "ok", f"schema {schema}; the next run brings it to {newest} and keeps a copy")
    if not runs:
        return Finding("store", "ok", f"schema {schema}; no run yet")
    last = runs[0]
    reason = f": {last['reason']}" if last["reason"] else ""
    found = f"schema {schema}; last run {last['run_id']}, {last['state']} at {last['last_event']}{reason}"
    if last["state"] in ("completed", "stopped") or is_busy:
        return Finding("store", "ok", found)
    retry = f"`heal retry {last['run_id']} -w {folder}`"
    remedy = f"{retry} goes on from there; what it and its children said is in {workspace.logs}"
    return Finding("store", "warn", found, remedy)


def _lack(scratch: Path) -> str | None:
    """Return what the file system of an empty folder cannot do, None where it can do all."""
    first, second, link = scratch / "first", scratch / "second", scratch / "link"
    first.write_text("new")
    second.write_text("old")
    try:
        with first.open() as holder, first.open() as other:
            fcntl.flock(holder, fcntl.LOCK_EX)
            try:
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return "its locks do not exclude, so that two runs could write at once"
            except BlockingIOError:
                pass
        first.replace(second)
        link.symlink_to(second.name)
        return None if link.read_text() == "new" else "a renamed file has not its content"
    except OSError as error:
        return f"files cannot be locked, renamed and linked: {error.strerror}"


def _existing_parent(path: Path) -> Path:
    """Return the path, or its nearest parent that exists."""
    return next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.exists())


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").replace("\0", " ").strip()
    except OSError:
        return "it cannot be seen from here"


# Models, memory, problems


def check_run(config: RunConfig, engine_seconds: float | None = None) -> Iterator[Finding]:
    """Yield what a run with this config would meet.

    Args:
        config: The run's settings.
        engine_seconds: Load the teacher for real, and give it so long; None does not try.
    """
    from heal_core.store.size import folder_bytes
    from heal_core.store.workspace import Workspace

    workspace = Workspace(config.workspace)
    checked = {role: check_model(role, model, config) for role, model in _models(config).items()}
    sizes = {role: size for role, (_, size) in checked.items() if size is not None}
    yield check_file_system(workspace.root)
    expected_bytes = max(0, _stages_bytes(config, sizes) - folder_bytes(workspace.checkpoints))
    yield check_disk(workspace.root, folder_bytes(workspace.root), expected_bytes)
    lock = check_lock(workspace.root)
    is_busy = lock.state != "ok"
    yield lock
    yield check_store(workspace.root, is_busy)
    yield from (finding for finding, _ in checked.values())
    yield from check_memory(config, sizes, is_busy)
    yield check_problems(config)
    yield check_verifier(config)
    if engine_seconds is not None:
        yield check_engine(config.teacher, engine_seconds, is_busy)


def check_model(role: str, model: EngineConfig, config: RunConfig) -> tuple[Finding, ModelSize | None]:
    """Judge a model's folder without reading its weights; return its size, too, where that is known."""
    from heal_core.engines.identity import check_context, has_chat_template
    from heal_core.engines.loading import check_model_folder

    key, folder = f"{role}.model_name_or_path", Path()
    try:
        located = find_model(model)
        if located is None:
            return _not_fetched(role, model), None
        folder = located
        check_model_folder(folder)
        num_parameters, stored_bytes = read_weights(folder)
        settings = _model_settings(folder)
    except ModelError as error:
        remedy = f"copy or download the whole model again, or set {key} to a model's folder (seen from {Path.cwd()})"
        return Finding(role, "fail", str(error), remedy), None
    size = _model_size(model, num_parameters, stored_bytes, settings, config)
    local = model.model_copy(update={"model_name_or_path": str(folder)})
    context = settings.get("max_position_embeddings")
    found = f"{model.model_name_or_path}: {_count(num_parameters)} parameters, context of {context} tokens"
    if not isinstance(context, int):
        return Finding(role, "fail", found, f"add max_position_embeddings to {folder / 'config.json'}"), size
    for limit, max_tokens in _limits(role, config).items():
        try:
            check_context(local, max_tokens, limit)
        except ModelError as error:
            return Finding(role, "fail", str(error), f"leave room for the prompt, such as {limit}={context // 2}"), size
    if role == "scorer" and not _same_tokenizer(config.teacher, folder):
        remedy = "take a scorer of the teacher's family, or leave `scorer` out: then the teacher scores"
        return Finding(
            role, "warn", f"{found}; its tokenizer.json is not the teacher's, whose tokens it reads", remedy
        ), size
    if not has_chat_template(local):
        remedy = f"for a chat model, copy its chat_template.jinja into {folder}; for a base model, leave it"
        return Finding(role, "warn", f"{found}, no chat template: it is prompted with plain text", remedy), size
    return Finding(role, "ok", f"{found}, chat template"), size


def find_model(model: EngineConfig) -> Path | None:
    """Return a model's folder on this disk, None for a hub id that has not been fetched.

    Raises:
        ModelError: If it is a path without a folder, or no name of a model.
    """
    from heal_core.engines.identity import resolve_folder

    name = model.model_name_or_path
    path = Path(name).expanduser()
    if path.exists() or name.startswith(("/", ".", "~")) or path.parts[2:]:
        return resolve_folder(model)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, revision=model.revision, local_files_only=True))
    except LocalEntryNotFoundError:
        return None
    except HFValidationError as error:
        raise ModelError(f"model {name}: neither a folder nor a name that a model of the hub can have") from error


def read_weights(folder: Path) -> tuple[int, int]:
    """Return a model's number of parameters and their bytes, from the headers of its files, which must be whole.

    Raises:
        ModelError: If a file is missing, cut, or no safetensors.
    """
    num_parameters = num_bytes = 0
    for path in _weight_files(folder):
        try:
            with path.open("rb") as stream:
                (length,) = struct.unpack("<Q", stream.read(8))
                tensors: dict[str, Any] = json.loads(stream.read(min(length, _MAX_HEADER_BYTES)))
                size = os.fstat(stream.fileno()).st_size
            tensors.pop("__metadata__", None)
            end = max((int(tensor["data_offsets"][1]) for tensor in tensors.values()), default=0)
            num_parameters += sum(math.prod(tensor["shape"]) for tensor in tensors.values())
        except OSError as error:
            raise ModelError(f"{path} cannot be read: {error.strerror}") from error
        except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelError(f"{path} is no safetensors file: cut, or a pointer of git-lfs ({error})") from error
        if size != 8 + length + end:
            raise ModelError(f"{path} has {size} bytes, but its header tells of {8 + length + end}: it is cut")
        num_bytes += end
    return num_parameters, num_bytes


def check_memory(
    config: RunConfig | None = None, sizes: Mapping[str, ModelSize] | None = None, is_busy: bool = False
) -> Iterator[Finding]:
    """Compare what is free with what the models need, on the CPU and on each GPU that is used.

    One child process with a model is loaded at a time. A run that is going on has some of
    the memory, so that nothing fails then.
    """
    found = find_gpus()
    gpus = found if isinstance(found, tuple) and not _torch_is_for_cpu() else ()
    demands: dict[str, list[Demand]] = {"cpu": []}
    for role, model in _models(config).items() if config else ():
        wanted = demands.setdefault(_place(model.device, gpus), [])
        if size := (sizes or {}).get(role):
            wanted.append(_engine_demand(role, model, size))
    if config and not config.sft.launcher:
        wanted = demands.setdefault(_place(config.sft.device, gpus), [])
        if size := (sizes or {}).get("student"):
            wanted.append(_training_demand(size))
    free = {"cpu": available_memory(), **{f"cuda:{gpu.index}": gpu.free_bytes for gpu in gpus}}
    for place, wanted in demands.items():
        yield _judge_memory(place, free.get(place), wanted, is_busy)


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


def check_problems(config: RunConfig) -> Finding:
    """Read the problem files as a run would."""
    from heal_core.problems import load_problems

    try:
        loaded = load_problems(config.problems)
    except InputError as error:
        remedy = (
            "set problems.path (problems.evaluation_path) to a file with a problem and its answer per line, as JSON"
        )
        return Finding("problems", "fail", str(error), remedy)
    splits = {name: sum(problem.split == name for problem in loaded.problems) for name in ("train", "held_out")}
    found = f"{len(loaded.problems)} in all ({splits['train']} train, {splits['held_out']} held out)"
    if empty := [name for name, num in splits.items() if num == 0]:
        remedy = "give more problems, another problems.held_out_fraction, or a problems.evaluation_path"
        return Finding("problems", "fail", f"{found}: none in the split {empty[0]}", remedy)
    if loaded.quarantined:
        first = loaded.quarantined[0]
        found += f"; {len(loaded.quarantined)} rows go to quarantine, the first for {first.reason}"
        remedy = f"`sed -n {first.line}p {first.source}` shows that row; correct it, or go on without"
        return Finding("problems", "warn", found, remedy)
    return Finding("problems", "ok", f"{found}, no row in quarantine")


def check_verifier(config: RunConfig) -> Finding:
    """Grade one trivial answer in a real worker process."""
    from heal_core.records import VerdictLabel
    from heal_core.verify.pool import GradeItem, VerifierPool

    started = time.monotonic()
    remedy = f"`{sys.executable} -m pip install --force-reinstall --no-deps math-verify=={_installed('math-verify')}`"
    try:
        with VerifierPool(config.verify) as pool:
            ((_, verdict),) = pool.grade_all([GradeItem("doctor", r"It is \boxed{42}.", "42", "math")])
    except HealError as error:
        return Finding("verifier", "fail", str(error), f"set verify.max_memory_gib higher; if that is not it, {remedy}")
    if verdict.label == VerdictLabel.CORRECT:
        return Finding("verifier", "ok", f"has graded an answer; {time.monotonic() - started:.1f} s with its start")
    return Finding("verifier", "fail", f"calls 42 for 42 {verdict.label} ({verdict.reason})", remedy)


def check_engine(model: EngineConfig, seconds: float, is_busy: bool = False) -> Finding:
    """Load a model in an engine's child and sample a few tokens; all of it is killed when the time is over."""
    from heal_core.children import child_environment, start_child

    if is_busy:
        found = "not tried: a run is going on, and a second model might take its memory"
        return Finding("engine", "warn", found, "ask again when the lock is free")
    command = [sys.executable, "-P", "-m", "heal_core.doctor", model.model_dump_json()]
    with tempfile.TemporaryFile() as output:
        child = start_child(command, env=child_environment(HF_HUB_OFFLINE="1"), stdout=output, stderr=output)
        try:
            child.wait(seconds)
        except subprocess.TimeoutExpired:
            found = f"{model.model_name_or_path} has not answered within {seconds:g} s"
            return Finding("engine", "fail", found, f"give it longer: `--engine-seconds {4 * seconds:g}`")
        finally:
            child.kill()
            child.wait()
        output.seek(0)
        said = output.read().decode(errors="replace").strip()
    if child.returncode == 0:
        return Finding("engine", "ok", f"{model.model_name_or_path}: {_last_line(said)}")
    remedy = "correct what it names; exit code -9 is a want of memory: set teacher.dtype=bfloat16, or free some"
    return Finding("engine", "fail", said or f"its child ended with exit code {child.returncode}", remedy)


def _not_fetched(role: str, model: EngineConfig) -> Finding:
    """Return what it means that a model of the hub is not on this disk."""
    hub = Path(sys.executable).with_name("hf")
    revision = f" --revision {model.revision}" if model.revision else ""
    fetch = f"`HF_HUB_OFFLINE=0 {hub} download {model.model_name_or_path}{revision}` fetches it before the night"
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}:
        found = f"{model.model_name_or_path} is not on this disk, and HF_HUB_OFFLINE keeps a run from fetching it"
        return Finding(role, "fail", found, fetch)
    found = f"{model.model_name_or_path} is not on this disk: the first run will fetch it"
    return Finding(role, "warn", found, fetch)


def _models(config: RunConfig) -> dict[str, EngineConfig]:
    models = {"teacher": config.teacher, "student": config.student}
    return models if config.scorer is None else {**models, "scorer": config.scorer}


def _limits(role: str, config: RunConfig) -> dict[str, int]:
    """Return the longest answers that a run asks of a model, by setting."""
    limits = {} if role == "scorer" else {"rollouts.sampling.max_tokens": config.rollouts.sampling.max_tokens}
    return {**limits, "hints.sampling.max_tokens": config.hints.sampling.max_tokens} if role == "teacher" else limits


def _model_settings(folder: Path) -> dict[str, Any]:
    try:
        settings: dict[str, Any] = json.loads((folder / "config.json").read_bytes())
        return {**settings, **settings.get("text_config", {})}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ModelError(f"{folder / 'config.json'} cannot be read: {error}") from error


def _weight_files(folder: Path) -> list[Path]:
    """Return the files that transformers would load: the one, those of the index, or all."""
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file():
        return [single]
    if not index.is_file():
        return sorted(folder.glob("*.safetensors"))
    try:
        return [folder / name for name in sorted(set(json.loads(index.read_bytes())["weight_map"].values()))]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{index} cannot be read: {error!r}") from error


def _same_tokenizer(teacher: EngineConfig, folder: Path) -> bool:
    try:
        other = find_model(teacher)
        return other is not None and (other / "tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()
    except (ModelError, OSError):
        return False


def _model_size(
    model: EngineConfig, num_parameters: int, stored_bytes: int, settings: Mapping[str, Any], config: RunConfig
) -> ModelSize:
    """Return a model's size; where the architecture does not say what its cache takes, that counts as nothing."""
    loaded_bytes = stored_bytes
    if model.dtype != "auto":
        loaded_bytes = num_parameters * (4 if model.dtype == "float32" else 2)
    heads, layers = settings.get("num_attention_heads") or 0, settings.get("num_hidden_layers") or 0
    head_size = settings.get("head_dim") or (settings.get("hidden_size", 0) // heads if heads else 0)
    numbers_per_token = 2 * layers * (settings.get("num_key_value_heads") or heads) * head_size
    num_tokens = config.rollouts.sampling.max_tokens + _PROMPT_TOKENS
    num_tokens = min(num_tokens, settings.get("max_position_embeddings") or num_tokens)
    number_bytes = loaded_bytes / num_parameters if num_parameters else 0
    return ModelSize(num_parameters, loaded_bytes, int(numbers_per_token * num_tokens * number_bytes))


def _stages_bytes(config: RunConfig, sizes: Mapping[str, ModelSize]) -> int:
    """Return what all stages of training take on the disk: three per arm, in float32."""
    num_arms = 1 + config.controls.rejection_sampling + config.controls.equal_tokens
    return 3 * num_arms * 4 * sizes["student"].num_parameters if "student" in sizes else 0


def _place(device: str, gpus: tuple[Gpu, ...]) -> str:
    """Return where a model runs, as `cpu` or `cuda:n`."""
    if device == "cpu" or (device == "auto" and not gpus):
        return "cpu"
    return device if ":" in device else "cuda:0"


def _engine_demand(role: str, model: EngineConfig, size: ModelSize) -> Demand:
    least = size.loaded_bytes + _LIBRARIES_BYTES
    smaller = "" if model.dtype.endswith("16") else f" or {role}.dtype=bfloat16"
    remedy = f"set {role}.batch_size={max(1, model.batch_size // 4)}{smaller}"
    return Demand(f"the {role}", least, least + model.batch_size * size.answer_bytes, remedy)


def _training_demand(size: ModelSize) -> Demand:
    need = size.num_parameters * _TRAINING_BYTES + _LIBRARIES_BYTES
    remedy = "take a smaller student, or several GPUs: sft.launcher=[accelerate,launch,--config_file,fsdp.yaml]"
    return Demand("training", need, need, remedy)


def _judge_memory(place: str, free: int | None, demands: list[Demand], is_busy: bool) -> Finding:
    check = "memory" if place == "cpu" else f"memory {place}"
    if free is None and place != "cpu":
        found = f"the config names {place}, but torch {_installed('torch')} has no such GPU here"
        return Finding(check, "fail", found, "set teacher.device, student.device and sft.device to auto")
    if free is None or not demands:
        return Finding(check, "ok", "not known here" if free is None else f"{_size(free)} available")
    largest = max(demands, key=lambda demand: (demand.least_bytes > free, demand.full_bytes))
    found = f"{_size(free)} available; {largest.what} needs {_size(largest.least_bytes)}"
    if largest.full_bytes > largest.least_bytes:
        found += f", with a full batch up to {_size(largest.full_bytes)}"
    if largest.full_bytes <= free:
        return Finding(check, "ok", found)
    state: State = "warn" if largest.least_bytes <= free or is_busy else "fail"
    return Finding(check, state, found, f"end what else holds memory, or {largest.remedy}")


# What the checks share


def _run(command: list[str]) -> tuple[int | None, str]:
    """Return exit code and output of a command; no code where it took too long or cannot be started."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_COMMAND_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, str(error)
    return done.returncode, done.stdout + done.stderr


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "it says nothing")


def _size(num_bytes: int) -> str:
    return f"{num_bytes / _GIB:,.1f} GiB" if num_bytes >= _GIB / 10 else f"{num_bytes / 2**20:,.1f} MiB"


def _count(number: int) -> str:
    for unit, name in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if number >= unit:
            return f"{number / unit:.1f}{name}"
    return str(number)


def _try_engine(model_json: str) -> int:
    """Load a model, sample a few tokens and say how it went; the body of `check_engine`'s child."""
    from heal_core.engines.base import EngineConfig, GenerationRequest, SamplingConfig
    from heal_core.engines.hf import HfEngine

    started = time.monotonic()
    try:
        with HfEngine(EngineConfig.model_validate_json(model_json)) as engine:
            kind, loaded = engine.description, time.monotonic()
            (answer,) = engine.generate([GenerationRequest("doctor", "What is 1 + 1?", (), 8)], SamplingConfig())
    except HealError as error:
        sys.stdout.write(f"{error}\n")
        return 1
    num, seconds = len(answer.token_ids), time.monotonic() - loaded
    said = f"loaded in {loaded - started:.1f} s, {num} tokens in {seconds:.1f} s"
    sys.stdout.write(f"{said} ({kind.engine}, {kind.dtype})\n")
    return 0


if __name__ == "__main__":
    sys.exit(_try_engine(sys.argv[1]))
