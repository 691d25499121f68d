"""How every task behaves: skipped by content key, retried only when it may help, named for people.

The cache may only skip; what is done is decided by the store. Sessions are passed by
reference and are never part of a key.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.context import TaskRunContext

from heal_core import interruption
from heal_core.failures import FailuresConfig, may_pass

_JITTER_FACTOR = 0.5


def _given_key(_: TaskRunContext, parameters: dict[str, Any]) -> str | None:
    """Return the key that the caller computed; None runs the task."""
    key: str | None = parameters["work"].cache_key
    return key


def _may_pass(_: Any, __: Any, state: Any) -> bool:
    """Return whether a failure is of the kind that a retry can mend, in a process that is not to end."""
    return not interruption.has_come() and may_pass(state.result(raise_on_failure=False))


def cached_task(name: str) -> Any:
    """Return the decorator of a task whose parameter `work` has a `cache_key` and a `label`."""
    return task(
        name=name,
        task_run_name=f"{name} {{work.label}}",
        cache_key_fn=_given_key,
        persist_result=True,
        result_serializer="json",
        retry_jitter_factor=_JITTER_FACTOR,
        retry_condition_fn=_may_pass,
    )


@lru_cache
def retried(cached: Any, config: FailuresConfig) -> Any:
    """Return a task of `cached_task` with the run's retries: exponential pauses with jitter, only for what may pass."""
    return cached.with_options(retries=config.max_retries, retry_delay_seconds=config.delays_seconds())


def decision_task(name: str) -> Any:
    """Return the decorator of a set-level task: recomputed in every run, never cached."""
    return task(name=name, task_run_name=name, cache_policy=NO_CACHE, persist_result=False)
