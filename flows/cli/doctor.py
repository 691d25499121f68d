"""`heal doctor`: what to look at before the first night and after a bad one. Imports neither torch nor Prefect."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
import sys
import textwrap
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from flows.cli.nights import check_server
from flows.schedule import server_address
from heal_core.doctor.checkup import check_environment, check_folder, check_run
from heal_core.doctor.finding import Finding
from heal_core.errors import ConfigError

_SIGNS = {"ok": ("ok", "green"), "warn": ("warn", "yellow"), "fail": ("FAIL", "bold red")}
_CHECK_WIDTH = 16
_INDENT = 6 + _CHECK_WIDTH
_MAX_WIDTH = 120


def doctor(
    config_path: Annotated[
        Path | None, typer.Argument(metavar="CONFIG.yaml", help="Check what a run with these settings needs, too.")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="a.b=c", help="Settings that replace those of the file.")
    ] = None,
    engine: Annotated[
        bool, typer.Option("--engine", help="Load the teacher for real and sample a few tokens; takes minutes.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Check environment, versions, disk, memory, models, problems, store and schedule; say what to do. Changes nothing.

    Exit code 1 if something failed; a warning is for you to judge.
    """
    if engine and config_path is None:
        raise typer.BadParameter("--engine needs CONFIG.yaml, which names the teacher")
    sections = {"environment": check_environment(), "Prefect server": check_server(server_address())}
    if config_path is None:
        sections["this folder"] = check_folder(Path.cwd())
    else:
        sections[str(config_path)] = check_config(config_path, overrides or [], engine)
    if as_json:
        findings = list(itertools.chain(*sections.values()))
        typer.echo(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=2))
    else:
        findings = list(_printed(sections))
    if any(finding.state == "fail" for finding in findings):
        raise typer.Exit(1)


def check_config(path: Path, overrides: list[str], try_engine: bool = False) -> Iterator[Finding]:
    """Yield what a run with a config would meet; a mistake in it is a finding."""
    try:
        from heal_core.config import load_config

        config = load_config(path, overrides)
    except ConfigError as error:
        remedy = "correct it: docs/configuration.md has every key with its range"
        if not path.is_file():
            remedy = "give the path of a file, such as `heal doctor deployments/lab/demo.yaml`"
        yield Finding("config", "fail", str(error), remedy)
        return
    except ImportError as error:
        yield _broken_import(error)
        return
    yield Finding("config", "ok", f"{path} is valid; its workspace is {config.workspace}")
    try:
        yield from check_run(config, try_engine)
    except ImportError as error:
        yield _broken_import(error)


def _broken_import(error: ImportError) -> Finding:
    return Finding(
        "config",
        "fail",
        f"cannot be checked, a package is missing or broken: {error}",
        f"`{sys.executable} -m pip install --requirement requirements.lock`, in HEAL's folder",
    )


def _printed(sections: dict[str, Iterator[Finding]]) -> Iterator[Finding]:
    """Yield the findings, each printed as soon as it is known, and say at the end how many there were."""
    console = Console(highlight=False)
    counts: Counter[str] = Counter()
    for title, findings in sections.items():
        console.print(Text(title, style="bold"))
        for finding in findings:
            counts[finding.state] += 1
            _print(console, finding)
            yield finding
    console.print(f"{counts['ok']} ok, {counts['warn']} to be judged, {counts['fail']} failed")


def _print(console: Console, finding: Finding) -> None:
    sign, style = _SIGNS[finding.state]
    width = min(console.width, _MAX_WIDTH) if console.is_terminal else 80
    head = Text.assemble((f"{sign:5} ", style), f"{finding.check:{_CHECK_WIDTH}}")
    lines = _wrapped(finding.found, width)
    console.print(head.append(lines[0]), soft_wrap=True)
    for line in [*lines[1:], *_wrapped(f"-> {finding.remedy}", width)] if finding.remedy else lines[1:]:
        console.print(Text(" " * _INDENT + line), soft_wrap=True)


def _wrapped(text: str, width: int) -> list[str]:
    """Return text as lines that leave room for the indent; a `command` stays on one line, so that it can be copied."""
    whole = re.sub(r"^-> |`[^`]*`", lambda unbroken: unbroken.group().replace(" ", "\0"), text)
    lines = textwrap.wrap(whole, max(30, width - _INDENT), break_long_words=False, break_on_hyphens=False)
    return [line.replace("\0", " ") for line in lines] or [""]
