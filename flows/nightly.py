"""The flows that deployments schedule. Their parameters are JSON, so that a server, a file or a form can give them.

What does not belong here: when they run (`deployments/prefect.yaml`), and what a run does (`heal`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from prefect import flow, runtime
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from prefect.filesystems import LocalFileSystem
from prefect.results import ResultStore
from prefect.states import Completed

from flows.crash import tell_of_crash
from flows.heal import TASK_RUNNER, distil
from flows.outcome import announced
from heal_core import interruption
from heal_core.config import RunConfig, load_config
from heal_core.deadline import Deadline, parse_deadline
from heal_core.records import EVALUATION
from heal_core.store.workspace import Workspace


def _name() -> str:
    run = runtime.flow_run
    return _name_for_people(run.flow_name, run.parameters, run.scheduled_start_time)


def _name_for_people(flow_name: str, parameters: Mapping[str, Any], scheduled: datetime) -> str:
    """Return a flow run's name: what runs, on which config, of which day."""
    config = Path(str(parameters.get("config", ""))).stem
    return f"{flow_name} {config} {scheduled.astimezone():%Y-%m-%d %H:%M}"  # Prefect tells it in UTC


def _tell_of_crash(flow: Any, flow_run: Any, state: Any) -> None:
    """What a worker calls when the process of a run of its is lost, and the process itself when it was asked to end."""
    if interruption.has_come():
        return
    # the worker knows the run as it was before it began, when it had no name yet but a random one
    name = _name_for_people(flow.name, flow_run.parameters, flow_run.expected_start_time)
    tell_of_crash(str(flow_run.id), name, flow_run.parameters, state.message)


@flow(name="nightly", flow_run_name=_name, task_runner=TASK_RUNNER, on_crashed=[_tell_of_crash])
def nightly(
    config: str, overrides: list[str] | None = None, until: str | None = None, retry: bool = False
) -> State[dict[str, Any]]:
    """Return the outcome of a night: problems that are new are taken in, what exists is reused.

    Args:
        config: Path of the YAML file.
        overrides: Settings that replace those of the file, as `a.b=c`.
        until: When to stop cleanly, as `07:00` or an ISO date and time; the next night goes on from there.
        retry: Try the problems again that the last attempt of this very run has in quarantine.
    """
    settings = load_config(config, overrides or [])
    deadline = _deadline(settings, until)
    with _results_in(settings):
        return _as_state(distil(settings, deadline, retry))


@flow(name="evaluate-latest", flow_run_name=_name, task_runner=TASK_RUNNER, on_crashed=[_tell_of_crash])
def evaluate_latest(config: str, overrides: list[str] | None = None, until: str | None = None) -> State[dict[str, Any]]:
    """Return the scores of the promoted student, the untrained student and the teacher on today's held-out problems.

    Args:
        config: Path of the YAML file.
        overrides: Settings that replace those of the file, as `a.b=c`.
        until: When to stop cleanly.
    """
    settings = load_config(config, overrides or [])
    if settings.evaluation.student is None and not (Workspace(settings.workspace).students / "latest").is_symlink():
        # a schedule may well come before the first promotion, and nothing is wrong then
        none: State[dict[str, Any]] = Completed(name="No student yet", message="no student has been promoted so far")
        return none
    deadline = _deadline(settings, until)
    with _results_in(settings):
        return _as_state(distil(settings, deadline, purpose=EVALUATION))


def _deadline(config: RunConfig, until: str | None) -> Deadline | None:
    """Return when the night ends: counted from when it was to begin, not from when a worker was free.

    One that is begun again after its end, because someone asked for it, has until the next.
    """
    if until is None:
        return None
    with announced(config):
        deadline = parse_deadline(until, runtime.flow_run.scheduled_start_time)
        if deadline.seconds_left <= 0 and (runtime.flow_run.run_count or 1) > 1:
            deadline = parse_deadline(until)
        return deadline


@contextmanager
def _results_in(config: RunConfig) -> Iterator[None]:
    """Keep the tasks' results in the workspace: a worker's own storage is shared by all that it runs."""
    context = FlowRunContext.get()
    assert context is not None, "called outside of a flow"
    workspace = Workspace(config.workspace)
    workspace.create()
    store = ResultStore(result_storage=LocalFileSystem(basepath=str(workspace.cache)))
    with context.model_copy(update={"result_store": store}):
        yield


def _as_state(outcome: dict[str, Any]) -> State[dict[str, Any]]:
    """Return the outcome as a Prefect state whose name says more than "Completed"."""
    names = {"nothing_new": "Nothing new", "stopped": "Stopped"}
    num_failed = outcome.get("quarantined", {}).get("problems", 0)
    done = f"Completed, {num_failed} quarantined" if num_failed else "Completed"
    state: State[dict[str, Any]] = Completed(
        name=names.get(outcome["state"], done), message=outcome["title"], data=outcome
    )
    return state
