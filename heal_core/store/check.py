"""Is a workspace sound? Every part, both databases, every row, reference and checkpoint, one by one.

Nothing is changed, so that it can be asked of a backup too: of one without databases, the
files are checked. What does not belong here: mending (`rewrite`), and what no run needs
(`garbage`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import duckdb
import pyarrow as pa

from heal_core.errors import StoreError
from heal_core.sft.folders import find_faults
from heal_core.store.database import Connection, newest_schema, table_schemas
from heal_core.store.parts import ENTROPY_RADII, TOKEN_ARRAYS, Part, check_digest, list_parts, read_header
from heal_core.store.workspace import Workspace

_REBUILD = "Run `heal store rebuild`."
_RESTORE = "Restore the parts from a backup, or run the run's config again: what it lacks is made anew."
_TRAIN = "Restore it from a backup, or delete the folder: it is trained again when a run needs it."
_NAMED = 3
_KEY = re.compile("[0-9a-f]{32}")
"""The name of a finished stage's folder: a content key."""

_REFERENCES = (
    ("trajectories", "problem_id", "problems"),
    ("trajectories", "recipe_id", "recipes"),
    ("trajectories", "parent_id", "trajectories"),
    ("trajectories", "hint_id", "trajectories"),
    ("verdicts", "trajectory_id", "trajectories"),
    ("profiles", "trajectory_id", "trajectories"),
    ("scores", "trajectory_id", "trajectories"),
    ("scores", "recipe_id", "recipes"),
    ("checkpoints", "parent_checkpoint_id", "checkpoints"),
    ("run_problems", "run_id", "runs"),
    ("run_problems", "problem_id", "problems"),
    ("run_rows", "run_id", "runs"),
    ("run_rows", "verdict_id", "verdicts"),
    ("run_events", "run_id", "runs"),
    ("run_sources", "run_id", "runs"),
    ("run_evaluation_sets", "run_id", "runs"),
    ("contamination", "run_id", "runs"),
    ("decisions", "run_id", "runs"),
    ("decisions", "problem_id", "problems"),
    ("gate_results", "run_id", "runs"),
    ("gate_results", "trajectory_id", "trajectories"),
    ("audit_labels", "run_id", "runs"),
    ("audit_labels", "trajectory_id", "trajectories"),
    ("stage_examples", "run_id", "runs"),
    ("stage_examples", "trajectory_id", "trajectories"),
    ("evaluations", "run_id", "runs"),
    ("eval_pass_at", "run_id", "runs"),
    ("eval_contrasts", "run_id", "runs"),
    ("run_lm_evals", "run_id", "runs"),
    ("validity_tests", "run_id", "runs"),
    ("validity_texts", "run_id", "runs"),
    ("validity_texts", "trajectory_id", "trajectories"),
    ("validity_texts", "hint_id", "trajectories"),
    ("validity_texts", "score_id", "scores"),
    ("validity_aurocs", "run_id", "runs"),
    ("quarantine", "run_id", "runs"),
    ("quarantine", "problem_id", "problems"),
    ("runs", "start_checkpoint_id", "checkpoints"),
    ("promotions", "run_id", "runs"),
    ("promotions", "checkpoint_id", "checkpoints"),
    ("import_rows", "trajectory_id", "trajectories"),
)
"""(table, column, the table whose content key it holds)."""

_USED_ROWS = {
    "score": "scores",
    "control_score": "scores",
    "validity_score": "scores",
    "checkpoint": "checkpoints",
}
"""The table of `run_rows.row_id` by `kind`; all other kinds are trajectories."""


class Severity(StrEnum):
    """`damage`: something stored is lost or changed. `note`: something left over that hurts nothing."""

    DAMAGE = "damage"
    NOTE = "note"


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be, with the remedy."""

    severity: Severity
    what: str
    remedy: str


@dataclass(frozen=True)
class CheckReport:
    """What was looked at, and what was found.

    Attributes:
        num_parts: Files in `parts/`.
        num_rows: Rows of the database; of the sound parts where it cannot be read.
        num_checkpoints: Folders of finished stages.
        findings: What is not as it should be.
    """

    num_parts: int
    num_rows: int
    num_checkpoints: int
    findings: tuple[Finding, ...]

    @property
    def is_sound(self) -> bool:
        return not any(finding.severity is Severity.DAMAGE for finding in self.findings)


def check_store(workspace: Workspace) -> CheckReport:
    """Return what is wrong with a workspace; its lock is taken if it has one, and nothing is changed.

    Raises:
        WorkspaceBusyError: If a run holds the workspace.
        StoreError: If there is no store, it cannot be locked, or another process has a database open.
    """
    if not workspace.parts.is_dir():
        raise StoreError(f"no store in {workspace.root}: expected a folder `parts` there. Give its --workspace.")
    has_store = workspace.writer_database.parent.is_dir()
    with workspace.lock() if has_store else nullcontext():  # no run can be going on without the folder
        parts = list_parts(workspace.parts)
        findings, sound = _check_files(parts)
        trained = [path for path in _entries(workspace.checkpoints) if path.is_dir() and _KEY.fullmatch(path.name)]
        findings += _check_trained(trained)
        num_rows = sum(read_header(part).num_rows for part in sound)
        is_new = not parts and not workspace.writer_database.exists() and not workspace.database.exists()
        if is_new:
            findings.append(Finding(Severity.NOTE, "nothing has been stored so far", "Start a run: heal run CONFIG."))
        elif has_store:
            found, num_rows = _check_index(workspace, parts, sound, num_rows)
            findings += found
        else:
            findings.append(Finding(Severity.NOTE, "there is no folder store/: only files were checked", _REBUILD))
        if (has_store and not is_new) or workspace.database.exists():
            findings += _check_published(workspace)
        findings += _check_leftovers(workspace)
    return CheckReport(len(parts), num_rows, len(trained), tuple(findings))


def _check_files(parts: Sequence[Part]) -> tuple[list[Finding], list[Part]]:
    """Return what is wrong with the bytes of parts, and the parts that are sound."""

    def fault(part: Part) -> str | None:
        try:
            check_digest(part)
            read_header(part)
        except StoreError as error:
            return str(error)
        return None

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        faults = dict(zip(parts, threads.map(fault, parts), strict=True))
    findings = [_damage(said.partition(". Restore ")[0], "Restore it from a backup, or run `heal store rebuild "
                        "--set-damaged-aside`.") for said in faults.values() if said]  # fmt: skip
    return findings, [part for part in parts if not faults[part]]


def _check_trained(trained: Sequence[Path]) -> Iterator[Finding]:
    for folder in trained:
        if faults := find_faults(folder):
            yield _damage(f"checkpoint {folder.name} is damaged: {_names(faults)}", _TRAIN)


def _check_index(
    workspace: Workspace, parts: Sequence[Part], sound: Sequence[Part], num_rows: int
) -> tuple[list[Finding], int]:
    """Return what is wrong with the writer's database, and its rows: `num_rows` where it cannot be read."""
    try:
        with duckdb.connect(str(workspace.writer_database), read_only=True) as connection:
            _read_all(connection)
            findings = _check_database(connection, workspace, parts, sound)
            return findings, sum(_count(connection, table) for table in table_schemas(connection))
    except duckdb.Error as error:
        return [_unreadable(workspace.writer_database, error)], num_rows


def _check_published(workspace: Workspace) -> list[Finding]:
    """Return whether the published copy can be read; it may be older than the writer's after a kill."""
    try:
        with duckdb.connect(str(workspace.database), read_only=True) as connection:
            _read_all(connection)
    except duckdb.Error as error:
        return [_unreadable(workspace.database, error)]
    return []


def _read_all(connection: Connection) -> None:
    """Read all columns of all tables; DuckDB compares each block with its checksum as it reads it.

    Raises:
        duckdb.Error: If one cannot be read.
    """
    for (table,) in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall():
        connection.execute(f"SELECT bit_xor(hash(whole_row)) FROM {table} AS whole_row").fetchall()


def _unreadable(database: Path, error: duckdb.Error) -> Finding:
    """Return the finding.

    Raises:
        StoreError: If the database is only open elsewhere.
    """
    said = str(error).splitlines()[0]
    if "Could not set lock" in said:
        raise StoreError(f"{database} is open in another process ({said}). Close it there, and check again.") from error
    return _damage(f"{database} cannot be read: {said}", _REBUILD)


def _check_database(
    connection: Connection, workspace: Workspace, parts: Sequence[Part], sound: Sequence[Part]
) -> list[Finding]:
    applied = {name for (name,) in connection.execute("SELECT name FROM migrations").fetchall()}
    if newest_schema() not in applied:
        return [Finding(Severity.NOTE, f"the database has the schema {max(applied)}", "The next run upgrades it.")]
    findings = _check_ledger(connection, parts)
    schemas = table_schemas(connection)
    merged = _merged(connection)
    by_table: dict[str, list[Part]] = {}
    for part in sound:
        if part.part_name in merged and part.table_name in schemas:
            by_table.setdefault(part.table_name, []).append(part)
    # the rows of a damaged part are missing there, which is no news
    damaged = {part.table_name for part in set(parts) - set(sound)}
    for table, schema in schemas.items():
        if table not in damaged:
            findings += _check_rows(connection, table, schema, by_table.get(table, []))
    if "trajectories" in by_table:
        findings += _check_arrays(connection, by_table["trajectories"])
    findings += _check_references(connection)
    findings += _check_checkpoints(connection, workspace)
    return findings


def _check_ledger(connection: Connection, parts: Sequence[Part]) -> list[Finding]:
    merged = _merged(connection)
    retired = {name for (name,) in connection.execute("SELECT part_name FROM retired_parts").fetchall()}
    files = {part.part_name for part in parts}
    findings = []
    if gone := sorted(merged - files):
        findings.append(_damage(f"merged parts are gone: {_names(gone)}", f"Restore them from a backup. {_REBUILD}"))
    if waiting := sorted(files - merged - retired):
        findings.append(Finding(Severity.NOTE, f"parts not merged yet: {_names(waiting)}", "The next run merges them."))
    return findings


def _check_rows(connection: Connection, table: str, schema: pa.Schema, parts: Sequence[Part]) -> Iterator[Finding]:
    """Yield rows that the database has otherwise than the parts, or only one of both has."""
    key = schema.names[0]
    doubled = f"SELECT {key} FROM {table} GROUP BY {key} HAVING count(*) > 1"
    yield from _rows_found(connection, doubled, [], f"rows of {table} are there twice", _REBUILD)
    if not parts:
        yield from _rows_found(
            connection, f"SELECT {key} FROM {table}", [], f"rows of {table} are in no part", _REBUILD
        )
        return
    files = [[str(part.path) for part in parts]]
    source = "read_parquet(?, union_by_name = true, filename = true)"
    lost = f"SELECT {key} FROM {source} ANTI JOIN {table} USING ({key})"
    yield from _rows_found(connection, lost, files, f"rows of {table} are in parts only", _REBUILD)
    held = {name for part in parts for name in read_header(part).columns}
    # runs from before schema 0002 were given their verdicts when they were merged
    compared = [name for name in schema.names if name in held and (table, name) != ("run_rows", "verdict_id")]
    ours = ", ".join(
        f"{name}::VARCHAR AS {name}" if schema.field(name).type == pa.string() else name for name in compared
    )
    part_name = (", part_name", ", parse_filename(filename, true)") if table == "trajectories" else ("", "")
    changed = (
        f"SELECT {key} FROM (SELECT {ours}{part_name[0]} FROM {table} "
        f"EXCEPT SELECT {', '.join(compared)}{part_name[1]} FROM {source})"
    )
    yield from _rows_found(connection, changed, files, f"rows of {table} differ from those of the parts", _REBUILD)


def _check_arrays(connection: Connection, parts: Sequence[Part]) -> Iterator[Finding]:
    radii = [ENTROPY_RADII.name for part in parts if ENTROPY_RADII.name in read_header(part).columns][:1]
    aligned = " AND ".join(f"coalesce(len({name}), num_tokens) = num_tokens" for name in [*TOKEN_ARRAYS.names, *radii])
    floats = ["logprobs", "entropies", *radii]
    finite = " AND ".join(f"coalesce(NOT list_bool_or([not isfinite(x) for x in {name}]), true)" for name in floats)
    sql = (
        f"SELECT trajectory_id FROM read_parquet(?, union_by_name = true) "
        f"WHERE NOT ({aligned}) OR NOT coalesce({finite}, true)"
    )
    yield from _rows_found(
        connection, sql, [[str(part.path) for part in parts]],
        "trajectories have token arrays that are not aligned or not finite", "Report it: HEAL has written them so.",
    )  # fmt: skip


def _check_references(connection: Connection) -> Iterator[Finding]:
    """Yield orphans: rows that name a row that is not there."""
    schemas = table_schemas(connection)
    for table, column, target in _REFERENCES:
        key = schemas[target].names[0]
        sql = (
            f"SELECT {schemas[table].names[0]} FROM {table} "
            f"WHERE {column} <> '' AND {column} NOT IN (SELECT {key} FROM {target})"
        )
        yield from _rows_found(connection, sql, [], f"rows of {table} have a {column} that is not there", _RESTORE)
    for kind in connection.execute("SELECT DISTINCT kind FROM run_rows ORDER BY ALL").fetchall():
        target = _USED_ROWS.get(kind[0], "trajectories")
        key = schemas[target].names[0]
        sql = f"SELECT row_id FROM run_rows WHERE kind = ? AND row_id NOT IN (SELECT {key} FROM {target})"
        yield from _rows_found(connection, sql, [kind[0]], f"runs use a {kind[0]} that is not there", _RESTORE)


def _check_checkpoints(connection: Connection, workspace: Workspace) -> Iterator[Finding]:
    rows = connection.execute("SELECT checkpoint_id, folder FROM checkpoints").fetchall()
    if gone := sorted(name for name, folder in rows if not (workspace.root / folder).is_dir()):
        yield _damage(
            f"folders of checkpoints are gone: {_names(gone)}", "They are trained again when a run needs them."
        )
    known = {Path(folder).name for _, folder in rows}
    stray = [path.name for path in _entries(workspace.checkpoints) if path.name.partition(".")[0] not in known]
    if stray:
        yield Finding(
            Severity.NOTE, f"in checkpoints/ without a row: {_names(stray)}",
            "A stage that was killed goes on from there; `heal store gc` removes it when no run needs it.",
        )  # fmt: skip


def _check_leftovers(workspace: Workspace) -> Iterator[Finding]:
    store = workspace.writer_database.parent
    left = [*workspace.root.glob("*.tmp"), *store.glob("*.tmp"), *workspace.parts.glob("*/*.tmp")]
    left += [*store.glob("*.damaged"), *store.glob("rebuild.duckdb*")]
    if left:
        names = _names(str(path.relative_to(workspace.root)) for path in left)
        yield Finding(Severity.NOTE, f"left over by a kill or set aside: {names}", "It may be deleted.")
    strangers = [p for p in workspace.parts.rglob("*") if p.is_file() and p.suffix not in (".parquet", ".tmp")]
    if strangers:
        yield Finding(Severity.NOTE, f"in parts/, but none: {_names(p.name for p in strangers)}", "Move it elsewhere.")


def _rows_found(
    connection: Connection, sql: str, parameters: Sequence[object], what: str, remedy: str
) -> list[Finding]:
    rows = connection.execute(sql, parameters).fetchall()
    return [_damage(f"{what}: {_names(str(row[0]) for row in rows)}", remedy)] if rows else []


def _merged(connection: Connection) -> set[str]:
    return {name for (name,) in connection.execute("SELECT part_name FROM parts").fetchall()}


def _entries(folder: Path) -> Iterable[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _count(connection: Connection, table: str) -> int:
    (row,) = connection.execute(f"SELECT count(*) FROM {table}").fetchall()
    return int(row[0])


def _names(found: Iterable[str]) -> str:
    """Return how many there are, and the first few."""
    names = sorted(found)
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{len(names)} ({', '.join(names[:_NAMED])}{more})"


def _damage(what: str, remedy: str) -> Finding:
    return Finding(Severity.DAMAGE, what, remedy)
