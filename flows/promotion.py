"""Phase: is the run's student at least as good as the best ever promoted? Then it becomes `students/latest`."""

from __future__ import annotations

from flows.evaluation import evaluate_student
from heal_core.curriculum import STAGES
from heal_core.store.reads import read_best_students, read_checkpoint, read_promotion
from heal_core.store.students import link_latest
from tasks.promotion import arm_of, decide
from tasks.session import Session, logger
from tasks.training import Checkpoint

PHASE = "promotion"


def promote_student(session: Session) -> None:
    """Pair the student of the arm heal with the best one on today's held-out problems, and decide."""
    if not session.config.promotion.enabled or read_promotion(session.store, session.run_id):
        return
    candidate_id = read_checkpoint(session.store, session.run_id, "heal", STAGES[-1])
    best = best_student(session)
    if best is not None and best.checkpoint_id != candidate_id:
        evaluate_student(session, arm_of(best.checkpoint_id), best, PHASE)
    decision = decide(session, candidate_id, best.checkpoint_id if best else None)
    link_latest(session.store)
    logger.info("promotion: %s", decision)


def best_student(session: Session) -> Checkpoint | None:
    """Return the best student ever promoted whose folder is there; None when only the untrained one is left."""
    for checkpoint_id in read_best_students(session.store):
        student = Checkpoint.of(session.workspace, checkpoint_id)
        if student.folder.is_dir():
            return student
        logger.warning(
            "the best student %s is gone from %s: the one that was best before is compared with",
            checkpoint_id, session.workspace.checkpoints,
        )  # fmt: skip
    return None
