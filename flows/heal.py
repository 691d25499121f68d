"""HEAL, as a table of contents: the order of the method's phases. Each phase's module says how.

Run it with `heal run CONFIG.yaml`; it runs the same under a Prefect server. Every phase
reads the store and writes to it, so that running it again is the resume.
"""

from __future__ import annotations

import time
from typing import Any

from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner

from flows.equal_tokens import sample_equal_tokens
from flows.evaluation import evaluate_arms
from flows.repair import repair_paths, sample_guided, write_hints
from flows.rollouts import band_problems, profile_rollouts, sample_rollouts
from flows.selection import build_stages, gate_repairs, score_pure
from flows.training import arms_of, train_arm
from heal_core.config import RunConfig
from heal_core.store.summary import summarise_run
from tasks.decisions import build_equal_tokens
from tasks.problems import take_in_problems
from tasks.session import Session


@flow(name="heal", task_runner=ThreadPoolTaskRunner(max_workers=2), validate_parameters=False)
def heal(config: RunConfig) -> dict[str, Any]:
    """Return the summary of a run; a run that is complete is not run again."""
    started = time.monotonic()
    with Session.open(config) as session:
        take_in_problems(session)
        if not session.is_complete:
            session.record_event("started")
            distil(session)
            session.record_event("completed", detail={"seconds": time.monotonic() - started})
        return summarise_run(session.store, session.run_id, dict(session.made), time.monotonic() - started)


def distil(session: Session) -> None:
    """The method."""
    with session.phase("rollouts"):
        sample_rollouts(session)
    with session.phase("profiles"):
        profile_rollouts(session)
        band_problems(session)
    with session.phase("repairs"):
        repair_paths(session, write_hints(session))
        sample_guided(session)
    with session.phase("selection"):
        gate_repairs(session)
        score_pure(session)
        stages = build_stages(session)
    if session.config.controls.equal_tokens:
        with session.phase("equal tokens"):
            sample_equal_tokens(session)
            build_equal_tokens(session, stages)
    with session.phase("training"):
        checkpoints = {arm: train_arm(session, arm, stages) for arm in arms_of(session)}
    with session.phase("evaluation"):
        evaluate_arms(session, checkpoints)
