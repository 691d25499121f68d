from types import SimpleNamespace
from typing import Any

import pytest
from prefect.cache_policies import NO_CACHE
from prefect.states import Failed

from heal_core.engines.base import EngineConfig, SamplingConfig
from heal_core.errors import EngineStalledError, InputError, ModelError, TransientError
from heal_core.failures import FailuresConfig
from heal_core.plan import Slot
from heal_core.records import Kind
from heal_core.verify.config import VerifyConfig
from tasks.policy import cached_task, decision_task, retried
from tasks.samples import SampleWork, VerifyWork

MODEL, SAMPLING = EngineConfig(model_name_or_path="anywhere"), SamplingConfig()


@cached_task("add up")
def add_up(session: Any, work: Any) -> int:
    return int(work.total)


def slots(num: int, limit_tokens: int = 8) -> list[Slot]:
    return [Slot(Kind.ROLLOUT, "p", "r", index, "prompt", limit_tokens) for index in range(num)]


def sample_key(
    slots: list[Slot], phase: str = "rollouts", epoch: str = "e", sampling: SamplingConfig = SAMPLING
) -> str:
    return SampleWork(phase, "chunk 0", slots, MODEL, sampling, epoch).cache_key


@pytest.mark.parametrize(
    ("error", "retried"),
    [
        (TransientError("try again"), True),
        (EngineStalledError("died"), True),
        (ModelError("no such folder"), False),
        (InputError("no rows"), False),
        (ZeroDivisionError("a defect"), False),
    ],
)
def test_only_what_may_pass_is_retried(error: Exception, retried: bool) -> None:
    assert add_up.retry_condition_fn(None, None, Failed(data=error)) is retried


def test_a_run_says_how_often_and_with_which_pauses_a_task_is_tried() -> None:
    task = retried(add_up, FailuresConfig(max_retries=4, retry_delay_seconds=50))
    # 50 * 4^i: 50, 200, 800 and 3200, the last two bounded by 10 minutes
    assert (task.retries, task.retry_delay_seconds) == (4, [50.0, 200.0, 600.0, 600.0])
    assert task.retry_jitter_factor == 0.5
    assert task.retry_condition_fn is add_up.retry_condition_fn
    assert retried(add_up, FailuresConfig(max_retries=0)).retries == 0


def test_a_cached_task_is_keyed_by_its_work_alone() -> None:
    work = SimpleNamespace(cache_key="key of the work", total=3)
    assert add_up.cache_key_fn(None, {"session": object(), "work": work}) == "key of the work"
    assert add_up.cache_key_fn(None, {"session": object(), "work": SimpleNamespace(cache_key=None)}) is None
    assert add_up.persist_result
    assert add_up.fn(None, work) == 3


def test_a_decision_is_never_cached() -> None:
    decide = decision_task("decide")(lambda: 1)
    assert decide.cache_policy is NO_CACHE
    assert not decide.persist_result
    assert not decide.retries


def test_a_sampling_key_is_the_demand_whatever_its_order() -> None:
    assert sample_key(slots(3)) == sample_key(slots(3)[::-1])


def test_a_sampling_key_changes_with_number_limit_phase_and_store() -> None:
    keys = [
        sample_key(slots(3)),
        sample_key(slots(4)),
        sample_key(slots(3, limit_tokens=9)),
        sample_key(slots(3), phase="evaluation"),
        sample_key(slots(3), epoch="another"),
    ]
    assert len(set(keys)) == len(keys)


def test_a_verifying_key_changes_with_rows_time_limit_and_store() -> None:
    keys = [
        VerifyWork("rollouts", "chunk 0", ids, VerifyConfig(), epoch).cache_key
        for ids in (["a"], ["a", "b"])
        for epoch in "ef"
    ]
    assert len(set(keys)) == 4
    assert (
        len({VerifyWork("rollouts", "chunk 0", ids, VerifyConfig(), "e").cache_key for ids in (["b", "a"], ["a", "b"])})
        == 1
    )
