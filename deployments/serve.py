"""`python -m deployments.serve CONFIG`: HEAL's deployments without a work pool and a worker.

This process starts the runs itself, as `flow.serve` does. It uses the server in
PREFECT_API_URL, or has one of its own for as long as it lives. What does not belong here:
the deployments (`prefect.yaml`); `make deploy-local` also starts again what crashed.
"""

from __future__ import annotations

import asyncio
import dataclasses
import importlib
import os
import signal
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from deployments.api import PrefectApi
from deployments.local import MODELS_LIMIT, ROOT, Settings, read_deployments, say
from deployments.processes import new_server, only_one, use_server, wait_until_healthy
from deployments.recovery import Recovery
from flows.server import is_named
from heal_core.errors import HealError


def main(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="The settings of the runs.")],
    cron: Annotated[str | None, typer.Option(help="When a night starts, such as '0 22 * * *'.")] = None,
    evaluation_cron: Annotated[str | None, typer.Option(help="When the promoted student is scored.")] = None,
    timezone: Annotated[str | None, typer.Option(help="Of both, and of --until, such as Europe/Berlin.")] = None,
    until: Annotated[str | None, typer.Option(help="When a night stops, such as 07:00; '' for never.")] = None,
) -> None:
    """Serve the deployments of deployments/prefect.yaml, which also has what is not given here, until Ctrl-C."""
    said = Settings.from_environment()
    settings = dataclasses.replace(
        said,
        config=str(config),
        cron=cron or said.cron,
        evaluation_cron=evaluation_cron or said.evaluation_cron,
        timezone=timezone or said.timezone,
        until=said.until if until is None else until,
    )
    try:
        deployments = read_deployments(settings)["deployments"]
        os.chdir(ROOT)
        with ExitStack() as stack:
            if not is_named():
                _start_server(settings, stack)
            os.environ.update(deployments[0]["work_pool"]["job_variables"]["env"])
            _serve(deployments)
    except HealError as error:
        typer.echo(f"{type(error).__name__}: {error}", err=True)
        raise typer.Exit(2) from error


def _start_server(settings: Settings, stack: ExitStack) -> None:
    """Start a server that ends with `stack`, after what was interrupted has been put back."""
    stack.enter_context(only_one(settings.home, settings.port))
    address = use_server(settings.home, settings.port)
    server = new_server(settings.home, settings.port)
    api = stack.enter_context(PrefectApi(f"{address}/api"))
    say(f"starting Prefect's server on {address}")
    server.start()
    stack.callback(server.stop, 15)
    wait_until_healthy(server, api)
    api.ensure_limit(MODELS_LIMIT, 1)
    recovery = Recovery(api)
    for sentence in recovery.put_back_dead(worker_runs=False):
        say(sentence)
    stack.callback(lambda: list(map(say, recovery.interrupt(lambda: None, 20))))


def _serve(deployments: list[dict[str, Any]]) -> None:
    """Serve until Ctrl-C or SIGTERM, as `prefect.serve` does; that one answers SIGTERM with tracebacks."""
    from prefect.client.schemas.objects import ConcurrencyLimitConfig  # Prefect reads the environment when imported
    from prefect.runner import Runner
    from prefect.schedules import Cron

    class OurRunner(Runner):
        def handle_sigterm(self, *args: Any, **kwargs: Any) -> None:
            os.kill(os.getpid(), signal.SIGINT)

    runner = OurRunner(pause_on_shutdown=False)
    for deployment in deployments:
        module, function = deployment["entrypoint"].split(".py:")
        flow = getattr(importlib.import_module(module.replace("/", ".")), function)
        limit = deployment.get("concurrency_limit")
        runner.add_deployment(
            flow.to_deployment(
                deployment["name"],
                description=deployment["description"],
                parameters=deployment["parameters"],
                schedules=[
                    Cron(schedule["cron"], timezone=schedule["timezone"])
                    for schedule in deployment.get("schedules", [])
                ],
                concurrency_limit=ConcurrencyLimitConfig(**limit) if limit else None,
            )
        )
        when = ", ".join(f"{schedule['cron']} {schedule['timezone']}" for schedule in deployment.get("schedules", []))
        say(f"serving {flow.name}/{deployment['name']}: {when or 'when started by hand'}")
    say(f"web page: {os.environ['PREFECT_API_URL'].removesuffix('/api')}; stop with Ctrl-C")
    with suppress(KeyboardInterrupt):
        asyncio.run(runner.start())
    say("stopping")


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    app()
