"""Running a shard: some chunks of problems as one task, and after it failed, its problems one by one.

So one poisoned problem does not sink a phase. What does not belong here: retries of a
task (`policy`), what is out of the run (`quarantine`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from heal_core import interruption
from heal_core.engines.base import EngineConfig, GenerationRequest, SamplingConfig
from heal_core.errors import HealError, TransientError, in_one_line
from heal_core.failures import may_be_of_a_problem
from heal_core.logs import log_context
from heal_core.prompts import student_prompt
from tasks.policy import retried
from tasks.session import Session, logger

PROBE_ID = "probe"
_PROBE = GenerationRequest(PROBE_ID, student_prompt("What is 1 + 1?"), max_tokens=1)
_PROBE_TRIES = 2


class Shard(Protocol):
    """What a task of `policy.cached_task` is given.

    Attributes:
        work: What is being made, for instance "hints try 0".
        label: `work` and the chunks, for people.
        cache_key: Content key; None runs the task in any case.
        model: What is asked for it; None where no engine is.
    """

    work: str
    label: str
    cache_key: str | None
    model: EngineConfig | None

    def by_problem(self) -> Mapping[str, Shard]:
        """Return the same work cut into one shard per problem id."""
        ...


def run_shard(session: Session, task: Any, shard: Any) -> Iterator[Any]:
    """Yield what the task made of a shard; if it failed after its tries, what it made of each problem alone.

    A problem that fails alone goes to the quarantine, and nothing is yielded for it.

    Raises:
        LimitReachedError, KeyboardInterrupt: If the run has to end now.
        HealError: If the fault is not a problem's: the engine does nothing else either.
    """
    session.check_end()
    task = retried(task, session.config.failures)
    with log_context(shard=shard.label):
        try:
            result = task(session, shard)
        except Exception as error:
            interruption.check()  # before it is taken for a fault of the work
            if not may_be_of_a_problem(error):
                raise
            if shard.model is not None:  # tries alone of one that is down would be as many minutes again
                _check_engine(session, shard.model, error)
            logger.warning("%s failed, its problems are tried alone: %s", shard.label, _describe(error))
            yield from _run_alone(session, task, shard)
            return
    yield result


def _run_alone(session: Session, task: Any, shard: Any) -> Iterator[Any]:
    for problem_id, alone in shard.by_problem().items():
        session.check_end()
        try:
            result = task(session, alone)
        except Exception as error:
            interruption.check()
            if not may_be_of_a_problem(error):
                raise
            if shard.model is not None:
                _check_engine(session, shard.model, error)
            logger.warning("problem %s failed at %s: %s", problem_id, shard.work, _describe(error))
            session.quarantine.add(problem_id, session.phase_name, shard.work, error)
        else:
            yield result


def _check_engine(session: Session, model: EngineConfig, error: Exception) -> None:
    """See the engine answer something else than what just failed.

    Without that, a server that is down for an hour would put all problems in quarantine.

    Raises:
        TransientError: If it does not.
    """
    for _ in range(_PROBE_TRIES):
        try:
            with session.engine_lock:
                list(session.engine(model).generate([_PROBE], SamplingConfig(max_tokens=1)))
            return
        except HealError as second:
            last = second
    raise TransientError(
        f"{model.model_name_or_path} fails on everything, so that no problem was put in quarantine: "
        f"{_describe(last)}. Mend the cause and start the run again: it goes on from what is stored."
    ) from error


def _describe(error: BaseException) -> str:
    return in_one_line(f"{type(error).__name__}: {error}")
