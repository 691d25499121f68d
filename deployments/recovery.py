"""Flow runs that were interrupted go back on the schedule; the store decides what of them is left to do.

Prefect leaves a run in state Running for ever when its process and its worker were killed
(a reset, no memory), and when a worker was asked to stop. A run that crashed stays so.
Here both are started again, a few times. What does not belong here: anything about what
a run does.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from deployments.api import FlowRun, PrefectApi
from flows.crash import tell_of_crash

MAX_CRASHES = 3
"""A run that has crashed so often is not started again by itself."""

GIVEN_UP = "GivenUp"
INTERRUPTED = "Interrupted"
"""Names of states, beside Prefect's own."""

_DELAY_SECONDS = 60.0
_WORKERS_SECONDS = 10.0
_RUN_VARIABLE = b"PREFECT__FLOW_RUN_ID="


@dataclass
class Recovery:
    """Puts interrupted flow runs back on the schedule. It remembers since when they look dead, in which state.

    A worker notices the end of its runs itself, a moment later, and reports a crash twice,
    seconds apart. So while one works, a run must have looked dead or crashed for a while.
    """

    api: PrefectApi
    _dead_since: dict[tuple[str, str], float] = field(default_factory=dict)

    def put_back_dead(self, worker_runs: bool) -> list[str]:
        """Put back the runs that crashed, and those that have no process; return a sentence for each."""
        alive, now = find_processes(), time.monotonic()
        runs = [
            run
            for run in self.api.read_runs("PENDING", "RUNNING", "CANCELLING", "CRASHED")
            if run["id"] not in alive and run["state"]["name"] != GIVEN_UP
        ]
        # in each state anew: one that was put back and is being started has no process yet either
        self._dead_since = {key: self._dead_since.get(key, now) for key in map(_run_in_state, runs)}
        said = []
        for run in runs:
            if worker_runs and now - self._dead_since[_run_in_state(run)] < _WORKERS_SECONDS:
                continue
            if run["state"]["type"] == "CANCELLING":
                self.api.set_state(run["id"], "CANCELLED", "Cancelled", "its process is gone")
            else:
                said.append(self._put_back(run))
        return said

    def interrupt(self, stop_worker: Callable[[], None], seconds: float) -> list[str]:
        """End the runs and the worker, and put the runs back; return a sentence for each.

        The processes of the runs are asked to end, and killed after so long. A worker
        that is stopped before them would kill them at once and say nothing to the server.
        """
        asked = self.api.read_runs("PENDING", "RUNNING")
        _signal(asked, signal.SIGTERM)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and (alive := find_processes()) and any(run["id"] in alive for run in asked):
            time.sleep(0.1)
        stop_worker()
        running = self.api.read_runs("PENDING", "RUNNING")
        _signal(running, signal.SIGKILL)
        ids = {run["id"] for run in asked}
        crashed = [run for run in self.api.read_runs("CRASHED") if run["id"] in ids]
        for run in [*running, *crashed]:
            self.api.set_state(run["id"], "SCHEDULED", INTERRUPTED, "goes on when there is a worker again", 0)
        return [f"{run['name']} was interrupted and goes on at the next start" for run in [*running, *crashed]]

    def _put_back(self, run: FlowRun) -> str:
        name = run["name"]
        if run["state"]["type"] != "CRASHED":
            why = "its process is gone: killed, or the machine went down"
            self.api.set_state(run["id"], "CRASHED", "Crashed", why)
            tell_of_crash(run["id"], name, run["parameters"], why)  # where a worker has seen it, that has told
        num_crashes = self._count_crashes(run)
        if num_crashes >= MAX_CRASHES:
            message = f"crashed {num_crashes} times, and is not started again by itself"
            self.api.set_state(run["id"], "CRASHED", GIVEN_UP, message)
            tell_of_crash(run["id"], name, run["parameters"], message)
            return f"{name} {message}. When the cause is mended: prefect flow-run retry {run['id']}"
        in_seconds = 0.0 if num_crashes == 1 else _DELAY_SECONDS
        self.api.set_state(run["id"], "SCHEDULED", "AwaitingRetry", "goes on where it was interrupted", in_seconds)
        return f"{name} crashed and goes on" + (f" in {in_seconds:.0f} s" if in_seconds else "")

    def _count_crashes(self, run: FlowRun) -> int:
        """Return how often it crashed since a schedule, a person or an interruption put it on the schedule."""
        num_crashes, before = 0, ""
        for state in self.api.read_history(run["id"]):
            if state["name"] in ("Scheduled", INTERRUPTED):
                num_crashes = 0
            num_crashes += state["type"] == "CRASHED" and before != "CRASHED"
            before = state["type"]
        return num_crashes


def _run_in_state(run: FlowRun) -> tuple[str, str]:
    return run["id"], str(run["state"]["timestamp"])


def find_processes() -> dict[str, list[int]]:
    """Return the processes of each flow run on this machine, by its id; they have it in their environment."""
    found: dict[str, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):  # it ended, or is another user's
            for variable in path.read_bytes().split(b"\0"):
                if variable.startswith(_RUN_VARIABLE):
                    found.setdefault(variable[len(_RUN_VARIABLE) :].decode(), []).append(int(path.parent.name))
    return found


def _signal(runs: list[FlowRun], number: signal.Signals) -> None:
    """Send a signal to the first process of each run; what that has started ends with it."""
    processes = find_processes()
    for run in runs:
        ours = processes.get(run["id"], [])
        for process_id in ours:
            with suppress(OSError):  # it has ended
                if _parent(process_id) not in ours:
                    os.kill(process_id, number)


def _parent(process_id: int) -> int:
    """Return the parent of a process: the second field after its name, which is in brackets and may have any sign."""
    return int(Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[1])
