"""`heal status`, `heal show`: reading a workspace, also while a run writes it.

Loads neither torch nor Prefect.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from heal_core.errors import in_one_line

if TYPE_CHECKING:
    from heal_core.progress import Progress
    from heal_core.store.workspace import Workspace

WorkspaceOption = Annotated[
    Path, typer.Option("--workspace", "-w", envvar="HEAL_WORKSPACE", help="The folder that holds heal.duckdb.")
]

_SILENT_SECONDS = 60
_MAX_RUNS = 20
_MAX_IMPORTS = 3
_UNBOUNDED = 1_000_000
_STATE_STYLES = {"running": "cyan", "completed": "green", "failed": "red", "interrupted": "yellow"}
_GOES_ON = ("failed", "stopped", "interrupted")
_OPTIONAL_COLUMNS = ("rollouts", "problems")
"""What is left out where the terminal is too narrow, the first one first; --json has everything."""

Row = Mapping[str, Any]


def status(
    workspace: WorkspaceOption = Path("."),
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Show what runs now and how far it is, how each run stands, what was imported, and what a server runs next."""
    from heal_core.store.workspace import Workspace

    layout = Workspace(workspace)
    running = _read_running(layout)
    runs = _read_runs(layout, running)
    imports = _read_imports(layout)
    server = _read_schedule()
    if as_json:
        told = {"running": running, "runs": runs, "imports": imports, **server}
        typer.echo(json.dumps(told, default=str, indent=2))
        return
    console = Console(highlight=False)
    if running:
        _print_running(console, running)
    if runs:
        _print_runs(console, runs, workspace)
    elif not running:
        console.print(_why_there_is_no_run(layout), soft_wrap=True)
    _print_imports(console, imports)
    _print_schedule(console, server)


def show(
    trajectory_id: Annotated[str, typer.Argument(help="A trajectory's id, or the beginning of one.")],
    workspace: WorkspaceOption = Path("."),
) -> None:
    """Show a trajectory: its steps with their entropies, the breakpoint, the hint and the repair."""
    from flows.cli.trajectory import print_trajectory
    from heal_core.store.inspect import find_trajectory, open_store

    with open_store(workspace) as store:
        print_trajectory(Console(), find_trajectory(store, trajectory_id))


# ---- what runs now


def _read_running(workspace: Workspace) -> dict[str, Any] | None:
    """Return the process that holds the workspace, since when, and its progress; None when nothing runs.

    The fields of the progress are None as long as the process has not reported any.
    """
    from heal_core.progress import Progress, read_progress

    process_id = workspace.holder()
    if process_id is None:
        return None
    since = datetime.fromtimestamp(workspace.lock_file.stat().st_mtime, UTC)
    progress = read_progress(workspace.progress)
    fields = dict.fromkeys(field.name for field in dataclasses.fields(Progress))
    if progress is not None and _is_of(progress, process_id, since):
        fields = dataclasses.asdict(progress)
    return {**fields, "process_id": process_id or None, "running_since": since.isoformat(timespec="seconds")}


def _is_of(progress: Progress, process_id: int, since: datetime) -> bool:
    """Return whether a progress is that of the process: an earlier one may have had the same number."""
    updated = datetime.fromisoformat(progress.updated_at)
    return progress.process_id == process_id and updated >= since.replace(microsecond=0)


def _print_running(console: Console, running: Row) -> None:
    from heal_core.progress import Progress

    since = datetime.fromisoformat(running["running_since"])
    process = f"process {running['process_id']}" if running["process_id"] else "a process"
    console.print(f"[bold cyan]running now[/]: {process}, since {_moment(since)} ({_age(since)})", soft_wrap=True)
    if running["run_id"] is None:
        console.print(
            "  it has begun no phase yet, or it is `heal import`, `heal verify` or `heal store`",
            markup=False,
            soft_wrap=True,
        )
        return
    progress = Progress(**{field.name: running[field.name] for field in dataclasses.fields(Progress)})
    updated = datetime.fromisoformat(progress.updated_at)
    silence = f" (as of {_age(updated)} ago)" if _seconds_since(updated) > _SILENT_SECONDS else ""
    console.print(f"  run {progress.run_id}", markup=False, soft_wrap=True)
    console.print(f"  {progress.describe()}{silence}", markup=False, soft_wrap=True)
    if spent := progress.describe_spent():
        console.print(f"  {spent}", markup=False, soft_wrap=True)


# ---- how the runs stand


def _read_runs(workspace: Workspace, running: Row | None) -> list[dict[str, Any]]:
    """Return a row per run; a store that is not published yet has none.

    Raises:
        StoreError: If the folder is no workspace, or its store is damaged.
    """
    from heal_core.store.inspect import open_store, run_overview

    if not workspace.database.exists() and workspace.writer_database.parent.is_dir():
        return []
    with open_store(workspace.root) as store:
        return [{**row, "state": _state(row, running)} for row in run_overview(store)]


def _state(row: Row, running: Row | None) -> str:
    """Return how a run stands, in one word; unfinished where another process has yet to say what it runs."""
    if running and row["run_id"] == running["run_id"] and row["state"] != "completed":
        return "running"
    if row["state"] == "unfinished" and (not running or running["run_id"]):
        return "interrupted"
    return str(row["state"])


def _why_there_is_no_run(workspace: Workspace) -> str:
    if any(workspace.parts.glob("*/*.parquet")) and not workspace.database.exists():
        return (
            f"{workspace.root}: nothing runs, and nothing is published yet: the last start ended before that. "
            "What it stored is safe; the same `heal run` goes on from there."
        )
    return f"{workspace.root}: no run yet. `heal run CONFIG.yaml` starts one."


def _print_runs(console: Console, runs: Sequence[Row], workspace: Path) -> None:
    """Print a line per run, and why those that failed or stopped did; a pipe gets all of it in full."""
    is_terminal = console.is_terminal
    shown = runs[:_MAX_RUNS] if is_terminal else runs
    columns: dict[str, Callable[[Row], str]] = {
        "run": lambda row: row["run_id"],
        "state": _describe_state,
        "last phase": lambda row: row["last_phase"] or "",
        "problems": lambda row: str(row["problems"]),
        "rollouts": lambda row: str(row["rollouts"]),
        "last event": lambda row: _last_event(row, is_terminal),
    }
    for left_out in (None, *_OPTIONAL_COLUMNS):
        columns.pop(left_out or "", None)
        table = _table(columns, shown)
        needed = Measurement.get(console, console.options.update(width=_UNBOUNDED), table).maximum
        if not is_terminal or needed <= console.width:
            break
    if not is_terminal:
        console.width = needed  # a pipe has no width to keep to, and a folded id cannot be copied
    console.print(table)
    if len(runs) > len(shown):
        console.print(f" and {len(runs) - len(shown)} older ones, which --json shows", style="dim")
    for row in shown:
        if remark := _remark(row):
            console.print(f" {row['run_id']} {remark}", markup=False, soft_wrap=not is_terminal)
    if runs[0]["state"] in _GOES_ON:
        console.print(f" to go on with the newest: heal retry {runs[0]['run_id']} -w {workspace}", soft_wrap=True)


def _table(columns: Mapping[str, Callable[[Row], str]], runs: Sequence[Row]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in columns:
        table.add_column(name, justify="right" if name in _OPTIONAL_COLUMNS else "left", overflow="fold")
    for row in runs:
        style = _STATE_STYLES.get(row["state"], "")
        table.add_row(*(Text(cell(row), style if name == "state" else "") for name, cell in columns.items()))
    return table


def _describe_state(row: Row) -> str:
    num = row["quarantined_problems"]
    return f"{row['state']}, {num} quarantined" if row["state"] == "completed" and num else str(row["state"])


def _last_event(row: Row, is_short: bool) -> str:
    when: str = row["last_event"] or ""
    return _moment(datetime.fromisoformat(when).astimezone()) if when and is_short else when


def _remark(row: Row) -> str:
    """Return why a run failed or stopped, in one line; empty for all others."""
    if not row["reason"] or row["state"] not in ("failed", "stopped"):
        return ""
    # an error may quote a model's text, which must not steer the terminal
    words = "".join(sign if sign.isprintable() else " " for sign in in_one_line(row["reason"]))
    return f"{row['state']}: {words}"


# ---- what was brought from elsewhere


def _read_imports(workspace: Workspace) -> list[dict[str, Any]]:
    """Return a row per file of rollouts that was taken in; a store that is not published yet has none."""
    from heal_core.store.inspect import import_overview, open_store

    if not workspace.database.exists():
        return []
    with open_store(workspace.root) as store:
        return import_overview(store)


def _print_imports(console: Console, imports: Sequence[Row]) -> None:
    for row in imports[:_MAX_IMPORTS]:
        there = f", {row['num_there']} were there" if row["num_there"] else ""
        console.print(
            f"imported: {row['source']}, {row['num_imported']} of {row['num_read']} rollouts{there}, "
            f"{row['num_unmatched']} of no problem, {row['num_quarantined']} in quarantine",
            markup=False, highlight=False, soft_wrap=True,
        )  # fmt: skip
    if len(imports) > _MAX_IMPORTS:
        console.print(f" and {len(imports) - _MAX_IMPORTS} files before, which --json shows", style="dim")


# ---- what comes next


def _read_schedule() -> dict[str, Any]:
    """Return the runs that a Prefect server will start, the next one first, those that failed last, and which server.

    A night that failed before it could open its run, such as by a mistake in its config, is known there only.
    """
    from flows.schedule import server_address, server_state

    address = server_address()
    if address is None:
        return {"scheduled": [], "failed": [], "server": None}
    state = server_state(address)
    scheduled = [
        {
            "deployment": deployment.name,
            "flow_run": flow_run.name,
            "flow_run_id": flow_run.flow_run_id,
            "expected_start": flow_run.expected_start.isoformat(timespec="seconds"),
            "is_late": flow_run in deployment.late,
        }
        for deployment in state.deployments
        for flow_run in (*deployment.late, *([deployment.next_run] if deployment.next_run else []))
    ]
    scheduled.sort(key=lambda run: (datetime.fromisoformat(str(run["expected_start"])), run["deployment"]))
    failed = [
        {
            "deployment": deployment.name,
            "flow_run": failure.name,
            "state": failure.state,
            "message": failure.message,
            "ended": failure.ended_at.isoformat(timespec="seconds"),
        }
        for deployment in state.deployments
        if (failure := deployment.failed) is not None
    ]
    return {"scheduled": scheduled, "failed": failed, "server": {"url": state.url, "error": state.error}}


def _print_schedule(console: Console, server: Row) -> None:
    if server["server"] is None:
        return
    url, error = server["server"]["url"], server["server"]["error"]
    if error or not server["scheduled"]:
        words = f"cannot be asked: {error}" if error else "has no run of HEAL's; `heal doctor` says why"
        console.print(f"next: the Prefect server {url} {words}", markup=False, soft_wrap=True)
    for run in server["failed"]:
        ended = _moment(datetime.fromisoformat(run["ended"]))
        words = f"last: {run['deployment']}, {run['state']} {ended}: {in_one_line(run['message'])}"
        console.print(words, style="red", markup=False, soft_wrap=True)
    for run in server["scheduled"]:
        start = datetime.fromisoformat(run["expected_start"])
        words = f"late for {_age(start)}: no worker has taken it" if run["is_late"] else f"in {_age(start)}"
        console.print(f"next: {run['deployment']}, {_moment(start)} ({words})", markup=False, soft_wrap=True)


# ---- times as a person reads them


def _moment(moment: datetime) -> str:
    """Return local time, as short as it stays clear."""
    local, now = moment.astimezone(), datetime.now()
    if local.date() == now.date():
        return f"{local:%H:%M}"
    return f"{local:%b} {local.day} {local:%H:%M}" if local.year == now.year else f"{local:%Y-%m-%d}"


def _age(moment: datetime) -> str:
    """Return how far a moment is from now, before or after it."""
    from heal_core.progress import describe_seconds

    return describe_seconds(abs(_seconds_since(moment)))


def _seconds_since(moment: datetime) -> float:
    return (datetime.now(UTC) - moment).total_seconds()
