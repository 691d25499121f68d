"""What a Prefect server says of HEAL's nights: is it there, who works for it, what runs next, what is late.

It is asked over its public REST API, without importing Prefect, which takes seconds; httpx
is imported when it is asked. A server that cannot be asked is a value, too. What does not belong here: what to make of
it (`flows.cli.nights`), and starting a server for one run (`flows.server`).
"""

from __future__ import annotations

import base64
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import httpx

POOL = "heal"
FLOWS = ("nightly", "evaluate-latest")
_FAILURES = ("FAILED", "CRASHED")
_CONNECT_SECONDS, _ANSWER_SECONDS = 3.0, 10.0
_MAX_RUNS = 20


@dataclass(frozen=True)
class Schedule:
    """When a deployment runs: `when` is a cron line, or what else it has; without a time zone it is UTC."""

    schedule_id: str
    when: str
    timezone: str | None
    is_active: bool


@dataclass(frozen=True)
class FlowRun:
    """A run that waits for its time, or for a worker."""

    flow_run_id: str
    name: str
    expected_start: datetime


@dataclass(frozen=True)
class Failure:
    """A run that failed or crashed: the name of its state, and why."""

    name: str
    state: str
    message: str
    ended_at: datetime


@dataclass(frozen=True)
class Deployment:
    """A deployed flow.

    Attributes:
        name: As `flow/deployment`.
        changed_at: When it or a schedule was last changed; a server takes a minute to make runs after that.
        next_run: The first that is yet to come, None where there is none.
        late: Those whose time has passed and that no worker has taken.
        failed: The run that ended last, if it failed or crashed.
    """

    deployment_id: str
    name: str
    flow_name: str
    work_pool_name: str | None
    is_paused: bool
    schedules: tuple[Schedule, ...]
    changed_at: datetime
    next_run: FlowRun | None
    late: tuple[FlowRun, ...]
    failed: Failure | None = None

    @property
    def active_schedules(self) -> tuple[Schedule, ...]:
        """Return the schedules that make runs."""
        return () if self.is_paused else tuple(schedule for schedule in self.schedules if schedule.is_active)


@dataclass(frozen=True)
class Worker:
    """A process that takes runs from a pool; a server calls it offline after three missed heartbeats."""

    name: str
    is_online: bool
    heartbeat_age_seconds: float | None


@dataclass(frozen=True)
class WorkPool:
    """Where deployed runs wait for a worker."""

    name: str
    is_paused: bool
    workers: tuple[Worker, ...]


@dataclass(frozen=True)
class ServerState:
    """A server's answers; with an `error` there are none.

    Attributes:
        url: The address of its API, without a password.
        error: Why it could not be asked.
        version: Of Prefect there; None where it does not say.
        pool: The work pool `heal`, None where there is none.
        deployments: Those of the flows in `FLOWS`.
    """

    url: str
    error: str | None = None
    version: str | None = None
    pool: WorkPool | None = None
    deployments: tuple[Deployment, ...] = ()


def server_address() -> str | None:
    """Return the API's address from the environment, else from Prefect's active profile; None where neither has one."""
    return os.environ.get("PREFECT_API_URL") or _profile().get("PREFECT_API_URL") or None


def server_state(url: str) -> ServerState:
    """Return what the server at `url` says; why it says nothing is in `error`."""
    import httpx

    shown = _without_password(url)
    timeout = httpx.Timeout(_ANSWER_SECONDS, connect=_CONNECT_SECONDS)
    try:
        is_here = httpx.URL(url).host in ("127.0.0.1", "localhost", "::1")  # where a proxy cannot reach
        base = url.rstrip("/") + "/"
        with httpx.Client(base_url=base, headers=_headers(), timeout=timeout, trust_env=not is_here) as client:
            return ServerState(shown, None, _version(client), _pool(client), _deployments(client))
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return ServerState(shown, _reason(error))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"{type(error).__name__}: {error}"
        return ServerState(shown, f"what answers there is no Prefect API that HEAL knows ({what})")


def _version(client: httpx.Client) -> str | None:
    """Return the server's version; Prefect Cloud does not tell."""
    answer = client.get("admin/version")
    return str(answer.json()) if answer.is_success else None


def _pool(client: httpx.Client) -> WorkPool | None:
    found = _ask(client, "work_pools/filter", {"work_pools": {"name": {"any_": [POOL]}}})
    if not found:
        return None
    workers = _ask(client, f"work_pools/{POOL}/workers/filter", {})
    return WorkPool(POOL, bool(found[0]["is_paused"]), tuple(map(_worker, workers)))


def _worker(answer: Mapping[str, Any]) -> Worker:
    heard = answer["last_heartbeat_time"]
    age_seconds = None if heard is None else (datetime.now(UTC) - datetime.fromisoformat(heard)).total_seconds()
    return Worker(answer["name"], answer["status"] == "ONLINE", age_seconds)


def _deployments(client: httpx.Client) -> tuple[Deployment, ...]:
    by_name = {"flows": {"name": {"any_": list(FLOWS)}}}
    flows = {flow["id"]: flow["name"] for flow in _ask(client, "flows/filter", by_name)}
    found = _ask(client, "deployments/filter", by_name)
    deployments = [_deployment(client, answer, flows[answer["flow_id"]]) for answer in found]
    return tuple(sorted(deployments, key=lambda deployment: (FLOWS.index(deployment.flow_name), deployment.name)))


def _deployment(client: httpx.Client, answer: Mapping[str, Any], flow_name: str) -> Deployment:
    now = datetime.now(UTC).isoformat()
    scheduled = {"state": {"type": {"any_": ["SCHEDULED"]}}, "expected_start_time": {"after_": now}}
    next_runs = _flow_runs(client, answer["id"], scheduled)
    return Deployment(
        deployment_id=answer["id"],
        name=f"{flow_name}/{answer['name']}",
        flow_name=flow_name,
        work_pool_name=answer["work_pool_name"],
        is_paused=bool(answer["paused"]),
        schedules=tuple(map(_schedule, answer["schedules"])),
        changed_at=max(datetime.fromisoformat(one["updated"]) for one in (answer, *answer["schedules"])),
        next_run=next_runs[0] if next_runs else None,
        late=_flow_runs(client, answer["id"], {"state": {"name": {"any_": ["Late"]}}}),
        failed=_last_failure(client, answer["id"]),
    )


def _last_failure(client: httpx.Client, deployment_id: str) -> Failure | None:
    query = {
        "deployments": {"id": {"any_": [deployment_id]}},
        "flow_runs": {"state": {"type": {"any_": ["COMPLETED", *_FAILURES]}}},
        "sort": "END_TIME_DESC",
        "limit": 1,
    }
    for run in _ask(client, "flow_runs/filter", query):
        if (state := run["state"])["type"] in _FAILURES:
            ended_at = datetime.fromisoformat(state["timestamp"])
            return Failure(run["name"], state["name"], state["message"] or "", ended_at)
    return None


def _schedule(answer: Mapping[str, Any]) -> Schedule:
    rule = answer["schedule"]
    when = rule.get("cron") or rule.get("rrule") or f"every {rule['interval']:g} s"
    return Schedule(answer["id"], when, rule.get("timezone"), bool(answer["active"]))


def _flow_runs(client: httpx.Client, deployment_id: str, which: Mapping[str, Any]) -> tuple[FlowRun, ...]:
    """Return the first runs of a deployment that `which` describes, in the order of their time."""
    query = {
        "deployments": {"id": {"any_": [deployment_id]}},
        "flow_runs": which,
        "sort": "EXPECTED_START_TIME_ASC",
        "limit": _MAX_RUNS,
    }
    return tuple(
        FlowRun(run["id"], run["name"], datetime.fromisoformat(run["expected_start_time"]))
        for run in _ask(client, "flow_runs/filter", query)
    )


def _ask(client: httpx.Client, path: str, query: Mapping[str, Any]) -> Any:
    return client.post(path, json=query).raise_for_status().json()


def _reason(error: Exception) -> str:
    """Return in a few words why there was no answer."""
    import httpx

    if isinstance(error, httpx.HTTPStatusError):
        answer = error.response
        if answer.status_code in (401, 403):
            return f"it refuses ({answer.status_code}): set PREFECT_API_KEY, or PREFECT_API_AUTH_STRING, as it expects"
        return f"it answers {answer.request.url.path} with {answer.status_code} {answer.reason_phrase}"
    if isinstance(error, httpx.TimeoutException):
        return "it does not answer in time"
    return str(error) or type(error).__name__


def _profile() -> Mapping[str, str]:
    """Return the settings of Prefect's active profile, none where there is no such file or profile."""
    home = Path(os.environ.get("PREFECT_HOME", "~/.prefect")).expanduser()
    path = Path(os.environ.get("PREFECT_PROFILES_PATH", home / "profiles.toml"))
    try:
        profiles = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    active = os.environ.get("PREFECT_PROFILE") or profiles.get("active", "")
    settings: Mapping[str, str] = profiles.get("profiles", {}).get(active, {})
    return settings


def _headers() -> dict[str, str]:
    """Return what a server behind a password, or Prefect Cloud, wants to see."""
    settings = {**_profile(), **os.environ}
    if key := settings.get("PREFECT_API_KEY"):
        return {"Authorization": f"Bearer {key}"}
    if secret := settings.get("PREFECT_API_AUTH_STRING"):
        return {"Authorization": f"Basic {base64.b64encode(secret.encode()).decode()}"}
    return {}


def _without_password(url: str) -> str:
    return re.sub(r"(//[^/@]*:)[^/@]*@", r"\1***@", url)
