"""The workspace of a run: room on its disk, its file system, who holds it, its store, its latest student.

DuckDB is imported only to read the store: the room on a disk is also judged where it is broken.
"""

from __future__ import annotations

import fcntl
import shutil
import tempfile
from pathlib import Path

from heal_core.doctor.finding import GIB, Finding, describe_size
from heal_core.errors import StoreError
from heal_core.store.size import folder_bytes
from heal_core.store.workspace import Workspace

_WARN_FREE_BYTES, _FAIL_FREE_BYTES = 10 * GIB, GIB


def check_disk(folder: Path, expected_bytes: int = 0) -> Finding:
    """Judge the free space of the file system that holds `folder`, which need not exist yet.

    Args:
        folder: A path on it; where it is a workspace, its store has a command that makes room.
        expected_bytes: What the stages of training will write.
    """
    place = _existing_parent(folder)
    usage = shutil.disk_usage(place)
    found = f"{describe_size(usage.free)} of {describe_size(usage.total)} free at {folder}"
    remedy = f"`du -xhd1 {place}` shows what takes room; or set `workspace` to a larger disk"
    if Workspace(folder).parts.is_dir():
        found += f"; the workspace takes {describe_size(folder_bytes(folder))}"
        gc = f"`heal store gc -w {folder}` removes what no run refers to (`heal store size -w {folder}` shows what is)"
        remedy = f"{gc}; or set `workspace` to a larger disk"
    if expected_bytes:
        found += f"; a run's stages of training come to {describe_size(expected_bytes)}"
    if usage.free >= max(_WARN_FREE_BYTES, expected_bytes):
        return Finding("disk", "ok", found)
    return Finding("disk", "fail" if usage.free < _FAIL_FREE_BYTES else "warn", found, remedy)


def check_file_system(folder: Path) -> Finding:
    """Try in a temporary folder what the store and the students need: to write, lock and link."""
    place = _existing_parent(folder)
    try:
        with tempfile.TemporaryDirectory(prefix=".heal-doctor-", dir=place) as scratch:
            link = Path(scratch, "link")
            link.symlink_to("file")
            with link.open("w") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
    except OSError as error:
        remedy = "set `workspace` to a folder of yours on a local disk (a network disk often has no locks)"
        return Finding("file system", "fail", f"{place}: cannot be written, locked or linked: {error.strerror}", remedy)
    return Finding("file system", "ok", f"{place}: can be written; locks and links work")


def check_lock(workspace: Workspace) -> Finding:
    """Tell whether a process holds the workspace."""
    holder = workspace.holder()
    if holder is None:
        return Finding("lock", "ok", "free: no run is going on in the workspace")
    if not holder:
        remedy = f"`fuser -v {workspace.lock_file}` shows which; wait for it, or stop it"
        return Finding("lock", "warn", "held by a process that has not said which it is", remedy)
    progress = f"`heal status -w {workspace.root}` shows how far it is"
    remedy = f"{progress}; wait, or `kill {holder}`: what is finished is stored"
    return Finding("lock", "warn", f"held by process {holder}: {_command_line(holder)}", remedy)


def check_store(workspace: Workspace, is_busy: bool = False) -> Finding:
    """Open the published store; tell its schema and how the last run stands."""
    from heal_core.store.database import newest_schema
    from heal_core.store.inspect import open_store, run_overview, schema_name

    rebuild = f"`heal store rebuild -w {workspace.root}` makes it anew from the parts, which are the truth"
    if not workspace.database.exists():
        if any(workspace.parts.glob("*/*.parquet")) and not is_busy:
            return Finding("store", "warn", f"{workspace.root} holds parts, but no heal.duckdb to query", rebuild)
        return Finding("store", "ok", f"none yet in {workspace.root}: the first run makes it")
    newest = newest_schema()
    try:
        with open_store(workspace.root) as store:
            schema = schema_name(store)
            runs = run_overview(store) if schema == newest else []
    except StoreError as error:
        return Finding("store", "fail", str(error), rebuild)
    if schema > newest:
        remedy = "bring HEAL's folder up to date (`git pull`), or set another `workspace`"
        return Finding("store", "fail", f"of a newer HEAL: schema {schema}, this one knows {newest}", remedy)
    if schema < newest:
        return Finding("store", "ok", f"schema {schema}; the next run brings it to {newest} and keeps a copy")
    if not runs:
        return Finding("store", "ok", f"schema {schema}; no run yet")
    last = runs[0]
    reason = f": {last['reason']}" if last["reason"] else ""
    found = f"schema {schema}; last run {last['run_id']}, {last['state']} at {last['last_event']}{reason}"
    if last["state"] in ("completed", "stopped") or is_busy:
        return Finding("store", "ok", found)
    retry = f"`heal retry {last['run_id']} -w {workspace.root}` goes on from there"
    return Finding("store", "warn", found, f"{retry}; what it and its children said is in {workspace.logs}")


def check_latest_student(workspace: Workspace) -> Finding:
    """Judge the folder of the student that was promoted last, from which the next training starts."""
    from heal_core.sft.folders import find_faults

    latest = workspace.students / "latest"
    if not latest.is_symlink():
        return Finding("latest student", "ok", "none has been promoted: training starts from the student")
    folder = latest.resolve()
    if faults := find_faults(folder) if folder.is_dir() else ["it is gone"]:
        remedy = "restore that folder from a backup, or set student_start=base"
        return Finding("latest student", "fail", f"{folder}: {'; '.join(faults)}", remedy)
    return Finding("latest student", "ok", f"{folder}: whole; training starts from it")


def _existing_parent(path: Path) -> Path:
    """Return the path, or its nearest parent that exists."""
    return next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.exists())


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").replace("\0", " ").strip()
    except OSError:
        return "it cannot be seen from here"
