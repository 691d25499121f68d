"""`heal store`: check, rebuild, compact, clean up and measure a workspace. Loads neither torch nor Prefect."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from flows.cli.look import WorkspaceOption
from flows.cli.table import print_rows

app = typer.Typer(
    name="store",
    help="Check, rebuild, compact and clean up the store of a workspace. No run may be going on (but for `size`).",
    no_args_is_help=True,
)
_ALWAYS_KEPT = "problems and recipes are always kept"
JsonOption = Annotated[bool, typer.Option("--json", help="Print as JSON.")]


@app.command()
def check(workspace: WorkspaceOption = Path("."), as_json: JsonOption = False) -> None:
    """Verify every part, row, reference and checkpoint; change nothing. Exit code 1 if something is damaged."""
    from heal_core.store.check import check_store
    from heal_core.store.workspace import Workspace

    report = check_store(Workspace(workspace))
    if as_json:
        typer.echo(json.dumps({**dataclasses.asdict(report), "is_sound": report.is_sound}, indent=2))
    else:
        console = Console()
        for finding in report.findings:
            style = "bold red" if finding.severity == "damage" else "yellow"
            console.print(f"[{style}]{finding.severity}[/] ", end="")
            console.print(f"{finding.what}. {finding.remedy}", markup=False, highlight=False, soft_wrap=True)
        word = "sound" if report.is_sound else "DAMAGED"
        looked_at = f"{report.num_parts} parts, {report.num_rows} rows, {report.num_checkpoints} checkpoints"
        console.print(f"{looked_at}: {word}", highlight=False)
    if not report.is_sound:
        raise typer.Exit(1)


@app.command()
def rebuild(
    workspace: WorkspaceOption = Path("."),
    set_damaged_aside: Annotated[
        bool, typer.Option(help="Move damaged parts to damaged/ and go on without their rows.")
    ] = False,
) -> None:
    """Make the database anew from the parts, which are the truth. The old one stays until the new one is whole."""
    from heal_core.store.rewrite import rebuild as rebuild_store
    from heal_core.store.workspace import Workspace

    started = time.monotonic()
    place = _existing(workspace)
    damaged = rebuild_store(Workspace(place), set_damaged_aside)
    num_parts = len(list(Workspace(place).parts.glob("*/*.parquet")))
    typer.echo(f"rebuilt from {num_parts} parts in {time.monotonic() - started:.1f} s")
    for part in damaged:
        typer.echo(f"set aside: {part.table_name}/{part.path.name}; its rows are made again by runs that need them")


@app.command()
def compact(workspace: WorkspaceOption = Path(".")) -> None:
    """Join small parts into larger ones. All rows stay as they are."""
    from heal_core.store.rewrite import rewrite
    from heal_core.store.workspace import Workspace

    _print_rewritten(rewrite(Workspace(_existing(workspace))))


@app.command()
def size(workspace: WorkspaceOption = Path("."), as_json: JsonOption = False) -> None:
    """Show what takes room on the disk; works during a run too."""
    from heal_core.store.size import measure_size
    from heal_core.store.workspace import Workspace

    rows = [dataclasses.asdict(row) for row in measure_size(Workspace(_existing(workspace)))]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    total = {"what": "total"} | {key: sum(row[key] for row in rows) for key in ("num_files", "num_bytes")}
    shown = [{**row, "size": _megabytes(row["num_bytes"])} for row in [*rows, total]]
    print_rows(shown, ["what", "num_files", "size"])


@app.command()
def gc(
    workspace: WorkspaceOption = Path("."),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would go, and remove nothing.")] = False,
    forget: Annotated[
        list[str] | None,
        typer.Option(
            metavar="RUN_ID", help="Treat this run as gone, too, and ablations that it is part of. May be repeated."
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove samples and checkpoints that no run refers to. An unfinished run keeps its own: finish or --forget it."""
    from heal_core.store.garbage import find_garbage, remove_garbage
    from heal_core.store.workspace import Workspace

    place = Workspace(_existing(workspace))
    garbage = find_garbage(place, forget or [])
    if garbage.unfinished_runs:
        runs = ", ".join(garbage.unfinished_runs)
        typer.echo(f"kept for unfinished runs: samples of their problems, and all checkpoints ({runs})")
    if garbage.is_empty:
        typer.echo("nothing to remove: every sample and checkpoint is referred to by a run, or kept for one")
        typer.echo(_ALWAYS_KEPT)
        return
    rows: list[dict[str, Any]] = [{"what": table, "number": len(ids)} for table, ids in garbage.rows.items()]
    if garbage.folders:
        rows.append({"what": f"in checkpoints/ ({_megabytes(garbage.folder_bytes)})", "number": len(garbage.folders)})
    print_rows(rows, ["what", "number"])
    typer.echo(f"{garbage.num_tokens} sampled tokens, {_megabytes(garbage.folder_bytes)} of checkpoints")
    if dry_run:
        typer.echo("nothing was removed (--dry-run)")
        return
    if not yes and not (sys.stdin.isatty() and typer.confirm("Remove it for good?")):
        typer.echo("nothing was removed; add --yes to remove it without a question")
        return
    _print_rewritten(remove_garbage(place, garbage))
    typer.echo(_ALWAYS_KEPT)


def _print_rewritten(rewritten: Any) -> None:
    typer.echo(
        f"parts: {rewritten.parts_before} before, {rewritten.parts_after} after; "
        f"{_megabytes(rewritten.bytes_before)} before, {_megabytes(rewritten.bytes_after)} after; "
        f"{rewritten.rows_dropped} rows left out"
    )


def _existing(workspace: Path) -> Path:
    """Return the folder, if it is a workspace.

    Raises:
        StoreError: If it is none; a mistyped path must not become a new workspace.
    """
    from heal_core.errors import StoreError

    if not (workspace / "parts").is_dir():
        raise StoreError(f"{workspace.absolute()} is no workspace: it has no folder `parts`. Give its --workspace.")
    return workspace


def _megabytes(num_bytes: int) -> str:
    return f"{num_bytes / 2**20:,.1f} MiB"
