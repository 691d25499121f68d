"""Running a shard: a chunk of problems as one task, and after it failed, its problems one by one.

So one poisoned problem does not sink a phase. What does not belong here: retries of a
task (`policy`), what is out of the run (`quarantine`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from heal_core.failures import may_be_of_a_problem
from heal_core.logs import log_context
from tasks.policy import retried
from tasks.session import Session, logger


class Shard(Protocol):
    """What a task of `policy.cached_task` is given.

    Attributes:
        work: What is being made, for instance "hints try 0".
        label: `work` and the chunk, for people.
        cache_key: Content key; None runs the task in any case.
    """

    work: str
    label: str
    cache_key: str | None

    def by_problem(self) -> Mapping[str, Shard]:
        """Return the same work cut into one shard per problem id."""
        ...


def run_shard(session: Session, task: Any, shard: Any) -> Iterator[Any]:
    """Yield what the task made of a shard; if it failed after its tries, what it made of each problem alone.

    A problem that fails alone goes to the quarantine, and nothing is yielded for it.

    Raises:
        TimeIsUpError: If the run has to end now.
        HealError: If the fault is not a problem's.
    """
    session.check_time()
    task = retried(task, session.config.failures)
    with log_context(shard=shard.label):
        try:
            result = task(session, shard)
        except Exception as error:
            if not may_be_of_a_problem(error):
                raise
            logger.warning("%s failed, its problems are tried alone: %s", shard.label, _first_line(error))
            yield from _run_alone(session, task, shard)
            return
    session.quarantine.settle()
    yield result


def _run_alone(session: Session, task: Any, shard: Any) -> Iterator[Any]:
    for problem_id, alone in shard.by_problem().items():
        session.check_time()
        try:
            result = task(session, alone)
        except Exception as error:
            if not may_be_of_a_problem(error):
                raise
            logger.warning("problem %s failed at %s: %s", problem_id, shard.work, _first_line(error))
            session.quarantine.suspect(problem_id, session.phase_name, shard.work, error)
        else:
            session.quarantine.settle()
            yield result


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".partition("\n")[0]
