"""The command `heal`: one file per group of verbs, each importing what it needs only when called.

Exit codes: 0 done, 1 a run failed, 2 a mistake in what was asked, 130 interrupted.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
from typing import NoReturn

import typer
from rich.console import Console

from flows.cli import (
    ablate,
    audit,
    compare,
    doctor,
    export,
    imports,
    look,
    plan,
    report,
    run,
    sql,
    store,
    validity,
    verify,
    view,
)
from heal_core import interruption
from heal_core.errors import ConfigError, HealError, InputError, ModelError, StoreError

USER_MISTAKES = (ConfigError, InputError, ModelError, StoreError)

app = typer.Typer(
    name="heal",
    help="Distil a large model's reasoning into a small one, repairing what it never solves.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command("run")(run.run)
app.command("retry")(run.retry)
app.command("eval")(run.evaluate)
app.command("ablate")(ablate.ablate)
app.command("validate-pure")(validity.validate_pure)
app.command("plan")(plan.plan)
app.command("status")(look.status)
app.command("import")(imports.import_rollouts)
app.command("sql")(sql.sql)
app.command("show")(look.show)
app.command("verify")(verify.verify)
app.command("compare")(compare.compare)
app.command("report")(report.report)
app.command("plot")(report.plot)
app.command("view")(view.view)
app.command("audit")(audit.audit)
app.command("doctor")(doctor.doctor)
app.add_typer(export.app)
app.add_typer(store.app)


def main() -> None:
    """Run the command line; an expected error is one message, without a traceback."""
    console = Console(stderr=True)
    interruption.listen()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
    try:
        exit_code = app(standalone_mode=False)
    except (Exception, KeyboardInterrupt) as error:
        if interruption.has_come():
            _exit_interrupted(console)
        exit_code = _report(console, error)
        if exit_code is None:
            raise
        _exit(exit_code)
    if interruption.has_come():
        _exit_interrupted(console)
    if "prefect" in sys.modules:  # its threads outlive the run
        atexit._run_exitfuncs()
        _exit(exit_code or 0)
    sys.exit(exit_code)


def _report(console: Console, error: BaseException) -> int | None:
    """Print a mistake or an expected failure and return the exit code; None for a defect of HEAL's."""
    if isinstance(error, HealError):
        console.print(f"[bold red]{type(error).__name__}[/]: ", end="")
        console.print(str(error), markup=False, highlight=False, soft_wrap=True)
        return 2 if isinstance(error, USER_MISTAKES) else 1
    if hasattr(error, "exit_code") and hasattr(error, "format_message"):  # a usage error of the command line
        console.print(error.format_message(), markup=False, soft_wrap=True)
        return 2
    return None


def _exit_interrupted(console: Console) -> NoReturn:
    console.print("interrupted: what is finished is stored; the same command goes on from there", soft_wrap=True)
    _exit(130)


def _exit(exit_code: int) -> NoReturn:
    """End without the interpreter's own end: libraries complain there of what threads or a broken-off call hold."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)


if __name__ == "__main__":
    main()
