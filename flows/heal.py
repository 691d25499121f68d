"""HEAL, as a table of contents: the order of the method's phases. Each phase's module says how.

Run it with `heal run CONFIG.yaml`; it runs the same under a Prefect server, where
`flows.nightly` has what is scheduled. Every phase reads the store and writes to it, so that
running it again is the resume, and each can be run alone (`heal run CONFIG.yaml --phase repairs`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner

from flows.controls import run_controls
from flows.equal_tokens import spend_equal_tokens
from flows.evaluation import evaluate_arms, evaluate_one
from flows.outcome import announced, publish_summary
from flows.profiles import profile_and_band
from flows.promotion import promote_student
from flows.repair import repair_and_guide
from flows.rollouts import sample_rollouts
from flows.selection import select_examples
from flows.training import train_arms
from flows.validity import validate_pure
from heal_core import interruption
from heal_core.config import RunConfig
from heal_core.deadline import Deadline
from heal_core.errors import ConfigError, LimitReachedError, StoreError
from heal_core.records import DISTILLATION, EVALUATION
from heal_core.store.students import link_latest, link_stages
from heal_core.store.summary import summarise_run
from tasks.problems import take_in_problems
from tasks.session import Session, logger
from tasks.slots import model_slot

Phases = Mapping[str, Callable[[Session], None]]

PHASES: Phases = {
    "rollouts": sample_rollouts,
    "profiles": profile_and_band,
    "repairs": repair_and_guide,
    "selection": select_examples,
    "equal_tokens": spend_equal_tokens,
    "controls": run_controls,
    "training": train_arms,
    "evaluation": evaluate_arms,
    "promotion": promote_student,
}
SAMPLING_PHASES = tuple(PHASES)[: tuple(PHASES).index("training")]
"""What comes before any student is trained."""
EVALUATION_PHASES: Phases = {"rollouts": sample_rollouts, "profiles": profile_and_band, "evaluation": evaluate_one}
"""What evaluates the promoted student, or one that is named, on today's held-out problems."""

TASK_RUNNER: Any = ThreadPoolTaskRunner(max_workers=2)  # Prefect types runners and decorators differently


@flow(name="heal", task_runner=TASK_RUNNER, validate_parameters=False)
def heal(
    config: RunConfig,
    until: Deadline | None = None,
    retry: str | bool = False,
    purpose: str = DISTILLATION,
    max_tokens: int | None = None,
) -> dict[str, Any]:
    """Return the outcome of a run; one that is complete is not run again. See `distil`."""
    return distil(config, until, retry, purpose, max_tokens)


@flow(name="heal-phase", flow_run_name="heal {phase}", task_runner=TASK_RUNNER, validate_parameters=False)
def heal_phase(
    config: RunConfig, phase: str, until: Deadline | None = None, max_tokens: int | None = None
) -> dict[str, Any]:
    """Return the outcome of one phase, `completed` with what was newly made or `stopped`; those before it are closed.

    Raises:
        ConfigError: If there is no such phase, or an earlier one is missing.
    """
    if phase not in PHASES:
        raise ConfigError(f"there is no phase {phase!r}; the phases are, in order: {', '.join(PHASES)}.")
    with announced(config) as announcement, Session.open(config, until, max_tokens) as session:
        announcement.run_id = take_in_problems(session)
        names = list(PHASES)
        before = names[: names.index(phase)]
        missing = [name for name in before if name not in session.closed_phases]
        if missing:
            raise ConfigError(
                f"phase {phase!r} builds on {missing[0]!r}, which this run has not closed. Run that first."
            )
        session.quarantine.enter_phases(before)
        session.note_prices()
        with _ended(session), model_slot(session.deadline), session.phase(phase):
            PHASES[phase](session)
        return {"run_id": session.run_id, "state": "completed", "made": dict(session.made)}
    return announcement.outcome


@flow(name="heal-validate-pure", task_runner=TASK_RUNNER, validate_parameters=False)
def heal_validate_pure(
    config: RunConfig, until: Deadline | None = None, max_tokens: int | None = None
) -> dict[str, Any]:
    """Return the validity test of a run's PURE scores (`flows.validity`) with its `state`: completed or stopped.

    The run's rollouts and bands are made if they are missing, as `heal` does; nothing else of the run changes.
    """
    with announced(config) as announcement, Session.open(config, until, max_tokens) as session:
        announcement.run_id = take_in_problems(session)
        session.note_prices()
        with _ended(session), model_slot(session.deadline):
            for name in ("rollouts", "profiles"):
                if name not in session.closed_phases:
                    with session.phase(name):
                        PHASES[name](session)
            session.quarantine.enter_phases(["rollouts", "profiles"])
            with session.phase("validity"):
                test = validate_pure(session)
        if not session.is_complete:
            session.record_event("stopped", detail={"reason": "only the validity test was asked for"})
        return {"run_id": session.run_id, "state": "completed", **test, "made": dict(session.made)}
    return announcement.outcome


def distil(
    config: RunConfig,
    until: Deadline | None = None,
    retry: str | bool = False,
    purpose: str = DISTILLATION,
    max_tokens: int | None = None,
) -> dict[str, Any]:
    """Return the outcome of a run, inside the flow that calls this.

    Its `state` is completed, nothing_new (an earlier start came to the end) or stopped (at `until`,
    or when this start has sampled `max_tokens`). With the purpose `evaluation` the promoted student,
    or the one of `evaluation.student`, is evaluated on today's held-out problems, and nothing is
    trained. `retry` is that of
    `take_in_problems`.

    Raises:
        HealError: If the run failed; what is finished is stored.
    """
    with announced(config) as announcement, Session.open(config, until, max_tokens) as session:
        announcement.run_id = take_in_problems(session, purpose, retry)
        announcement.outcome = _run_phases(session, EVALUATION_PHASES if purpose == EVALUATION else PHASES)
    return announcement.outcome


def sample_arms(config: RunConfig, until: Deadline | None = None, max_tokens: int | None = None) -> dict[str, Any]:
    """Return the outcome of a run's phases before training, inside the flow that calls this: completed or stopped.

    The run stays unfinished; a later start of it goes on with training.

    Raises:
        HealError: If the run failed; what is finished is stored.
    """
    with announced(config) as announcement, Session.open(config, until, max_tokens) as session:
        announcement.run_id = take_in_problems(session)
        session.note_prices()
        if not session.is_complete:
            with _ended(session), model_slot(session.deadline):
                for name in SAMPLING_PHASES:
                    with session.phase(name):
                        PHASES[name](session)
            session.record_event("stopped", detail={"reason": "no students were asked for"})
        return {"run_id": session.run_id, "state": "completed", "made": dict(session.made)}
    return announcement.outcome


def _run_phases(session: Session, phases: Phases) -> dict[str, Any]:
    started = time.monotonic()
    state = "nothing_new"
    session.note_prices()
    if not session.is_complete:
        session.record_event("started")
        with _ended(session), model_slot(session.deadline):
            for name, run_phase in phases.items():
                with session.phase(name):
                    run_phase(session)
        detail = {"seconds": time.monotonic() - started, "quarantined": len(session.quarantine.problem_ids)}
        session.record_event("completed", detail=detail)
        state = "completed"
    link_stages(session.store, session.run_id)
    link_latest(session.store)
    summary = summarise_run(session.store, session.run_id, dict(session.made), time.monotonic() - started)
    return publish_summary(session, {**summary, "state": state})


@contextmanager
def _ended(session: Session) -> Iterator[None]:
    """Record that a run stopped at a limit or failed; the error goes on."""
    try:
        yield
    except LimitReachedError as reason:
        detail = {"reason": str(reason), "num_tokens": session.budget.num_spent, **session.phase_detail()}
        session.record_event("stopped", session.phase_name, detail)
        raise
    except Exception as error:
        interruption.check()
        try:
            detail = {"error": f"{type(error).__name__}: {error}", **session.phase_detail()}
            session.record_event("failed", session.phase_name, detail)
        except StoreError as second:  # the first error is the one to tell
            logger.warning("that the run failed could not be stored: %s", second)
        raise
