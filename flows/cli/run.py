"""`heal run`: the whole method under Prefect, with a summary at the end."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.logging import RichHandler


def run(
    config_path: Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="The run's settings.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[a.b=c ...]", help="Settings that replace those of the file.")
    ] = None,
    phase: Annotated[str | None, typer.Option(help="Run only this phase; those before it must be closed.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Run HEAL from problems to an evaluated student; run again to go on, or to find nothing to do."""
    from heal_core.config import load_config

    config = load_config(config_path, overrides or [])
    prepare_prefect(Path(config.workspace))
    console = Console(stderr=True)
    logging.basicConfig(
        level=logging.WARNING,
        format="%(message)s",
        handlers=[RichHandler(console=console, show_path=False, show_level=False, log_time_format="%H:%M:%S")],
        force=True,
    )
    logging.getLogger("heal").setLevel(logging.INFO)
    from flows.heal import heal, heal_phase

    if phase is not None:
        made = heal_phase(config, phase)
        if not any(made.values()):
            Console().print(f"Nothing to do: phase {phase} had all that it needs.")
        return
    summary = heal(config)
    write_summary(Path(config.workspace) / "summary.json", summary)
    if as_json:
        typer.echo(json.dumps(summary, indent=2))
    else:
        from flows.cli.summary import print_summary

        print_summary(summary, config.workspace)


def prepare_prefect(workspace: Path) -> None:
    """Set up Prefect: quiet, offline, in the workspace, with a server that ends with the run.

    What the environment already says is kept, so that a server in use stays in use.
    """
    from flows.server import is_named, start_server
    from heal_core.store.workspace import Workspace

    layout = Workspace(workspace)
    layout.create()
    home = layout.root
    defaults = {
        "PREFECT_HOME": str(home / ".prefect"),
        "PREFECT_LOCAL_STORAGE_PATH": str(layout.cache),
        # HEAL prints its own progress and errors; Prefect would add a traceback to a user's mistake
        "PREFECT_LOGGING_LEVEL": "CRITICAL",
        "PREFECT_SERVER_LOGGING_LEVEL": "CRITICAL",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_API_REQUEST_TIMEOUT": "120",  # the first request waits until the server has started
        "DO_NOT_TRACK": "1",
    }
    has_server = is_named()
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    if not has_server:
        start_server(layout.logs / "prefect.log")


def write_summary(path: Path, summary: dict[str, Any]) -> None:
    """Write the summary so that a reader never sees half of it."""
    from heal_core.store.durable import write_atomically

    write_atomically(path, lambda temporary: temporary.write_text(json.dumps(summary, indent=2) + "\n"))
