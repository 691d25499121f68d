"""What `heal doctor` makes of a Prefect server: whether the next night will start, and what keeps it from that.

What does not belong here: asking the server (`flows.schedule`).
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from flows.schedule import FLOWS, POOL, Deployment, FlowRun, ServerState, Worker, server_state
from heal_core.doctor.environment import installed_version
from heal_core.doctor.finding import Finding, State
from heal_core.progress import describe_seconds

_SETTLING_SECONDS = 120.0
"""A server makes the runs of a changed schedule within a minute."""


def check_server(url: str | None) -> Iterator[Finding]:
    """Yield what the Prefect server says of the nights."""
    if url is None:
        yield _no_server()
        return
    state = server_state(url)
    yield _server_finding(state)
    if state.error is None:
        yield from _pool_findings(state)
        for flow in FLOWS:
            yield from _flow_findings(state, flow)


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
        unset = f"`unset PREFECT_API_URL` (where a profile names it, `{_prefect()} config unset PREFECT_API_URL`)"
        remedy = f"{_start_server(state.url)}; or do without: {unset}"
        if not (url := state.url.rstrip("/")).endswith("/api"):
            remedy = f"the address of the API ends in /api: `export PREFECT_API_URL={url}/api`"
        return Finding("server", "fail", f"{state.url}: {state.error}", remedy)
    here = installed_version("prefect")
    if state.version in (None, here):
        return Finding("server", "ok", f"{state.url} answers, Prefect {state.version or 'of an unknown version'}")
    found = f"{state.url} runs Prefect {state.version}, here it is {here}: what is new to one fails"
    return Finding("server", "warn", found, f"stop it, and from this environment: {_start_server(state.url)}")


def _pool_findings(state: ServerState) -> Iterator[Finding]:
    """Yield the state of the work pool and its workers; a fault is a failure where a schedule waits for them."""
    is_needed = any(d.active_schedules and d.work_pool_name == POOL for d in state.deployments)
    worst: State = "fail" if is_needed else "warn"
    if state.pool is None:
        remedy = f"`{_prefect()} work-pool create {POOL} --type process`"
        yield Finding("work pool", worst, f"none is named {POOL}", remedy)
        return
    if state.pool.is_paused:
        found = f"{POOL} is paused: its runs wait for ever"
        yield Finding("work pool", worst, found, f"`{_prefect()} work-pool resume {POOL}`")
    else:
        yield Finding("work pool", "ok", POOL)
    if online := [worker for worker in state.pool.workers if worker.is_online]:
        yield Finding("worker", "ok", "; ".join(map(_heard, online)))
    else:
        known = "; ".join(map(_heard, state.pool.workers)) or "there has been none"
        start = f"leave `{_prefect()} worker start --pool {POOL}` running (`make deploy-local` has one)"
        yield Finding(
            "worker", worst, f"none is online in {POOL} ({known}): nothing starts", f"in HEAL's folder {start}"
        )


def _flow_findings(state: ServerState, flow: str) -> Iterator[Finding]:
    """Yield whether a flow is deployed, what it waits for, and what is late."""
    deployments = [deployment for deployment in state.deployments if deployment.flow_name == flow]
    if not deployments:
        deploy = f"`{_prefect()} --no-prompt deploy --all --prefect-file deployments/prefect.yaml`"
        remedy = f"in HEAL's folder: `make deploy-local`, or where the server is another one {deploy}"
        yield Finding(flow, "warn", "not deployed: no schedule starts it", remedy)
    for deployment in deployments:
        yield _schedule_finding(state, deployment)
        if deployment.late:
            yield _late_finding(deployment)


def _schedule_finding(state: ServerState, deployment: Deployment) -> Finding:
    name, flow, pool = deployment.name, deployment.flow_name, deployment.work_pool_name
    rules = ", ".join(f"{schedule.when} {schedule.timezone or 'UTC'}" for schedule in deployment.schedules)
    place = f" in the pool {pool}" if pool not in (POOL, None) else ""
    found = f"{name}{place}: {rules or 'no schedule, it runs when it is asked to'}"
    if not deployment.schedules:
        return Finding(flow, "ok", found)
    if deployment.is_paused:
        resume = f"`curl -X POST {state.url.rstrip('/')}/deployments/{deployment.deployment_id}/resume_deployment`"
        return Finding(flow, "warn", f"{found}; the deployment is paused", f"if it should run: {resume}")
    if not deployment.active_schedules:
        resume = f"`{_prefect()} deployment schedule resume {name} {deployment.schedules[0].schedule_id}`"
        return Finding(flow, "warn", f"{found}; the schedule is paused", f"if it should run: {resume}")
    if deployment.next_run is not None:
        return Finding(flow, "ok", f"{found}; next {_when(deployment.next_run)}")
    if (datetime.now(UTC) - deployment.changed_at).total_seconds() < _SETTLING_SECONDS:
        found += "; changed just now, and the server has made no run yet"
        return Finding(flow, "warn", found, "look again in two minutes: `heal doctor`")
    remedy = (
        "start the server again, with its services (no --no-services) and from an environment with sqlalchemy "
        f"below 2.1 (see packages, above): {_start_server(state.url)}"
    )
    return Finding(flow, "fail", f"{found}; active, but the server has made no run for it", remedy)


def _late_finding(deployment: Deployment) -> Finding:
    late = deployment.late
    others = f" and {len(late) - 1} more" if len(late) > 1 else ""
    found = f"{late[0].name}, due {_when(late[0])}{others}: no worker has taken it"
    drop = f"`{_prefect()} flow-run delete {late[0].flow_run_id}`"
    remedy = f"a worker that is free starts it at once; to do without it: {drop}"
    return Finding(f"{deployment.flow_name} late", "fail", found, remedy)


def _heard(worker: Worker) -> str:
    age = "never" if worker.heartbeat_age_seconds is None else f"{describe_seconds(worker.heartbeat_age_seconds)} ago"
    return f"{worker.name}, last heartbeat {age}"


def _when(run: FlowRun) -> str:
    seconds = (run.expected_start - datetime.now(UTC)).total_seconds()
    distance = f"in {describe_seconds(seconds)}" if seconds >= 0 else f"{describe_seconds(-seconds)} ago"
    return f"{run.expected_start.astimezone():%Y-%m-%d %H:%M %Z} ({distance})"


def _start_server(url: str) -> str:
    """Return how to start a server at an address, if that is on this machine."""
    local = re.fullmatch(r"http://(?:127\.0\.0\.1|localhost):(\d+)/api/?", url)
    if local is None:
        return f"start it where it runs: `{_prefect()} server start`"
    port = "" if local[1] == "4200" else f"HEAL_PORT={local[1]} "
    return f"in HEAL's folder `{port}make deploy-local`, or your own: `{_prefect()} server start --port {local[1]}`"


def _prefect() -> str:
    """Return the command `prefect` of this environment as it can be typed here."""
    here = Path(sys.executable).with_name("prefect")
    return "prefect" if shutil.which("prefect") == str(here) or not here.exists() else os.path.relpath(here)
