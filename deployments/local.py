"""`make deploy-local`: a Prefect server, a work pool and a worker on this machine, with HEAL's deployments.

It stays in the foreground, starts again what ends by itself, and puts interrupted runs
back on the schedule. What does not belong here: when runs start (`prefect.yaml`), and
what they do (`flows/nightly.py`).
"""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import httpx
import typer
import yaml

from deployments.api import PrefectApi
from deployments.processes import (
    Child,
    ServerError,
    new_server,
    only_one,
    run_prefect,
    use_server,
    wait_until_healthy,
)
from deployments.recovery import Recovery
from flows.schedule import POOL
from heal_core.config import load_config
from heal_core.deadline import parse_deadline
from heal_core.errors import ConfigError, HealError

ROOT = Path(__file__).parents[1]
PREFECT_FILE = ROOT / "deployments" / "prefect.yaml"
MODELS_LIMIT = "heal-models"
"""The global concurrency limit that a run takes a slot of while a model is loaded."""

_STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_WATCH_SECONDS = 5.0
_RUN_SECONDS = 20.0
_WORKER_SECONDS = 10.0
_SERVER_SECONDS = 15.0


@dataclass(frozen=True)
class Settings:
    """What the environment says; None leaves what `prefect.yaml` says."""

    home: Path
    port: int
    config: str | None
    cron: str | None
    evaluation_cron: str | None
    timezone: str | None
    until: str | None

    @classmethod
    def from_environment(cls) -> Settings:
        """Return the settings in HEAL_*.

        Raises:
            ConfigError: If the port is no number.
        """
        port = os.environ.get("HEAL_PORT", "4200")
        if not port.isdecimal():
            raise ConfigError(f"HEAL_PORT is {port!r}, expected a number such as 4200.")
        return cls(
            home=Path(os.environ.get("HEAL_PREFECT_HOME", ROOT / ".prefect")).absolute(),
            port=int(port),
            config=os.environ.get("HEAL_CONFIG"),
            cron=os.environ.get("HEAL_CRON"),
            evaluation_cron=os.environ.get("HEAL_EVALUATION_CRON"),
            timezone=os.environ.get("HEAL_TIMEZONE"),
            until=os.environ.get("HEAL_UNTIL"),
        )


def main() -> None:
    """Run until Ctrl-C or SIGTERM; exit code 2 for a mistake in what was asked, 1 if Prefect fails."""
    for number in _STOPS:
        signal.signal(number, _interrupt)
    try:
        settings = Settings.from_environment()
        deployments = read_deployments(settings)
        with only_one(settings.home, settings.port):
            _serve(settings, deployments)
    except HealError as error:
        typer.echo(f"{type(error).__name__}: {error}", err=True)
        sys.exit(2 if isinstance(error, ConfigError) else 1)
    except KeyboardInterrupt:
        sys.exit(130)


def read_deployments(settings: Settings) -> dict[str, Any]:
    """Return `prefect.yaml` with what the environment sets.

    Raises:
        ConfigError: If a time zone, a time or a config cannot be used.
    """
    try:
        tree: dict[str, Any] = yaml.safe_load(PREFECT_FILE.read_text())
    except yaml.YAMLError as error:
        raise ConfigError(f"{PREFECT_FILE} is no YAML: {error}") from error
    crons = {"nightly": settings.cron, "evaluate-latest": settings.evaluation_cron}
    for deployment in tree["deployments"]:
        parameters = deployment["parameters"]
        if settings.config is not None:
            parameters["config"] = str(Path(settings.config).absolute())
        if settings.until is not None and deployment["name"] == "nightly":
            parameters["until"] = settings.until or None
        for schedule in deployment.get("schedules", []):
            schedule["cron"] = crons.get(deployment["name"]) or schedule["cron"]
            schedule["timezone"] = settings.timezone or schedule["timezone"]
            deployment["work_pool"]["job_variables"]["env"]["TZ"] = schedule["timezone"]
            _check_timezone(schedule["timezone"])
            _check_cron(schedule["cron"])
        _check_until(parameters.get("until"))
        load_config(ROOT / parameters["config"], parameters["overrides"])
    return tree


def _check_until(until: Any) -> None:
    if not isinstance(until, str | None):  # YAML reads 22:00 as a number of minutes
        raise ConfigError(f'`until` is {until!r}, expected a time in quotes, such as "07:00".')
    if until is not None:
        parse_deadline(until)


def _check_timezone(name: str) -> None:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise ConfigError(f"there is no time zone {name!r}; expected a name such as Europe/Berlin or UTC.") from error


def _check_cron(line: str) -> None:
    from prefect.client.schemas.schedules import CronSchedule  # takes seconds

    try:
        CronSchedule(cron=line)
    except ValueError as error:
        raise ConfigError(
            f"{line!r} is no cron line; expected five fields, such as '0 23 * * *' for 23:00 every day."
        ) from error


def _serve(settings: Settings, deployments: dict[str, Any]) -> None:
    """Start everything, watch over it, and end it in order."""
    address = use_server(settings.home, settings.port)
    server = new_server(settings.home, settings.port)
    worker = Child(
        "worker", ["worker", "start", "--pool", POOL, "--name", "local"], server.log_path.with_name("worker.log")
    )
    with PrefectApi(f"{address}/api") as api:
        recovery = Recovery(api)
        say(f"starting Prefect's server on {address}")
        server.start()
        try:
            wait_until_healthy(server, api)
            say("deploying")
            deploy(settings.home, deployments, api)
            for sentence in recovery.put_back_dead(worker_runs=False):
                say(sentence)
            worker.start()
            _tell(settings, address, api)
            _watch(server, worker, api, recovery)
        except KeyboardInterrupt:
            for number in _STOPS:
                signal.signal(number, signal.SIG_IGN)
            say("stopping")
            _stop(server, worker, recovery)
        except httpx.HTTPError as error:
            raise ServerError(f"Prefect's server failed: {error}; see {server.log_path}") from error
        finally:
            worker.stop(_WORKER_SECONDS)
            server.stop(_SERVER_SECONDS)
    say("stopped; the schedule rests until the next start")


def deploy(home: Path, deployments: dict[str, Any], api: PrefectApi) -> None:
    """Create what is missing on the server, and deploy.

    Raises:
        ServerError: If Prefect refuses a deployment.
    """
    api.ensure_pool(POOL)
    api.ensure_limit(MODELS_LIMIT, 1)
    _keep_paused(deployments, api)
    path = home / "deployed.yaml"
    path.write_text(yaml.safe_dump(deployments, sort_keys=False))
    run_prefect(["deploy", "--all", "--prefect-file", str(path)], home / "logs" / "deploy.log", ROOT)


def _keep_paused(deployments: dict[str, Any], api: PrefectApi) -> None:
    """Pause in the file what is paused on the server; Prefect would take up its schedule again."""
    existing = {deployment["name"]: deployment for deployment in api.read_deployments()}
    for deployment in deployments["deployments"]:
        before = existing.get(deployment["name"], {"paused": False, "schedules": []})
        deployment["paused"] = before["paused"]
        if before["schedules"] and not any(schedule["active"] for schedule in before["schedules"]):
            for schedule in deployment.get("schedules", []):
                schedule["active"] = False


def _watch(server: Child, worker: Child, api: PrefectApi, recovery: Recovery) -> None:
    """Look after children and runs, and tell what happens to them, for ever."""
    names = {deployment["id"]: _name(deployment) for deployment in api.read_deployments()}
    told: dict[str, str] | None = None
    while True:
        try:
            sentences = recovery.put_back_dead(worker_runs=True)
            states = _read_states(api, names)
            sentences += [states[run] for run in reversed(states) if told is not None and told.get(run) != states[run]]
            told = states
        except httpx.HTTPError:  # the server is restarting
            sentences = []
        for sentence in sentences + [child.restart_if_ended() for child in (server, worker)]:
            say(sentence)
        time.sleep(_WATCH_SECONDS)


def _read_states(api: PrefectApi, names: dict[str, str]) -> dict[str, str]:
    """Return a sentence on each of the latest runs, the latest first; `names` are those of the deployments."""
    told = {}
    for run in api.read_runs(
        "RUNNING", "CANCELLING", "COMPLETED", "FAILED", "CRASHED", "CANCELLED", "PAUSED", limit=20
    ):
        state, has_begun = run["state"], run["run_count"] > 0  # until then its name is two random words
        name = run["name"] if has_begun else f"a run of {names.get(run['deployment_id'], 'another deployment')}"
        why = state["message"] and state["type"] != "COMPLETED"
        told[run["id"]] = f"{name}: {state['name']}" + (f" ({state['message'].splitlines()[0]})" if why else "")
        if state["type"] in ("FAILED", "CRASHED"):
            told[run["id"]] += f"; prefect flow-run logs {run['id']}"
    return told


def _stop(server: Child, worker: Child, recovery: Recovery) -> None:
    """End runs, worker and server, in this order, so that the server hears of what was interrupted."""
    if server.exit_code is None:
        try:
            for sentence in recovery.interrupt(lambda: worker.stop(_WORKER_SECONDS), _RUN_SECONDS):
                say(sentence)
        except httpx.HTTPError:
            say("the server does not answer; what was running is put back at the next start")


def _tell(settings: Settings, address: str, api: PrefectApi) -> None:
    """Say what will run when, where to look, and what to type."""
    prefect = _for_people(Path(sys.executable).with_name("prefect"))
    typer.echo(f"\nHEAL is deployed ({_for_people(PREFECT_FILE)}) and runs until Ctrl-C.\n")
    for deployment in api.read_deployments():
        typer.echo(f"  {_name(deployment):32} {_describe_next(api, deployment)}")
        config = deployment["parameters"]["config"]
    typer.echo(f"""
  config         {config}
  web page       {address}
  other shells   export PREFECT_API_URL={address}/api
  start one now  {prefect} deployment run nightly/nightly
  logs of a run  on the web page, or {prefect} flow-run logs ID
  other logs     {_for_people(settings.home / "logs")}
  stop           Ctrl-C: a run in progress is interrupted, and goes on at the next start
""")


def _name(deployment: dict[str, Any]) -> str:
    return f"{deployment['flow_name']}/{deployment['name']}"


def _for_people(path: Path) -> str:
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


def _describe_next(api: PrefectApi, deployment: dict[str, Any]) -> str:
    schedules = [schedule for schedule in deployment["schedules"] if schedule["active"]]
    if not deployment["schedules"]:
        return "when started by hand"
    if not schedules or deployment["paused"]:
        return "paused; the web page has the switch"
    deadline = time.monotonic() + 15
    while (run := api.read_next_run(deployment["id"])) is None and time.monotonic() < deadline:
        time.sleep(0.5)  # the server's scheduler has a look every few seconds
    if run is None:
        return "no run is scheduled yet"
    zone = schedules[0]["schedule"]["timezone"] or "UTC"
    starts_at = datetime.fromisoformat(run["next_scheduled_start_time"]).astimezone(ZoneInfo(zone))
    minutes = int((starts_at - datetime.now(UTC)).total_seconds() / 60)
    until = deployment["parameters"].get("until")
    window = f"{starts_at:%a %d %b %H:%M}" + (f" to {until}" if until else "")
    return f"{window} {zone}, in {minutes // 60} h {minutes % 60} min"


def say(sentence: str | None) -> None:
    """Print a line with the time; what is to be done is done also when the terminal is gone."""
    with suppress(OSError):
        if sentence:
            typer.echo(f"{datetime.now():%H:%M:%S} {sentence}")


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
