"""Phase: every arm answers the held-out problems with the same sampling and budget."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flows.rollouts import rollout_slots, sample_and_verify
from flows.training import arms_of
from heal_core.curriculum import STAGES
from heal_core.engines.base import EngineConfig
from heal_core.engines.identity import identify_engine
from heal_core.recipes import TEMPLATES
from heal_core.records import Kind
from heal_core.store.reads import read_checkpoint, read_promoted
from tasks.evaluation import BASE, GIVEN, LATEST, TEACHER, summarise_evaluation
from tasks.lm_eval import evaluate_with_harness, use_evaluations
from tasks.session import Session
from tasks.training import Checkpoint


def evaluate_arms(session: Session) -> None:
    """Sample and grade the untrained student and each arm's last stage; the teacher's row is its rollouts."""
    arms = arms_of(session)
    students: dict[str, Checkpoint | None] = {BASE: None}
    for arm in arms:
        checkpoint_id = read_checkpoint(session.store, session.run_id, arm, STAGES[-1])
        students[arm] = Checkpoint.of(session.workspace, checkpoint_id)
    for arm, student in students.items():
        evaluate_student(session, arm, student)
    summarise_evaluation(session, [TEACHER, BASE, *arms])
    _run_harness(session, students)


def evaluate_one(session: Session) -> None:
    """Sample and grade the untrained student and the given or the promoted one; the teacher's row is its rollouts."""
    evaluate_student(session, BASE, None)
    given = session.config.given_student
    student: Checkpoint | str
    if given is not None:
        arm, student = GIVEN, given.model_name_or_path
        _evaluate_model(session, arm, given)
    else:
        promoted = read_promoted(session.store)
        assert promoted is not None, "a run that evaluates it begins with it"
        arm, student = LATEST, Checkpoint.of(session.workspace, promoted["checkpoint_id"])
        evaluate_student(session, arm, student)
    summarise_evaluation(session, [TEACHER, BASE, arm])
    _run_harness(session, {BASE: None, arm: student})


def _run_harness(session: Session, students: Mapping[str, Checkpoint | str | None]) -> None:
    """Evaluate the students with lm-evaluation-harness, where `evaluation.lm_eval` is set."""
    if session.config.evaluation.lm_eval is None:
        return
    session.close_engine()
    keys = {}
    for arm, student in students.items():
        session.check_end()
        keys[arm] = evaluate_with_harness(session, arm, student)
    use_evaluations(session, keys)


def evaluate_student(session: Session, arm: str, checkpoint: Checkpoint | None, phase: str = "evaluation") -> None:
    """Sample k answers per held-out problem from one student, and grade them."""
    student = session.config.student
    if checkpoint is None:
        _evaluate_model(session, arm, student, phase)
        return
    model = student.model_copy(update={"model_name_or_path": str(checkpoint.folder), "revision": None})
    # what trained it, so that its files need not be read
    identity = {"checkpoint": checkpoint.checkpoint_id, **identify_engine(student)}
    _evaluate_model(session, arm, model, phase, identity)


def _evaluate_model(
    session: Session,
    arm: str,
    model: EngineConfig,
    phase: str = "evaluation",
    identity: Mapping[str, Any] | None = None,
) -> None:
    sampling = session.config.rollouts.sampling
    recipe_id = session.recipe(Kind.ROLLOUT, model, sampling, TEMPLATES[Kind.ROLLOUT], identity)
    problems = session.read_problems("held_out")
    slots = rollout_slots(problems, recipe_id, range(session.config.evaluation.num_generations), sampling)
    used = sample_and_verify(session, phase, slots, model, sampling, turn=arm)
    session.close_phase(phase, arm, Kind.ROLLOUT, dict(used.values()))
