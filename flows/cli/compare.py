"""`heal compare`: what changed between two runs, read also while a run writes. Loads neither torch nor Prefect."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from flows.cli.look import WorkspaceOption
from heal_core.report.comparison import WordTable, comparison_tables, problem_lines, score_notes

if TYPE_CHECKING:
    from heal_core.store.inspect import Connection


def compare(
    run_a: Annotated[
        str, typer.Argument(metavar="RUN_A", help="A run: the beginning of its id, `last` or `previous`.")
    ] = "previous",
    run_b: Annotated[str, typer.Argument(metavar="RUN_B", help="The run to compare with it, likewise.")] = "last",
    workspace: WorkspaceOption = Path("."),
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    html: Annotated[
        Path | None, typer.Option("--html", help="Write an HTML page to this file, with the charts of both.")
    ] = None,
) -> None:
    """Show what changed between two runs: settings, problems, funnel, yields, and the scores with intervals."""
    from heal_core.store.compare import compare_runs, find_compared_run
    from heal_core.store.inspect import open_store

    with open_store(workspace) as store:
        found = compare_runs(store, find_compared_run(store, run_a), find_compared_run(store, run_b))
        if html:
            _write_page(html, store, found)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        print_comparison(Console(highlight=False), found)


def _write_page(path: Path, store: Connection, found: dict[str, Any]) -> None:
    from flows.cli.report import write_file
    from heal_core.report.comparison_page import build_comparison
    from heal_core.store.reading import PublishedStore

    write_file(path, build_comparison(PublishedStore(store), found).encode())


def print_comparison(console: Console, found: dict[str, Any]) -> None:
    """Print a comparison: what differs first, the scores last, where the eye ends up."""
    runs, problems = found["runs"], found["problems"]
    for table in comparison_tables(found):
        _print_table(console, table)
        if not table.title and runs["a"]["run_id"] == runs["b"]["run_id"]:
            console.print("A and B are the same run.\n")
        if table.title == "problems":
            _print_problems(console, problems)
    evaluation = found["evaluation"]
    if evaluation["why_empty"]:
        console.print(f"\nevaluation: nothing to compare. {evaluation['why_empty']}.", markup=False)
        return
    for note in score_notes(evaluation, problems["by_split"]["held_out"]["num_shared"]):
        console.print(note, style="dim", markup=False)


def _print_table(console: Console, words: WordTable) -> None:
    if not words.rows:
        console.print(words.title)
        return
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for place, column in enumerate(words.columns):
        if place < len(words.columns) - words.num_right:
            table.add_column(column, overflow="fold")
        else:
            table.add_column(column, justify="right", no_wrap=True)
    for index, row in enumerate(words.rows):
        if index in words.sections:
            table.add_section()
        table.add_row(*map(Text, row), style="bold" if index in words.bold else None)
    if words.title:
        # apart from its table, which may be narrower
        console.print(f"\n{words.title}", style="italic")
    console.print(table)
    _print_rest(console, words.rest)


def _print_problems(console: Console, problems: dict[str, Any]) -> None:
    for title, lines, num_more in problem_lines(problems):
        console.print(f"{title}:")
        for line in lines:
            console.print(line, markup=False, no_wrap=True, overflow="ellipsis")
        _print_rest(console, num_more)


def _print_rest(console: Console, num: int) -> None:
    if num > 0:
        console.print(f"  ... and {num} more")
