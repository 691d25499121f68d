"""HEAL, as a table of contents: the order of the method's phases. Each phase's module says how.

Run it with `heal run CONFIG.yaml`; it runs the same under a Prefect server. Every phase
reads the store and writes to it, so that running it again is the resume, and each can be
run alone (`heal run CONFIG.yaml --phase repairs`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner

from flows.equal_tokens import spend_equal_tokens
from flows.evaluation import evaluate_arms
from flows.repair import repair_and_guide
from flows.rollouts import profile_and_band, sample_rollouts
from flows.selection import select_examples
from flows.training import train_arms
from heal_core.config import RunConfig
from heal_core.errors import ConfigError
from heal_core.store.summary import summarise_run
from tasks.problems import take_in_problems
from tasks.session import Session

PHASES: dict[str, Callable[[Session], None]] = {
    "rollouts": sample_rollouts,
    "profiles": profile_and_band,
    "repairs": repair_and_guide,
    "selection": select_examples,
    "equal_tokens": spend_equal_tokens,
    "training": train_arms,
    "evaluation": evaluate_arms,
}

TASK_RUNNER: Any = ThreadPoolTaskRunner(max_workers=2)  # Prefect types runners and decorators differently


@flow(name="heal", task_runner=TASK_RUNNER, validate_parameters=False)
def heal(config: RunConfig) -> dict[str, Any]:
    """Return the summary of a run; one that is complete is not run again."""
    started = time.monotonic()
    with Session.open(config) as session:
        take_in_problems(session)
        if not session.is_complete:
            session.record_event("started")
            try:
                for name, run_phase in PHASES.items():
                    with session.phase(name):
                        run_phase(session)
            except Exception as error:
                session.record_event("failed", detail={"error": f"{type(error).__name__}: {error}"})
                raise
            session.record_event("completed", detail={"seconds": time.monotonic() - started})
        return summarise_run(session.store, session.run_id, dict(session.made), time.monotonic() - started)


@flow(name="heal-phase", flow_run_name="heal {phase}", task_runner=TASK_RUNNER, validate_parameters=False)
def heal_phase(config: RunConfig, phase: str) -> dict[str, int]:
    """Return what one phase newly made; the phases before it must have been closed.

    Raises:
        ConfigError: If there is no such phase, or an earlier one is missing.
    """
    if phase not in PHASES:
        raise ConfigError(f"there is no phase {phase!r}; the phases are, in order: {', '.join(PHASES)}.")
    with Session.open(config) as session:
        take_in_problems(session)
        names = list(PHASES)
        missing = [name for name in names[: names.index(phase)] if name not in session.closed_phases]
        if missing:
            raise ConfigError(
                f"phase {phase!r} builds on {missing[0]!r}, which this run has not closed. Run that first."
            )
        with session.phase(phase):
            PHASES[phase](session)
        return dict(session.made)
