"""`heal run`, `heal retry`, `heal eval`: runs under Prefect, with a summary at the end."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.logging import RichHandler

from flows.cli.look import WorkspaceOption

if TYPE_CHECKING:
    from heal_core.config import RunConfig
    from heal_core.deadline import Deadline

ConfigArgument = Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="The run's settings.")]
OverridesArgument = Annotated[
    list[str] | None, typer.Argument(metavar="[a.b=c ...]", help="Settings that replace those of the file.")
]
UntilOption = Annotated[
    str | None,
    typer.Option(
        help="End cleanly at this time: 07:00, '07:00 Europe/Zurich' or 2027-01-31T07:00. The next start goes on."
    ),
]
BudgetOption = Annotated[
    int | None,
    typer.Option(
        "--max-tokens-budget",
        min=1,
        metavar="TOKENS",
        help="End cleanly when this start has sampled so many tokens. The next start goes on, and counts anew.",
    ),
]
NoSandboxOption = Annotated[
    bool,
    typer.Option(
        "--unsafe-no-sandbox",
        help="Run model-written code without a sandbox: it can do whatever you can. For a machine that may be lost.",
    ),
]
NO_SANDBOX = "verify.sandbox.kind=none"
JsonOption = Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")]


def run(
    config_path: ConfigArgument,
    overrides: OverridesArgument = None,
    columns: Annotated[
        list[str] | None,
        typer.Option("--map", metavar="COLUMN=MEANING", help="What a column means: question=problem. May be repeated."),
    ] = None,
    phase: Annotated[str | None, typer.Option(help="Run only this phase; those before it must be closed.")] = None,
    until: UntilOption = None,
    max_tokens: BudgetOption = None,
    no_sandbox: NoSandboxOption = False,
    as_json: JsonOption = False,
) -> None:
    """Run HEAL from problems to an evaluated student; run again to go on, or to find nothing to do."""
    from heal_core.config import load_config
    from heal_core.deadline import parse_deadline

    unsafe = [NO_SANDBOX] if no_sandbox else []
    config = load_config(config_path, [*(overrides or []), *_map_columns(columns or []), *unsafe])
    deadline = parse_deadline(until) if until else None
    prepare(config, deadline)
    from flows.heal import heal, heal_phase

    if phase is None:
        _show(config, heal(config, deadline, max_tokens=max_tokens), as_json)
        return
    outcome = heal_phase(config, phase, deadline, max_tokens)
    if outcome["state"] == "stopped":
        _show(config, outcome, as_json)
    elif not any(outcome["made"].values()):
        Console().print(f"Nothing to do: phase {phase} had all that it needs.")


def retry(
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="A run's id, or the beginning of one.")],
    workspace: WorkspaceOption = Path("."),
    until: UntilOption = None,
    max_tokens: BudgetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Go on with a run that failed or stopped, or try again the problems that it has in quarantine.

    The settings are those of the run. If its problems or models have changed since, it says so and does nothing.
    """
    from heal_core.config import parse_config
    from heal_core.deadline import parse_deadline
    from heal_core.store.inspect import find_run, noted_prices, open_store

    with open_store(workspace) as store:
        row = find_run(store, run_id)
        prices = noted_prices(store, row["run_id"])
    settings = {**json.loads(row["config"]), "workspace": str(workspace)}
    for role in ("teacher", "scorer", "student"):
        if prices is not None and settings.get(role):  # those noted last may be newer than the config
            settings[role]["price"] = prices.get(role)
    config = parse_config(settings, f"the config of run {run_id}")
    deadline = parse_deadline(until) if until else None
    prepare(config, deadline)
    from flows.heal import heal
    from heal_core.records import DISTILLATION

    _show(config, heal(config, deadline, row["run_id"], row["purpose"] or DISTILLATION, max_tokens), as_json)


def evaluate(
    config_path: ConfigArgument,
    overrides: OverridesArgument = None,
    student: Annotated[
        str | None,
        typer.Option(metavar="FOLDER_OR_ID", help="Evaluate this model in place of the promoted student."),
    ] = None,
    until: UntilOption = None,
    max_tokens: BudgetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Evaluate the promoted student, or another model, on the held-out problems that the config names today."""
    from heal_core.config import load_config
    from heal_core.deadline import parse_deadline

    given = [f"evaluation.student={json.dumps(student)}"] if student is not None else []
    config = load_config(config_path, [*(overrides or []), *given])
    deadline = parse_deadline(until) if until else None
    prepare(config, deadline)
    from flows.heal import heal
    from heal_core.records import EVALUATION

    _show(config, heal(config, deadline, purpose=EVALUATION, max_tokens=max_tokens), as_json)


def _map_columns(columns: list[str]) -> list[str]:
    """Return the override that `--map` stands for: `problems.columns`, as a whole."""
    from heal_core.errors import ConfigError

    mapped = {}
    for column in columns:
        name, separator, meaning = column.rpartition("=")
        if not separator or not name or name in mapped:
            raise ConfigError(f"--map {column!r} is not of the form COLUMN=MEANING, once per column: question=problem.")
        mapped[name] = meaning
    return [f"problems.columns={json.dumps(mapped)}"] if mapped else []


def _show(config: RunConfig, outcome: dict[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(outcome, indent=2, default=str))
        return
    from flows.cli.summary import print_outcome

    print_outcome(outcome, config.workspace)


def prepare(config: RunConfig, deadline: Deadline | None) -> None:
    """Set up the log on the terminal, see that the workspace is free, and set up Prefect."""
    from heal_core.errors import TimeIsUpError
    from heal_core.store.workspace import Workspace

    logging.basicConfig(
        level=logging.WARNING,
        format="%(message)s",
        handlers=[
            RichHandler(console=Console(stderr=True), show_path=False, show_level=False, log_time_format="%H:%M:%S")
        ],
        force=True,
    )
    logging.getLogger("heal").setLevel(logging.INFO)
    workspace = Workspace(config.workspace)
    workspace.create()
    try:
        # before the server starts, whose database two runs would fight over
        with workspace.lock() if config.on_busy == "refuse" else workspace.lock_when_free(deadline):
            pass
    except TimeIsUpError as reason:
        typer.echo(f"Stopped: {reason}, and another run held the workspace until then.")
        raise typer.Exit from reason
    prepare_prefect(workspace.root)


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
        "PREFECT_LOGGING_EXTRA_LOGGERS": "heal",  # so that a server in use gets HEAL's own lines
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_API_REQUEST_TIMEOUT": "120",  # the first request waits until the server has started
        "DO_NOT_TRACK": "1",
    }
    has_server = is_named()
    if not has_server:  # nobody reads them there, and the last ones would find it gone
        defaults["PREFECT_LOGGING_TO_API_ENABLED"] = "false"
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    if not has_server:
        start_server(layout.logs / "prefect.log")
