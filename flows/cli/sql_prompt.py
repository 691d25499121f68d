"""The prompt of `heal sql`: statements until a semicolon, a few commands, and a history across sessions."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rich.console import Console

from flows.cli.sql_output import Target, put_result
from flows.cli.table import print_table
from heal_core import interruption
from heal_core.errors import HealError, InputError
from heal_core.store.query import Result, SqlSession
from heal_core.store.sqltext import is_complete

MAX_HISTORY_LINES = 5_000
HELP = """\
SELECT ... ;    a statement may have many lines; a semicolon ends it
.tables         tables and views, with what they hold
.schema NAME    columns of a table or view
.help           this text
.quit           end (also Ctrl-D)
Ctrl-C drops what was typed, or stops the query that runs. Each query sees the newest published rows."""


class Prompt:
    """Reads statements and commands from the terminal and shows their results until the user ends it."""

    def __init__(self, session: SqlSession, values: Mapping[str, Any], target: Target) -> None:
        self._session = session
        self._values = values
        self._target = target
        self._told: list[str] = []
        self._errors = Console(stderr=True)

    def run(self) -> None:
        """Answer until Ctrl-D or `.quit`; an error does not end it."""
        print_line("heal sql: .help for help, Ctrl-D to end")
        with _own_signals(), _history():
            while (text := self._read()) is not None:
                with self._forgiving():
                    self._answer(text)

    def _read(self) -> str | None:
        """Return the next command, or text with at least one statement; None at the end."""
        lines: list[str] = []
        while True:
            try:
                lines.append(input("  ...> " if lines else "heal> "))
            except EOFError:
                print_line("")
                return None
            except KeyboardInterrupt:
                print_line("")
                lines.clear()
                continue
            text = "\n".join(lines).strip()
            if text.startswith("."):
                return None if text in (".quit", ".exit") else text
            if is_complete(text):
                return text
            if not text:
                lines.clear()

    def _answer(self, text: str) -> None:
        command, _, argument = text.partition(" ")
        if command == ".help":
            print_line(HELP)
            return
        with self._session.current() as notes:
            if notes != self._told:
                self._told = list(notes)
                print_notes(notes)
            if command == ".tables":
                _show(self._session.relations())
            elif command == ".schema":
                _show(self._session.columns_of(argument.strip(" ;")))
            elif command.startswith("."):
                raise InputError(f"there is no command {command}; .help lists them.")
            else:
                for statement in self._session.split(text):
                    put_result(self._session, statement, self._values, self._target)

    @contextmanager
    def _forgiving(self) -> Iterator[None]:
        try:
            yield
        except HealError as error:
            self._errors.print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        except KeyboardInterrupt:
            self._errors.print("stopped")


def print_line(text: str) -> None:
    """Print on standard output, at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def print_notes(notes: list[str]) -> None:
    """Print what the user should know beside a result, where a pipe does not get it."""
    console = Console(stderr=True)
    for note in notes:
        console.print(f"note: {note}", style="yellow", markup=False, highlight=False, soft_wrap=True)


def _show(result: Result) -> None:
    print_table(result.columns, result.rows, sys.stdout)


@contextmanager
def _own_signals() -> Iterator[None]:
    """Let Ctrl-C stop a query and not be remembered as the end of the command; SIGTERM ends it at once."""
    terminate = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # polars has put a handler of its own before Python's, after which a waiting input() goes on waiting
    interrupt = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with interruption.unheard():
            yield
    finally:
        signal.signal(signal.SIGINT, interrupt)
        signal.signal(signal.SIGTERM, terminate)


@contextmanager
def _history() -> Iterator[None]:
    """Edit lines with the keys of the terminal, and keep them in the user's state folder."""
    try:
        import readline
    except ImportError:  # a Python built without it reads plain lines
        yield
        return
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    file = state / "heal" / "sql_history"
    readline.set_history_length(MAX_HISTORY_LINES)
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        readline.read_history_file(file)
    try:
        yield
    finally:
        with suppress(OSError):
            readline.write_history_file(file)
