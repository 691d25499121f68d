"""Kill a writer at its n-th durable step, for every n or every so many, and compare what the next start makes of it.

Run by `test_crash_points`, in a process of its own: it forks (before DuckDB has any thread), and
it patches the steps of the store, so that a child can kill itself there.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from heal_core.store import database, durable, parts
from heal_core.store.check import check_store
from heal_core.store.garbage import find_garbage, remove_garbage
from heal_core.store.rewrite import rebuild, rewrite
from heal_core.store.store import Store, open_reader
from heal_core.store.workspace import Workspace

Script = tuple[Callable[[Workspace], object], ...]

TABLES = ("problems", "trajectories", "verdicts", "checkpoints", "run_rows")
FIRST_SCHEMA = "0001_initial"
LAST_STEP = 10**9


class Steps:
    """Counts the durable steps of this process, and kills it at the one it is told."""

    def __init__(self, fatal: int) -> None:
        self.fatal = fatal
        self.taken = 0

    def take(self) -> None:
        if self.is_next_fatal():
            os.kill(os.getpid(), signal.SIGKILL)
        self.taken += 1

    def is_next_fatal(self) -> bool:
        return self.taken == self.fatal

    def install(self) -> None:
        """Put a step before each sync, rename, commit, checkpoint and removal, after the last three, and in a write."""
        sync, replace, write = durable.sync_file, durable.replace_file, durable.write_atomically
        connect, remove = database.connect, shutil.rmtree

        def write_atomically(final: Path, fill: Callable[[Path], object]) -> None:
            write(final, lambda temporary: (fill(temporary), self._halve(temporary)))

        durable.sync_file = lambda path: (self.take(), sync(path))[1]
        durable.replace_file = lambda temporary, final: (self.take(), replace(temporary, final))[1]
        durable.write_atomically = write_atomically
        database.connect = lambda path: Connection(connect(path), self)
        shutil.rmtree = lambda folder, **how: (self.take(), remove(folder, **how), self.take())

    def _halve(self, file: Path) -> None:
        if self.is_next_fatal():
            os.truncate(file, file.stat().st_size // 2)
        self.take()


class Connection:
    """A DuckDB connection with a step before and after each COMMIT and CHECKPOINT, and when parts are retired."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, steps: Steps) -> None:
        self._connection = connection
        self._steps = steps

    def execute(self, sql: str, *parameters: Any) -> Any:
        if sql not in ("COMMIT", "CHECKPOINT", "DELETE FROM retired_parts"):
            return self._connection.execute(sql, *parameters)
        self._steps.take()
        result = self._connection.execute(sql, *parameters)
        self._steps.take()
        return result

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


def write(workspace: Workspace) -> None:
    """The script: what is stored is the same at each start, when it was stored is not."""
    workspace.create()
    with workspace.lock(), Store(workspace) as store:
        store.append("problems", [problem(name) for name in "abc"])
        store.append("recipes", [RECIPE])
        store.append("trajectories", [trajectory(name) for name in "ab"])
        store.publish(force=True)
        store.append("trajectories", [trajectory(name) for name in "bc"])  # one of them is known
        store.append("verdicts", [verdict(name) for name in "abc"])


def age(workspace: Workspace) -> None:
    """Put a database of the first schema in place of the newest, over the same parts."""
    workspace.writer_database.unlink()
    with duckdb.connect(str(workspace.writer_database), config={"storage_compatibility_version": "v1.4.0"}) as old:
        folder = resources.files("heal_core.store")
        old.execute((folder / "meta.sql").read_text())
        old.execute((folder / "migrations" / f"{FIRST_SCHEMA}.sql").read_text())
        old.execute("INSERT INTO migrations VALUES (?, now())", [FIRST_SCHEMA])
        for part in parts.in_order({part: parts.read_header(part) for part in parts.list_parts(workspace.parts)}):
            key, *columns = (name for name, *_ in old.execute(f"DESCRIBE {part.table_name}").fetchall())
            shared = [key, *(name for name in columns if name in parts.read_header(part).columns)]
            if "part_name" in columns:
                shared.append("parse_filename(filename, true) AS part_name")
            rows = f"SELECT {', '.join(shared)} FROM read_parquet('{part.path}', filename = true)"
            old.execute(f"INSERT INTO {part.table_name} BY NAME {rows} ANTI JOIN {part.table_name} USING ({key})")
            old.execute("INSERT INTO parts VALUES (?, ?, 1, 1, now())", [part.part_name, part.table_name])


def open_and_close(workspace: Workspace) -> None:
    with workspace.lock():
        Store(workspace).close()


def use(workspace: Workspace) -> None:
    """Store a run that uses one trajectory and one of two trained stages."""
    for name in ("used", "loose"):
        folder = workspace.checkpoints / name
        folder.mkdir()
        (folder / "model.safetensors").touch()
        (workspace.checkpoints / f"{name}.examples.parquet").touch()
        (workspace.students / "heal").mkdir(exist_ok=True)
        (workspace.students / "heal" / name).symlink_to(f"../../checkpoints/{name}")
    with workspace.lock(), Store(workspace) as store:
        store.append("checkpoints", [checkpoint(name) for name in ("used", "loose")])
        store.append("runs", [RUN])
        store.append("run_rows", [run_row("rollout", "ta", "va"), run_row("checkpoint", "used", None)])
        store.append("run_events", [COMPLETED])


def collect(workspace: Workspace) -> None:
    """What `heal store gc --yes` does."""
    garbage = find_garbage(workspace)
    if not garbage.is_empty:
        remove_garbage(workspace, garbage)


SCRIPTS: dict[str, Script] = {
    "write": (write,),
    "compact": (write, rewrite),
    "rebuild": (write, rebuild),
    "upgrade": (write, age, open_and_close),
    "gc": (write, use, collect),
}
"""What is done one after the other; kills fall into the last, which is then done again."""


RECIPE = {"recipe_id": "r", "kind": "rollout", "model_name_or_path": "m", "settings": "{}"}
RUN = {
    "run_id": "run", "config": "{}", "problems_digest": "d", "seed": 0, "heal_version": "0", "git_revision": None,
    "started_at": datetime(2026, 1, 1, tzinfo=UTC), "basis_id": "run", "attempt": 0, "start_checkpoint_id": None,
    "purpose": "distillation",
}  # fmt: skip
COMPLETED = {
    "event_id": "e", "run_id": "run", "event": "completed", "phase": None, "detail": None,
    "happened_at": datetime(2026, 1, 1, tzinfo=UTC),
}  # fmt: skip


def problem(name: str) -> dict[str, Any]:
    return {
        "problem_id": name, "question": f"{name}?", "answer": "1", "source": "s", "uuid": "",
        "problem_type": "math", "spec": None, "chunk_index": 0,
    }  # fmt: skip


def trajectory(name: str) -> dict[str, Any]:
    ids = [ord(name), 1, 2]
    return {
        "trajectory_id": f"t{name}", "slot_id": f"s{name}", "kind": "rollout", "problem_id": name, "parent_id": None,
        "hint_id": None, "recipe_id": "r", "sample_index": 0, "limit_tokens": 9, "prefix": "", "text": name * 3,
        "finish_reason": "stop", "num_prefix_tokens": 0, "num_tokens": 3, "num_prompt_tokens": 4,
        "num_cached_tokens": None, "entropy_source": None, "entropy_radii": None,  # as of the first schema
        "mean_entropy_nats": 0.5, "mean_logprob_nats": -0.5, "seconds": 0.1, "created_at": datetime.now(UTC),
        "token_ids": ids, "logprobs": [-0.5] * 3, "entropies": [0.5] * 3, "token_starts": [0, 1, 2],
    }  # fmt: skip


def verdict(name: str) -> dict[str, Any]:
    return {
        "verdict_id": f"v{name}", "trajectory_id": f"t{name}", "label": "correct", "extracted": "1", "reason": None,
        "verifier": "math", "verifier_version": "1", "extraction": None,
        "seconds": 0.1, "limit_seconds": None, "created_at": None,
    }  # fmt: skip


def checkpoint(name: str) -> dict[str, Any]:
    return {
        "checkpoint_id": name, "parent_checkpoint_id": None, "stage": "I", "folder": f"checkpoints/{name}",
        "num_examples": 1, "num_dropped_over_long": 0, "num_optimizer_steps": 1, "num_tokens": 1, "loss_first": 0.5,
        "loss_last": 0.5, "seconds": 0.5, "result": "{}",
    }  # fmt: skip


def run_row(kind: str, row_id: str, verdict_id: str | None) -> dict[str, Any]:
    return {
        "run_row_id": row_id, "run_id": "run", "phase": "", "arm": "", "kind": kind, "row_id": row_id, "cut": False,
        "verdict_id": verdict_id,
    }  # fmt: skip


def read(workspace: Workspace) -> dict[str, list[Any]]:
    """Return what readers see: all tables with the token arrays, but not when a row was stored, or in which part."""
    reader = open_reader(workspace)
    tables = {name: f"SELECT * FROM {name} ORDER BY ALL" for name in (*TABLES, "tokens")}
    tables["trajectories"] = "SELECT * EXCLUDE (created_at, part_name) FROM trajectories ORDER BY ALL"
    contents = {name: [list(row) for row in reader.execute(sql).fetchall()] for name, sql in tables.items()}
    ledger = reader.execute("SELECT part_name FROM parts ORDER BY ALL").fetchall()
    files = sorted(part.part_name for part in parts.list_parts(workspace.parts))
    contents["parts without ledger"] = sorted(set(files) ^ {name for (name,) in ledger})
    contents["left over"] = [path.name for path in workspace.root.rglob("*.tmp")]
    for folder in (workspace.checkpoints, workspace.students):
        contents[f"in {folder.name}"] = sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
    reader.close()
    return contents


def check_survivor(
    script: Script, workspace: Workspace, before: dict[str, list[Any]], wanted: dict[str, list[Any]]
) -> list[str]:
    """Return what is wrong with a killed writer's workspace: before the next start, and after it."""
    faults = []
    if workspace.database.exists():
        seen = read(workspace)
        for name in (*TABLES, "tokens"):
            known = wanted[name] + before.get(name, [])
            faults += [f"{name} had other rows"] if any(row not in known for row in seen[name]) else []
        if [row[0] for row in seen["tokens"]] != [row[0] for row in seen["trajectories"]]:
            faults.append("published trajectories lacked their tokens")
    script[-1](workspace)
    after = read(workspace)
    faults += [f"{finding.what}" for finding in check_store(workspace).findings]
    return faults + [
        f"{name}: {after[name]} instead of {wanted[name]}" for name in wanted if after[name] != wanted[name]
    ]


def fork(work: Callable[[], Any], report: Path) -> int:
    """Run `work` in a child, its result as JSON in `report`; return the child's status."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            report.write_text(json.dumps(work(), default=str))
            status = 0
        finally:
            os._exit(status)
    return os.waitpid(child, 0)[1]


def prepare(script: Script, workspace: Workspace) -> dict[str, list[Any]]:
    """Do all but the last act; return what readers see then."""
    for act in script[:-1]:
        act(workspace)
    return read(workspace) if workspace.database.exists() else {}


def run_until(script: Script, prepared: Workspace, workspace: Workspace, fatal: int) -> int:
    """Do the last act in a copy of what was prepared, up to the fatal step; return how many were taken."""
    if prepared.root.exists():
        shutil.copytree(prepared.root, workspace.root, symlinks=True)
    steps = Steps(fatal)
    steps.install()
    script[-1](workspace)
    return steps.taken


def main(script: Script, folder: Path, every: int) -> None:
    pa.Table.from_pylist([{"a": 1}])  # imports what it needs once, not in each of a hundred children
    report = folder / "report.json"
    prepared, undisturbed = Workspace(folder / "prepared"), Workspace(folder / "undisturbed")
    assert fork(lambda: prepare(script, prepared), report) == 0
    before = json.loads(report.read_text())
    assert fork(lambda: run_until(script, prepared, undisturbed, LAST_STEP), report) == 0
    num_steps = json.loads(report.read_text())
    assert fork(lambda: read(undisturbed), report) == 0
    wanted = json.loads(report.read_text())
    failures, num_killed = [], 0
    for fatal in range(0, num_steps, every):
        workspace = Workspace(folder / str(fatal))
        num_killed += fork(lambda at=fatal, w=workspace: run_until(script, prepared, w, at), report) == signal.SIGKILL
        status = fork(lambda w=workspace: check_survivor(script, w, before, wanted), report)
        faults = json.loads(report.read_text()) if status == 0 else [f"the next start failed ({status})"]
        failures += [f"killed at step {fatal}: {fault}" for fault in faults]
    sys.stdout.write(json.dumps({"num_steps": num_steps, "num_killed": num_killed, "failures": failures}))


if __name__ == "__main__":
    main(SCRIPTS[sys.argv[1]], Path(sys.argv[2]), int(sys.argv[3]))
