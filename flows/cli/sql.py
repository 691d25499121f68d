"""`heal sql`: a query, a file of statements, or a prompt on a workspace's store. Loads neither torch nor Prefect."""

from __future__ import annotations

import json
import math
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli.look import WorkspaceOption
from flows.cli.sql_output import Format, Target, choose_target, put_result
from heal_core.errors import InputError

if TYPE_CHECKING:
    from heal_core.store.query import SqlSession, Statement

_PARAMETER = re.compile(r"(?P<name>\w+)=(?P<value>.*)", re.DOTALL)


def sql(
    query: Annotated[
        str | None, typer.Argument(help="SQL, one or more statements. Without it: the prompt, or what is piped in.")
    ] = None,
    workspace: WorkspaceOption = Path("."),
    file: Annotated[Path | None, typer.Option("--file", help="Read the SQL from this file.")] = None,
    param: Annotated[
        list[str] | None,
        typer.Option("--param", "-p", metavar="NAME=VALUE", help="Value of $NAME in the query; may be repeated."),
    ] = None,
    form: Annotated[
        Format | None,
        typer.Option("--format", "-f", help="Format of the result. Default: that of --output's name, else table."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the result to this file, whole or not at all.")
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option("--limit", min=0, help="Most rows of a table, 0: all. Default: 40 on a terminal, else all."),
    ] = None,
    write: Annotated[
        bool, typer.Option("--write", help="Allow tables and views of your own, in WORKSPACE/my.duckdb, and files.")
    ] = False,
) -> None:
    """Query the store with SQL (DuckDB's), also while a run writes to it.

    \b
    heal sql "SHOW TABLES" -w demo                  one query
    heal sql --file report.sql -w demo -o out.csv   statements of a file
    echo "FROM funnel" | heal sql -w demo -f json   statements from a pipe
    heal sql -w demo                                the prompt; .help there

    Of several statements the last one's result is shown. A query sees what a
    run has last published, at most seconds old.

    PARAMETERS. -p band=hard gives $band the text hard. A value that is a JSON
    number, true, false or null is that; -p 'id="123"' is text for certain.

    FORMATS. A table is for reading: on a terminal it shows 40 rows and rounds
    floats; piped, it is complete. JSON, CSV and Parquet are always complete.
    In JSON, times are ISO 8601 text, and NaN and infinity are null. Parquet
    keeps DuckDB's types.

    READING AND WRITING. Without --write no statement writes a table or a file.
    Your own CSV, JSON and Parquet files can be read (FROM 'file.csv'), other
    databases with ATTACH 'file' AS name (READ_ONLY). With --write, CREATE TABLE
    mine AS SELECT ... goes to WORKSPACE/my.duckdb, which runs never touch;
    later queries find mine beside the store's tables. Those are read-only also
    with --write; COPY ... TO and --output replace whatever file they name.

    Exit codes: 0 done, 2 the query or an option was refused.
    """
    from heal_core.store.query import SqlSession
    from heal_core.store.workspace import Workspace

    text = _read_query(query, file)
    values = parse_parameters(param or [])
    target = choose_target(form, output, limit)
    if text is None and target.file is not None:
        raise InputError("--output needs a query: at the prompt, results are shown.")
    with SqlSession(Workspace(workspace), write) as session:
        if text is None:
            from flows.cli.sql_prompt import Prompt

            Prompt(session, values, target).run()
        else:
            _run_all(session, text, values, target)


def parse_parameters(texts: list[str]) -> dict[str, Any]:
    """Return values by name; a JSON number, true, false, null or quoted text is that, the rest is text as it is.

    Raises:
        InputError: If one is not NAME=VALUE, or a name comes twice.
    """
    values: dict[str, Any] = {}
    for text in texts:
        match = _PARAMETER.fullmatch(text)
        if match is None:
            raise InputError(f"--param {text!r}: expected NAME=VALUE, for instance --param band=hard.")
        if match["name"] in values:
            raise InputError(f"--param {match['name']} is given twice.")
        values[match["name"]] = _parse_value(match["value"])
    return values


def _parse_value(text: str) -> Any:
    try:
        value = json.loads(text)
    except ValueError:
        return text
    # the hexadecimal id 3e1234567890 would be infinity
    is_scalar = not isinstance(value, list | dict | float) or (isinstance(value, float) and math.isfinite(value))
    return value if is_scalar else text


def _read_query(query: str | None, file: Path | None) -> str | None:
    """Return the SQL that is asked for, or None for the prompt."""
    if query is not None and file is not None:
        raise InputError("give a query or --file, not both.")
    if file is not None:
        try:
            return file.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"--file {file} cannot be read: {error}") from error
    if query is None and not sys.stdin.isatty():
        return sys.stdin.read()
    return query


def _run_all(session: SqlSession, text: str, values: dict[str, Any], target: Target) -> None:
    """Run all statements and write the result of the last.

    Raises:
        InputError: If one is refused; those before it have run.
    """
    from flows.cli.sql_prompt import print_notes

    statements = session.split(text)
    _require_use(statements, values)
    with session.current() as notes:
        print_notes(notes)
        for statement in statements[:-1]:
            for _ in session.run(statement, values).rows:
                pass
        put_result(session, statements[-1], values, target)
        if session.write and session.has_open_transaction():
            raise InputError("the statements BEGIN a transaction without a COMMIT: what it wrote is undone.")


def _require_use(statements: list[Statement], values: dict[str, Any]) -> None:
    known = frozenset[str]().union(*(statement.parameters for statement in statements))
    if missing := sorted(known - values.keys()):
        raise InputError(f"the query has ${missing[0]}, which has no value: add --param {missing[0]}=VALUE.")
    if unknown := sorted(values.keys() - known):
        has = f"it has {', '.join(f'${name}' for name in sorted(known))}" if known else "it has no parameters"
        raise InputError(f"--param {unknown[0]}: the query has no ${unknown[0]}; {has}.")
