"""Phase: every arm answers the held-out problems with the same sampling and budget."""

from __future__ import annotations

from typing import Any

from flows.rollouts import rollout_slots, sample_and_verify
from flows.training import arms_of
from heal_core.curriculum import STAGES
from heal_core.engines.identity import identify_engine
from heal_core.recipes import TEMPLATES
from heal_core.records import Kind
from heal_core.store.reads import read_checkpoint, read_promoted
from tasks.evaluation import BASE, LATEST, TEACHER, summarise_evaluation
from tasks.session import Session
from tasks.training import Checkpoint


def evaluate_arms(session: Session) -> None:
    """Sample and grade the untrained student and each arm's last stage; the teacher's row is its rollouts."""
    arms = arms_of(session)
    evaluate_student(session, BASE, None)
    for arm in arms:
        checkpoint_id = read_checkpoint(session.store, session.run_id, arm, STAGES[-1])
        evaluate_student(session, arm, Checkpoint.of(session.workspace, checkpoint_id))
    summarise_evaluation(session, [TEACHER, BASE, *arms])


def evaluate_latest(session: Session) -> None:
    """Sample and grade the untrained student and the promoted one; the teacher's row is its rollouts."""
    promoted = read_promoted(session.store)
    assert promoted is not None, "a run that evaluates it begins with it"
    evaluate_student(session, BASE, None)
    evaluate_student(session, LATEST, Checkpoint.of(session.workspace, promoted["checkpoint_id"]))
    summarise_evaluation(session, [TEACHER, BASE, LATEST])


def evaluate_student(session: Session, arm: str, checkpoint: Checkpoint | None, phase: str = "evaluation") -> None:
    """Sample k answers per held-out problem from one student, and grade them."""
    sampling = session.config.rollouts.sampling
    model, identity = session.config.student, None
    if checkpoint is not None:
        model = model.model_copy(update={"model_name_or_path": str(checkpoint.folder), "revision": None})
        identity = _identity(session, checkpoint)
    recipe_id = session.recipe(Kind.ROLLOUT, model, sampling, TEMPLATES[Kind.ROLLOUT], identity)
    problems = session.read_problems("held_out")
    slots = rollout_slots(problems, recipe_id, range(session.config.evaluation.num_generations), sampling)
    used = sample_and_verify(session, phase, slots, model, sampling, turn=arm)
    session.close_phase(phase, arm, Kind.ROLLOUT, dict(used.values()))


def _identity(session: Session, checkpoint: Checkpoint) -> dict[str, Any]:
    """Return a checkpoint's identity: what trained it, so that its files need not be read."""
    return {"checkpoint": checkpoint.checkpoint_id, **identify_engine(session.config.student)}
