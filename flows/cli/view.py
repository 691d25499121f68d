"""`heal view`: a run in the browser, as its store has it now. Loads neither torch nor Prefect."""

from __future__ import annotations

import os
import sys
import threading
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.look import WorkspaceOption
from flows.cli.report import RunArgument

PORT = 8510


def view(
    run: RunArgument = "last",
    workspace: WorkspaceOption = Path("."),
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="Of this machine alone; 0: any that is free.")
    ] = PORT,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Only print the address.")] = False,
) -> None:
    """Show a run in the browser: the report over the live store, all its trajectories, and search by SQL.

    It works while a run writes, and changes nothing; Ctrl-C ends it. Only this
    machine can reach it, and only with the address that is printed. From
    another one: ssh -L 8510:127.0.0.1:8510 MACHINE, with the same port twice.
    """
    from rich.console import Console

    from heal_core import interruption
    from heal_core.errors import InputError
    from heal_core.store.compare import find_compared_run
    from heal_core.store.inspect import open_store
    from heal_core.store.workspace import Workspace
    from heal_core.view.server import ViewServer

    layout = Workspace(workspace)
    if not layout.root.is_dir():
        raise InputError(f"there is no workspace {layout.root}. --workspace names the folder that holds heal.duckdb.")
    console = Console(highlight=False)
    if layout.database.exists() and run not in ("last", "previous"):
        with open_store(layout.root) as connection:
            run = find_compared_run(connection, run)
    server = ViewServer(layout, run, port)
    console.print(f"{server.address}\n{layout.root}, until Ctrl-C", markup=False, soft_wrap=True)
    if not no_browser and _has_display():
        # some browsers give control back only when they are closed
        threading.Thread(target=webbrowser.open, args=(server.issue_address(),), daemon=True).start()
    with interruption.unheard():  # Ctrl-C is how it ends
        server.run()


def _has_display() -> bool:
    """Return whether a browser's window would be seen; one in the terminal, or far from the user, would not do."""
    if "SSH_CONNECTION" in os.environ:
        return False
    return sys.platform in ("darwin", "win32") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
