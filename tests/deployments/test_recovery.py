"""Which flow runs are put back on the schedule, told by an API that keeps its states in memory."""

from __future__ import annotations

from typing import Any

import pytest

from deployments import recovery
from deployments.recovery import GIVEN_UP, Recovery


class Api:
    """One flow run and its states; every change has a later timestamp."""

    def __init__(self) -> None:
        self.states: list[dict[str, Any]] = []
        self.set_state("a", "RUNNING", "Running", "")

    def read_runs(self, *types: str) -> list[dict[str, Any]]:
        run = {"id": "a", "name": "nightly", "parameters": {}, "state": self.states[-1]}
        return [run] if self.states[-1]["type"] in types else []

    def read_history(self, run_id: str) -> list[dict[str, Any]]:
        return self.states

    def set_state(self, run_id: str, kind: str, name: str, message: str, in_seconds: float | None = None) -> None:
        state = {"type": kind, "name": name, "message": message, "timestamp": f"{len(self.states):04}"}
        self.states.append(state)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(recovery.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(recovery, "find_processes", dict)
    return now


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    told: list[str] = []
    monkeypatch.setattr(recovery, "tell_of_crash", lambda *words: told.append(words[-1]))
    return told


def test_one_kill_is_one_crash_also_when_the_next_process_is_slow_to_start(clock: list[float], told: list[str]) -> None:
    api: Any = Api()
    watch = Recovery(api)
    api.set_state("a", "CRASHED", "Crashed", "exit code -9")
    assert watch.put_back_dead(worker_runs=True) == []
    clock[0] += 11
    assert watch.put_back_dead(worker_runs=True) == ["nightly crashed and goes on"]
    api.set_state("a", "PENDING", "Submitting", "")  # the worker has it again, and its process is not there yet
    clock[0] += 5
    assert watch.put_back_dead(worker_runs=True) == []
    assert (api.states[-1]["name"], told) == ("Submitting", [])


def test_a_run_that_is_given_up_is_told(clock: list[float], told: list[str]) -> None:
    api: Any = Api()
    watch = Recovery(api)
    for _ in range(3):
        api.set_state("a", "RUNNING", "Running", "")
        watch.put_back_dead(worker_runs=False)
    assert api.states[-1]["name"] == GIVEN_UP
    assert told[-1] == "crashed 3 times, and is not started again by itself"
    assert watch.put_back_dead(worker_runs=False) == []
