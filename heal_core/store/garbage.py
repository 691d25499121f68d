"""What no run refers to, and removing it.

A row lives as long as a run uses it, or a row that a run uses names it. Verdicts, profiles and scores live and die
with their trajectory, an ablation with each of its runs. As long as a run is unfinished, nothing of its problems is
garbage, and no checkpoint is. Problems and recipes are never garbage: a problem that comes back has to find its chunk
again, which no other may take. Nor are imported rollouts, which no run can make again.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from heal_core.errors import InputError, StoreError
from heal_core.store import durable
from heal_core.store.reads import read_best_students, read_makers, read_promoted
from heal_core.store.rewrite import Rewritten, rewrite_locked
from heal_core.store.size import folder_bytes
from heal_core.store.store import Store
from heal_core.store.students import link_newest
from heal_core.store.workspace import Workspace

_RUN_TABLES = (
    "runs", "run_events", "run_problems", "run_rows", "decisions", "stage_examples", "evaluations", "quarantine",
    "promotions", "run_sources", "run_evaluation_sets", "contamination", "eval_pass_at", "eval_contrasts",
    "run_lm_evals", "validity_tests", "validity_texts", "validity_aurocs", "gate_results", "audit_labels",
)  # fmt: skip
_ABLATION_TABLES = ("ablations", "ablation_runs", "ablation_scores", "ablation_contrasts")
_HANGING = ("verdicts", "profiles", "scores")
_GONE_ABLATIONS = (
    "SELECT ablation_id FROM ablation_runs WHERE run_id IN (FROM forgotten) OR run_id NOT IN (SELECT run_id FROM runs)"
)
_REMOVED_FOLDER = ".removed"

_USED = """
CREATE OR REPLACE TEMP TABLE used AS
WITH RECURSIVE named(id) AS (
    SELECT row_id FROM run_rows WHERE run_id NOT IN (FROM forgotten)
    UNION SELECT subject_id FROM decisions WHERE run_id NOT IN (FROM forgotten)
    UNION SELECT trajectory_id FROM stage_examples WHERE run_id NOT IN (FROM forgotten)
    UNION SELECT trajectory_id FROM scores
          WHERE score_id IN (SELECT row_id FROM run_rows WHERE run_id NOT IN (FROM forgotten))
    -- the latest student and the one that later ones are compared with
    UNION SELECT last(checkpoint_id ORDER BY rowid) FROM promotions
          WHERE decision = 'promoted' AND run_id NOT IN (FROM forgotten)
    UNION SELECT last(checkpoint_id ORDER BY rowid) FROM promotions
          WHERE becomes_best AND run_id NOT IN (FROM forgotten)
    UNION SELECT start_checkpoint_id FROM runs WHERE run_id NOT IN (FROM forgotten)
    -- what a user brought is his: no run could make it again
    UNION SELECT trajectory_id FROM import_rows
    UNION SELECT parent FROM named JOIN (
        SELECT trajectory_id AS id, unnest([parent_id, hint_id]) AS parent FROM trajectories
        UNION ALL SELECT checkpoint_id, parent_checkpoint_id FROM checkpoints
    ) USING (id) WHERE parent IS NOT NULL
)
SELECT DISTINCT id FROM named WHERE id IS NOT NULL
"""


@dataclass(frozen=True)
class Garbage:
    """What may go.

    Attributes:
        rows: By table, the content keys of rows that no run refers to, sorted.
        num_tokens: Sampled tokens of the trajectories among them.
        folders: What lies in `checkpoints/` for no run.
        folder_bytes: Their size.
        unfinished_runs: Runs that protect what is theirs.
        forgotten: Runs that were to count as gone.
    """

    rows: dict[str, list[str]]
    num_tokens: int
    folders: tuple[Path, ...]
    folder_bytes: int
    unfinished_runs: tuple[str, ...]
    forgotten: tuple[str, ...]

    @property
    def is_empty(self) -> bool:
        return not any(self.rows.values()) and not self.folders


def find_garbage(workspace: Workspace, forget: Sequence[str] = ()) -> Garbage:
    """Return what no run refers to; the workspace's lock is taken, and nothing is removed.

    Args:
        workspace: Where to look.
        forget: Ids of runs that count as gone; their own rows are garbage too.

    Raises:
        InputError: If there is no such run.
        WorkspaceBusyError: If a run holds the workspace.
    """
    with workspace.lock(), Store(workspace) as store:
        return _find(store, forget)


def remove_garbage(workspace: Workspace, garbage: Garbage) -> Rewritten:
    """Remove exactly what was found; return what became of the parts.

    Raises:
        WorkspaceBusyError: If a run holds the workspace.
        StoreError: If other things are garbage by now, or a part is damaged; nothing is removed then.
    """
    with workspace.lock():
        with Store(workspace) as store:
            now = _find(store, garbage.forgotten)
            schemas = {table: store.part_schema(table) for table in store.tables}
        if (now.rows, now.folders) != (garbage.rows, garbage.folders):
            raise StoreError(
                "what no run refers to has changed since it was looked for, so nothing was removed. "
                "Run `heal store gc` again."
            )
        rewritten = rewrite_locked(workspace, schemas, garbage.rows)
        _remove_links(workspace, garbage.folders)
        _remove_folders(workspace, garbage.folders)
        with Store(workspace) as store:
            link_newest(store)
    return rewritten


def _remove_links(workspace: Workspace, folders: Iterable[Path]) -> None:
    """Remove links to folders that go, which later could no longer be told, and to what is gone."""
    going = {path.resolve() for path in folders}
    for link in workspace.students.glob("*/*"):
        if link.is_symlink() and (link.resolve() in going or not link.exists()):
            link.unlink()


def _remove_folders(workspace: Workspace, folders: Sequence[Path]) -> None:
    """Remove what lies in `checkpoints/`, moved away first: half a stage under its name would pass for finished."""
    removed = workspace.checkpoints / _REMOVED_FOLDER
    shutil.rmtree(removed, ignore_errors=True)  # of a gc that was killed
    removed.mkdir(exist_ok=True)
    for path in folders:
        if path != removed:
            durable.replace_file(path, removed / path.name)
    durable.sync_file(workspace.checkpoints)
    shutil.rmtree(removed)


def _find(store: Store, forget: Sequence[str]) -> Garbage:
    known = {row["run_id"] for row in store.rows("SELECT run_id FROM runs")}
    if unknown := sorted(set(forget) - known):
        raise InputError(f"there is no run {', '.join(unknown)}; `heal status` lists them: {', '.join(sorted(known))}.")
    if known - set(forget):
        _check_forgettable(store, forget)
    store.rows("CREATE OR REPLACE TEMP TABLE forgotten (run_id VARCHAR)")
    for run_id in forget:
        store.rows("INSERT INTO forgotten VALUES (?)", [run_id])
    store.rows(_USED)
    unfinished = [
        row["run_id"]
        for row in store.rows(
            "SELECT run_id FROM run_status WHERE completed IS NOT TRUE AND run_id NOT IN (FROM forgotten) ORDER BY ALL"
        )
    ]
    rows = {"trajectories": _ids(store, _GARBAGE_TRAJECTORIES)}
    store.rows(f"CREATE OR REPLACE TEMP TABLE gone AS {_GARBAGE_TRAJECTORIES}")
    for table in _HANGING:
        key = store.part_schema(table).names[0]
        rows[table] = _ids(store, f"SELECT {key} FROM {table} WHERE trajectory_id IN (FROM gone)")
    for table in _RUN_TABLES:
        key = store.part_schema(table).names[0]
        rows[table] = _ids(store, f"SELECT {key} FROM {table} WHERE run_id IN (FROM forgotten)")
    for table in _ABLATION_TABLES:  # with one of its runs gone, nobody could follow an ablation's figures
        key = store.part_schema(table).names[0]
        rows[table] = _ids(store, f"SELECT {key} FROM {table} WHERE ablation_id IN ({_GONE_ABLATIONS})")
    rows["checkpoints"] = [] if unfinished else _ids(
        store, "SELECT checkpoint_id FROM checkpoints WHERE checkpoint_id NOT IN (FROM used)"
    )  # fmt: skip
    folders = () if unfinished else _stray_folders(store, set(rows["checkpoints"]))
    (tokens,) = store.rows(
        "SELECT coalesce(sum(num_tokens), 0)::BIGINT AS num FROM trajectories WHERE trajectory_id IN (FROM gone)"
    )
    return Garbage(
        {table: ids for table, ids in rows.items() if ids},
        tokens["num"],
        folders,
        sum(folder_bytes(path) for path in folders),
        tuple(unfinished),
        tuple(forget),
    )


def _check_forgettable(store: Store, forget: Sequence[str]) -> None:
    """Check that the runs made neither the latest student nor the best, nor what these began from."""
    students = {row["checkpoint_id"] for row in (read_promoted(store),) if row} | set(read_best_students(store)[:1])
    line = {row["run_id"] for row in read_makers(store, sorted(students))}
    if needed := sorted(line & set(forget)):
        raise InputError(
            f"run {', '.join(needed)} made students/latest, or the best student that later ones are compared with, "
            "or one that these started from. It can be forgotten once another student has taken their place."
        )


_GARBAGE_TRAJECTORIES = """
SELECT trajectory_id FROM trajectories WHERE trajectory_id NOT IN (FROM used)
AND problem_id NOT IN (
    SELECT problem_id FROM run_problems JOIN run_status USING (run_id)
    WHERE completed IS NOT TRUE AND run_id NOT IN (FROM forgotten)
)
"""


def _ids(store: Store, sql: str) -> list[str]:
    return sorted(str(value) for row in store.rows(sql) for value in row.values())


def _stray_folders(store: Store, gone: set[str]) -> tuple[Path, ...]:
    """Return what lies in `checkpoints/` for a checkpoint that is gone or has no row."""
    kept = {row["checkpoint_id"] for row in store.rows("SELECT checkpoint_id FROM checkpoints")} - gone
    entries = sorted(store.workspace.checkpoints.glob("*"))
    return tuple(path for path in entries if path.name.partition(".")[0] not in kept)
