"""The command `heal`: one file per group of verbs, each importing what it needs only when called.

Exit codes: 0 done, 1 a run failed, 2 a mistake in what was asked, 130 interrupted.
"""

from __future__ import annotations

import signal
import sys

import typer
from rich.console import Console

from flows.cli import look, run
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
app.command("status")(look.status)
app.command("sql")(look.sql)
app.command("show")(look.show)


class _Interruption:
    """A signal handler that treats SIGTERM as Ctrl-C, and remembers that it was called.

    Libraries turn an interruption into errors of their own; those are no failures.
    """

    def __init__(self) -> None:
        self.happened = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._interrupt)

    def _interrupt(self, *_: object) -> None:
        self.happened = True
        raise KeyboardInterrupt


def main() -> None:
    """Run the command line; an expected error is one message, without a traceback."""
    console = Console(stderr=True)
    interruption = _Interruption()
    exit_code = 0
    try:
        exit_code = app(standalone_mode=False) or 0
    except HealError as error:
        if not interruption.happened:
            console.print(f"[bold red]{type(error).__name__}[/]: ", end="")
            console.print(str(error), markup=False, highlight=False, soft_wrap=True)
        exit_code = 2 if isinstance(error, USER_MISTAKES) else 1
    except (Exception, KeyboardInterrupt) as error:
        if hasattr(error, "exit_code") and hasattr(error, "format_message"):  # a usage error of the command line
            console.print(error.format_message(), markup=False, soft_wrap=True)
            exit_code = 2
        elif not interruption.happened:
            raise
    if interruption.happened:
        message = "interrupted: what is finished is stored; the same command goes on from there"
        console.print(message, soft_wrap=True)
        exit_code = 130
    sys.exit(exit_code)


if __name__ == "__main__":
    main()
