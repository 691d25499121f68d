"""How many runs may have models loaded at once, over all workspaces that one Prefect server knows.

The limit is the server's: `prefect gcl create heal-models --limit 1`. Where there is none,
nothing is limited. What does not belong here: one run per workspace (the workspace's lock).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import httpx
from prefect.concurrency.sync import concurrency
from prefect.context import FlowRunContext

from heal_core.deadline import Deadline
from heal_core.errors import TimeIsUpError
from tasks.session import logger

LIMIT_NAME = "heal-models"
_LEASE_SECONDS = 60.0
"""A run that was killed gives its slot back after at most this long."""


@contextmanager
def model_slot(deadline: Deadline | None) -> Iterator[None]:
    """Hold one of the server's slots for models; waits for it, and goes on without when the server is silent.

    Raises:
        TimeIsUpError: If none became free before the deadline.
    """
    with ExitStack() as stack:
        if FlowRunContext.get() is not None:
            timeout = max(deadline.seconds_left, 0.1) if deadline else None
            # a lease that cannot be renewed must not end the run: the night is worth more than the limit
            slot = concurrency(
                LIMIT_NAME, timeout_seconds=timeout, lease_duration=_LEASE_SECONDS, raise_on_lease_renewal_failure=False
            )
            try:
                stack.enter_context(slot)
            except TimeoutError as error:
                raise TimeIsUpError(f"no slot of the limit {LIMIT_NAME} became free by {deadline}") from error
            except httpx.HTTPError as error:
                logger.warning("the limit %s was not asked, since the server is silent: %s", LIMIT_NAME, error)
        yield
