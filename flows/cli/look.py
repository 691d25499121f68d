"""`heal status`, `heal sql`, `heal show`: reading a store, also while a run writes it.

Loads neither torch nor Prefect.
"""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

WorkspaceOption = Annotated[
    Path, typer.Option("--workspace", "-w", envvar="HEAL_WORKSPACE", help="The folder that holds heal.duckdb.")
]


class Format(StrEnum):
    TABLE = "table"
    JSON = "json"
    CSV = "csv"


def status(
    workspace: WorkspaceOption = Path("."),
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Show each run: how far it is, what it holds, when something last happened."""
    from heal_core.store.inspect import open_store, run_overview

    with open_store(workspace) as store:
        rows = run_overview(store)
    if as_json:
        typer.echo(json.dumps(rows, default=str, indent=2))
    else:
        # what fits 80 columns; --json has the rest
        print_rows(rows, ["run_id", "state", "last_phase", "problems", "rollouts", "last_event"])


def sql(
    query: Annotated[str, typer.Argument(help="One SQL query; `SHOW ALL TABLES` lists what there is.")],
    workspace: WorkspaceOption = Path("."),
    output: Annotated[Format, typer.Option("--format", "-f", help="table, json or csv.")] = Format.TABLE,
) -> None:
    """Query the store with SQL, read-only."""
    from heal_core.store.inspect import open_store, run_query

    with open_store(workspace) as store:
        columns, rows = run_query(store, query)
    if output is Format.JSON:
        typer.echo(json.dumps([dict(zip(columns, row, strict=True)) for row in rows], default=str, indent=2))
    elif output is Format.CSV:
        import csv

        writer = csv.writer(sys.stdout)
        writer.writerow(columns)
        writer.writerows(rows)
    else:
        print_rows([dict(zip(columns, row, strict=True)) for row in rows], columns)


def show(
    trajectory_id: Annotated[str, typer.Argument(help="A trajectory's id, or the beginning of one.")],
    workspace: WorkspaceOption = Path("."),
) -> None:
    """Show a trajectory: its steps with their entropies, the breakpoint, the hint and the repair."""
    from flows.cli.trajectory import print_trajectory
    from heal_core.store.inspect import find_trajectory, open_store

    with open_store(workspace) as store:
        print_trajectory(Console(), find_trajectory(store, trajectory_id))


def print_rows(rows: list[dict[str, Any]], columns: list[str]) -> None:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*("" if row[column] is None else _cell(row[column]) for column in columns))
    # a pipe or a file has no width to keep to, and a folded id cannot be copied
    console = Console(width=None if sys.stdout.isatty() else 1000)
    console.print(table, markup=False)
    console.print(f"{len(rows)} row{'' if len(rows) == 1 else 's'}", style="dim")


def _cell(value: Any) -> Any:
    from rich.text import Text

    return Text(f"{value:.4g}" if isinstance(value, float) else str(value))
