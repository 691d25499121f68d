"""What of a failed shard is done again, without Prefect and without an engine."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from heal_core import interruption
from heal_core.engines.base import EngineConfig
from heal_core.errors import EngineStalledError, TransientError
from heal_core.failures import FailuresConfig
from tasks.shards import run_shard


class Shard:
    """A shard of problems, of which `poisoned` fails."""

    def __init__(self, *problem_ids: str) -> None:
        self.problem_ids = problem_ids
        self.work, self.label, self.cache_key = "rollouts", "rollouts chunk 0", None
        self.model: EngineConfig | None = None

    def by_problem(self) -> dict[str, Shard]:
        return {problem_id: Shard(problem_id) for problem_id in self.problem_ids}


class Task:
    """Stands in for a cached task: counts its calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, ...]] = []

    def with_options(self, **_: Any) -> Task:
        return self

    def __call__(self, session: Any, shard: Shard) -> tuple[str, ...]:
        self.calls.append(shard.problem_ids)
        if "poisoned" in shard.problem_ids:
            raise RuntimeError("as a native library reports whatever it dislikes")
        return shard.problem_ids


@pytest.fixture
def session() -> Any:
    quarantined: list[str] = []
    return SimpleNamespace(
        check_end=interruption.check,
        config=SimpleNamespace(failures=FailuresConfig()),
        phase_name="rollouts",
        quarantine=SimpleNamespace(add=lambda problem_id, *_: quarantined.append(problem_id)),
        quarantined=quarantined,
    )


def test_what_fails_alone_is_out_and_the_rest_is_done(session: Any) -> None:
    task = Task()
    assert list(run_shard(session, task, Shard("a", "poisoned", "b"))) == [("a",), ("b",)]
    assert task.calls == [("a", "poisoned", "b"), ("a",), ("poisoned",), ("b",)]
    assert session.quarantined == ["poisoned"]


def test_a_model_that_does_not_answer_at_all_ends_the_run_before_problems_are_tried_alone(session: Any) -> None:
    class Dead:
        def generate(self, *_: Any) -> Any:
            raise EngineStalledError("no server can be reached")

    session.engine_lock, session.engine = nullcontext(), lambda _: Dead()
    task, shard = Task(), Shard("a", "poisoned", "b")
    shard.model = EngineConfig(model_name_or_path="teacher")
    with pytest.raises(TransientError, match="fails on everything"):
        list(run_shard(session, task, shard))
    # each try alone would have been as long as that of the shard, with all its retries
    assert (task.calls, session.quarantined) == ([("a", "poisoned", "b")], [])


@pytest.mark.parametrize("asked_at", [1, 3], ids=["shard", "problem"])
def test_an_interruption_that_came_out_as_an_error_is_no_problem_of_the_work(
    session: Any, monkeypatch: pytest.MonkeyPatch, asked_at: int
) -> None:
    task = Task()
    monkeypatch.setattr(interruption, "has_come", lambda: len(task.calls) >= asked_at)
    with pytest.raises(KeyboardInterrupt):
        list(run_shard(session, task, Shard("a", "poisoned", "b")))
    assert (len(task.calls), session.quarantined) == (asked_at, [])


def test_an_interruption_whose_exception_was_lost_ends_the_run_before_the_next_shard(
    session: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = Task()
    monkeypatch.setattr(interruption, "has_come", lambda: True)
    with pytest.raises(KeyboardInterrupt):
        list(run_shard(session, task, Shard("a")))
    assert task.calls == []
