"""`heal doctor`: what to look at before the first night and after a bad one. Imports neither torch nor Prefect."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import re
import shutil
import sys
import textwrap
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from flows.schedule import FLOWS, POOL, Deployment, FlowRun, ServerState, Worker, server_address, server_state
from heal_core.doctor import Finding, State, check_disk, check_environment, check_memory, check_run
from heal_core.errors import ConfigError

_SIGNS = {"ok": ("ok", "green"), "warn": ("warn", "yellow"), "fail": ("FAIL", "bold red")}
_CHECK_WIDTH = 16
_INDENT = 6 + _CHECK_WIDTH
_MAX_WIDTH = 120
_SETTLING_SECONDS = 120.0
"""A server makes the runs of a changed schedule within a minute."""


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
    engine_seconds: Annotated[float, typer.Option(min=1, help="How long --engine may take.")] = 600.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Check environment, versions, disk, memory, models, problems, store and schedule; say what to do. Changes nothing.

    Exit code 1 if something failed; a warning is for you to judge.
    """
    if engine and config_path is None:
        raise typer.BadParameter("--engine needs CONFIG.yaml, which names the teacher")
    sections = {"environment": check_environment(), "Prefect server": check_server(server_address())}
    if config_path is None:
        sections["this folder"] = iter([check_disk(Path.cwd()), *check_memory()])
    else:
        sections[str(config_path)] = check_config(config_path, overrides or [], engine_seconds if engine else None)
    if as_json:
        findings = list(itertools.chain(*sections.values()))
        typer.echo(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=2))
    else:
        findings = list(_printed(sections))
    if any(finding.state == "fail" for finding in findings):
        raise typer.Exit(1)


def check_config(path: Path, overrides: list[str], engine_seconds: float | None) -> Iterator[Finding]:
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
        yield from check_run(config, engine_seconds)
    except ImportError as error:
        yield _broken_import(error)


def check_server(url: str | None) -> Iterator[Finding]:
    """Yield what the Prefect server says of the nights."""
    if url is None:
        yield _no_server()
        return
    state = server_state(url)
    yield _server_finding(state)
    if state.error is None:
        yield from _pool_findings(state)
        yield from itertools.chain(*(_flow_findings(state, flow) for flow in FLOWS))


def _no_server() -> Finding:
    """Return that no server is named; the one that `make deploy-local` starts is looked for, and only named."""
    local = f"http://127.0.0.1:{os.environ.get('HEAL_PORT', '4200')}/api"
    if server_state(local).error is None:
        found = f"none is named in this shell, but one answers at {local}"
        return Finding("server", "warn", found, f"to see its state: `export PREFECT_API_URL={local}`")
    found = "none is named: `heal run` starts one of its own, and no night is scheduled"
    remedy = "for nights, in HEAL's folder: `make deploy-local`, which is a server, a worker and the schedule"
    return Finding("server", "warn", found, remedy)


def _server_finding(state: ServerState) -> Finding:
    if state.error is not None:
        url = state.url.rstrip("/")
        if not url.endswith("/api"):
            remedy = f"the address of the API ends in /api: `export PREFECT_API_URL={url}/api`"
        elif "PREFECT_API_URL" in os.environ:
            remedy = f"{_start_server(url)}; or `unset PREFECT_API_URL`: then `heal run` has one of its own"
        else:
            remedy = f"{_start_server(url)}; or `{_prefect()} config unset PREFECT_API_URL`, where the address is from"
        return Finding("server", "fail", f"{state.url}: {state.error}", remedy)
    if state.version in (None, state.client_version):
        return Finding("server", "ok", f"{state.url} answers, Prefect {state.version or 'of an unknown version'}")
    return Finding(
        "server",
        "warn",
        f"{state.url} runs Prefect {state.version}, here it is {state.client_version}: what is new to one fails",
        f"stop it, and from this environment start it again: {_start_server(state.url)}",
    )


def _pool_findings(state: ServerState) -> Iterator[Finding]:
    """Yield the state of the work pool and its workers; a fault is a failure where a schedule waits for them."""
    is_needed = any(d.active_schedules and d.work_pool_name == POOL for d in state.deployments)
    worst: State = "fail" if is_needed else "warn"
    if state.pool is None:
        yield Finding(
            "work pool", worst, f"none is named {POOL}", f"`{_prefect()} work-pool create {POOL} --type process`"
        )
        return
    if state.pool.is_paused:
        remedy = f"`{_prefect()} work-pool resume {POOL}`"
        yield Finding("work pool", worst, f"{POOL} is paused: its runs wait for ever", remedy)
    else:
        yield Finding("work pool", "ok", POOL)
    online = [worker for worker in state.pool.workers if worker.is_online]
    start = f"in HEAL's folder leave `{_prefect()} worker start --pool {POOL}` running (`make deploy-local` has one)"
    if not online:
        known = "; ".join(map(_heard, state.pool.workers)) or "there has been none"
        yield Finding("worker", worst, f"none is online in {POOL} ({known}): nothing starts", start)
    elif all(_is_silent(worker) for worker in online):
        yield Finding(
            "worker", "warn", f"{'; '.join(map(_heard, online))}: it may have died", f"look after it, or {start}"
        )
    else:
        yield Finding("worker", "ok", "; ".join(map(_heard, online)))


def _flow_findings(state: ServerState, flow: str) -> Iterator[Finding]:
    """Yield whether a flow is deployed, what it waits for, and what is late."""
    deployments = [deployment for deployment in state.deployments if deployment.flow_name == flow]
    if not deployments:
        yield Finding(
            flow,
            "warn",
            "not deployed: no schedule starts it",
            f"in HEAL's folder: `make deploy-local`, or where the server is another one "
            f"`{_prefect()} --no-prompt deploy --all --prefect-file deployments/prefect.yaml`",
        )
    for deployment in deployments:
        yield _schedule_finding(state, deployment)
        if deployment.late:
            yield _late_finding(deployment)


def _schedule_finding(state: ServerState, deployment: Deployment) -> Finding:
    name, flow = deployment.name, deployment.flow_name
    rules = ", ".join(f"{schedule.when} {schedule.timezone or 'UTC'}" for schedule in deployment.schedules)
    pool = deployment.work_pool_name
    place = "" if pool == POOL else f" in the pool {pool}" if pool else " without a work pool"
    found = f"{name}{place}: {rules or 'no schedule, it runs when it is asked to'}"
    if not deployment.schedules:
        return Finding(flow, "ok", found)
    if deployment.is_paused:
        resume = f"`curl -X POST {state.url.rstrip('/')}/deployments/{deployment.deployment_id}/resume_deployment`"
        return Finding(flow, "warn", f"{found}; the deployment is paused", f"if it should run: {resume}")
    if not deployment.active_schedules:
        resume = f"`{_prefect()} deployment schedule resume {name} {deployment.schedules[0].schedule_id}`"
        return Finding(flow, "warn", f"{found}; the schedule is paused", f"if it should run: {resume}")
    if deployment.next_run is None:
        changed_seconds = (datetime.now(UTC) - deployment.changed_at).total_seconds()
        if changed_seconds < _SETTLING_SECONDS:
            found += f"; changed {_span(changed_seconds)} ago, and the server has made no run yet"
            return Finding(flow, "warn", found, "look again in two minutes: `heal doctor`")
        remedy = (
            "start the server again, with its services (no --no-services) and from an environment with sqlalchemy "
            f"below 2.1 (see packages, above): {_start_server(state.url)}"
        )
        return Finding(flow, "fail", f"{found}; active, but the server has made no run for it", remedy)
    return Finding(flow, "ok", f"{found}; next {_when(deployment.next_run)}")


def _late_finding(deployment: Deployment) -> Finding:
    late = deployment.late
    others = f" and {len(late) - 1} more" if len(late) > 1 else ""
    drop = ", ".join(f"`{_prefect()} flow-run delete {run.flow_run_id}`" for run in late[:3])
    return Finding(
        f"{deployment.flow_name} late",
        "fail",
        f"{late[0].name}, due {_when(late[0])}{others}: no worker has taken it",
        f"a worker that is free starts it at once; to do without it: {drop}",
    )


def _is_silent(worker: Worker) -> bool:
    """Return whether a worker has missed a heartbeat or more; its server waits for three."""
    age_seconds = worker.heartbeat_age_seconds
    return age_seconds is None or age_seconds > 2 * worker.heartbeat_interval_seconds


def _heard(worker: Worker) -> str:
    age = "never" if worker.heartbeat_age_seconds is None else f"{_span(worker.heartbeat_age_seconds)} ago"
    return f"{worker.name}, last heartbeat {age}"


def _when(run: FlowRun) -> str:
    seconds = (run.expected_start - datetime.now(UTC)).total_seconds()
    distance = f"in {_span(seconds)}" if seconds >= 0 else f"{_span(-seconds)} ago"
    return f"{run.expected_start.astimezone():%Y-%m-%d %H:%M %Z} ({distance})"


def _span(seconds: float) -> str:
    """Return a length of time in its largest fitting unit."""
    for unit, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds:.0f} s"


def _broken_import(error: ImportError) -> Finding:
    return Finding(
        "config",
        "fail",
        f"cannot be checked, a package is missing or broken: {error}",
        f"`{sys.executable} -m pip install --requirement requirements.lock`, in HEAL's folder",
    )


def _start_server(url: str) -> str:
    """Return how to start a server at an address, if that is on this machine."""
    local = re.fullmatch(r"http://(127\.0\.0\.1|localhost):(\d+)/api/?", url)
    if local is None:
        return f"start it where it runs: `{_prefect()} server start`"
    port = "" if local[2] == "4200" else f"HEAL_PORT={local[2]} "
    return f"in HEAL's folder `{port}make deploy-local`, or your own: `{_prefect()} server start --port {local[2]}`"


def _prefect() -> str:
    """Return the command `prefect` of this environment as it can be typed here."""
    here = Path(sys.executable).with_name("prefect")
    return "prefect" if shutil.which("prefect") == str(here) or not here.exists() else os.path.relpath(here)


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
