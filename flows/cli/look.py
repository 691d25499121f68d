"""`heal status`, `heal show`: reading a store, also while a run writes it.

Loads neither torch nor Prefect.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from flows.cli.table import print_rows

WorkspaceOption = Annotated[
    Path, typer.Option("--workspace", "-w", envvar="HEAL_WORKSPACE", help="The folder that holds heal.duckdb.")
]


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


def show(
    trajectory_id: Annotated[str, typer.Argument(help="A trajectory's id, or the beginning of one.")],
    workspace: WorkspaceOption = Path("."),
) -> None:
    """Show a trajectory: its steps with their entropies, the breakpoint, the hint and the repair."""
    from flows.cli.trajectory import print_trajectory
    from heal_core.store.inspect import find_trajectory, open_store

    with open_store(workspace) as store:
        print_trajectory(Console(), find_trajectory(store, trajectory_id))
