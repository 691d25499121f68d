"""The command `heal`: one file per group of verbs, each importing what it needs only when called.

Exit codes: 0 done, 1 a run failed, 2 a mistake in what was asked, 130 interrupted.
"""

from __future__ import annotations

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


def main() -> None:
    """Run the command line; an expected error is one message, without a traceback."""
    console = Console(stderr=True)
    try:
        app(standalone_mode=False)
    except HealError as error:
        console.print(f"[bold red]{type(error).__name__}[/]: ", end="")
        console.print(str(error), markup=False, highlight=False, soft_wrap=True)
        sys.exit(2 if isinstance(error, USER_MISTAKES) else 1)
    except typer.Abort:
        sys.exit(130)
    except KeyboardInterrupt:
        console.print("interrupted: what is finished is stored; the same command goes on from there", soft_wrap=True)
        sys.exit(130)
    except Exception as error:
        if hasattr(error, "exit_code") and hasattr(error, "format_message"):  # a usage error of the command line
            console.print(error.format_message(), markup=False, soft_wrap=True)
            sys.exit(2)
        raise


if __name__ == "__main__":
    main()
