"""`heal report`, `heal plot`: a run as a page, and its charts as files for papers. Loads neither torch nor Prefect."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from flows.cli.look import WorkspaceOption

RunArgument = Annotated[
    str, typer.Argument(metavar="RUN", help="A run: the beginning of its id, `last` or `previous`.", show_default=True)
]


def report(
    run: RunArgument = "last",
    workspace: WorkspaceOption = Path("."),
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The HTML file. Default: report.html in the workspace.")
    ] = None,
) -> None:
    """Write a run as one HTML page: what became of everything, the charts, and trajectories to read."""
    from heal_core.report.page import build_page
    from heal_core.store.compare import find_compared_run
    from heal_core.store.inspect import open_store
    from heal_core.store.reading import PublishedStore
    from heal_core.store.workspace import Workspace

    with open_store(workspace) as connection:
        run_id = find_compared_run(connection, run)
        page = build_page(PublishedStore(connection), run_id)
    path = out or Workspace(workspace).report
    write_file(path, page.encode())
    size = path.stat().st_size / 1e6
    Console(highlight=False).print(f"run {run_id}: {path} ({size:.1f} MB)", markup=False, soft_wrap=True)


def plot(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A chart; without one, they are listed.")] = "",
    run: Annotated[str, typer.Option("--run", "-r", help="A run, as in `heal report`.")] = "last",
    workspace: WorkspaceOption = Path("."),
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="An .svg, .png or .pdf file. Default: NAME.svg here.")
    ] = None,
) -> None:
    """Write a chart of a run's report as SVG, PNG or PDF."""
    from heal_core.errors import InputError
    from heal_core.report.charts.catalogue import CHARTS, chart_named
    from heal_core.report.charts.drawing import FORMS, PAPER, render
    from heal_core.store.compare import find_compared_run
    from heal_core.store.inspect import open_store
    from heal_core.store.reading import PublishedStore
    from heal_core.store.report import read_report

    console = Console(highlight=False)
    if not name:
        for key, chart in CHARTS.items():
            console.print(f"{key:12} {chart.title}", markup=False)
        return
    chart = chart_named(name)
    path = out or Path(f"{name}.svg")
    form = next((form for form in FORMS if path.suffix.lower() == f".{form}"), None)
    if form is None:
        raise InputError(f"--out {path}: expected a file that ends in .{', .'.join(FORMS)}.")
    with open_store(workspace) as connection:
        run_id = find_compared_run(connection, run)
        drawn = render(chart, read_report(PublishedStore(connection), run_id), PAPER, form)
    if drawn is None:
        raise InputError(f"run {run_id} has nothing to draw for {name!r}.")
    write_file(path, drawn)
    console.print(f"run {run_id}: {path}", markup=False, soft_wrap=True)


def write_file(path: Path, content: bytes) -> None:
    """Write a file so that a reader never sees half of it.

    Raises:
        InputError: If it cannot be written.
    """
    from heal_core.errors import InputError
    from heal_core.store.durable import write_atomically

    try:
        write_atomically(path, lambda temporary: temporary.write_bytes(content))
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}.") from error
