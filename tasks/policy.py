"""How every task behaves: skipped by content key, retried only when it may help, named for people.

The cache may only skip; what is done is decided by the store. Sessions are passed by
reference and are never part of a key.
"""

from __future__ import annotations

from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.context import TaskRunContext

from heal_core.errors import TransientError

MAX_RETRIES = 3
RETRY_DELAYS_SECONDS = [5.0, 20.0, 60.0]


def _given_key(_: TaskRunContext, parameters: dict[str, Any]) -> str | None:
    """Return the key that the caller computed; None runs the task."""
    key: str | None = parameters["work"].cache_key
    return key


def _may_pass(_: Any, __: Any, state: Any) -> bool:
    """Return whether a failure is of the kind that a retry can mend."""
    return isinstance(state.result(raise_on_failure=False), TransientError)


def cached_task(name: str) -> Any:
    """Return the decorator of a task whose parameter `work` has a `cache_key` and a `label`."""
    return task(
        name=name,
        task_run_name=f"{name} {{work.label}}",
        cache_key_fn=_given_key,
        persist_result=True,
        result_serializer="json",
        retries=MAX_RETRIES,
        retry_delay_seconds=RETRY_DELAYS_SECONDS,
        retry_jitter_factor=0.5,
        retry_condition_fn=_may_pass,
    )


def decision_task(name: str) -> Any:
    """Return the decorator of a set-level task: recomputed in every run, never cached."""
    return task(name=name, task_run_name=name, cache_policy=NO_CACHE, persist_result=False)
