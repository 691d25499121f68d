"""Phase: three sequential stages of SFT, for HEAL and for each baseline, with the same optimizer steps."""

from __future__ import annotations

from heal_core.curriculum import STAGES
from heal_core.sft.spec import num_optimizer_steps
from heal_core.store.reads import read_stage
from heal_core.store.students import link_stages
from tasks.policy import retried
from tasks.session import Session
from tasks.training import Checkpoint, StageWork, train_stage


def train_arms(session: Session) -> None:
    """Train every arm."""
    session.close_engine()
    for arm in arms_of(session):
        train_arm(session, arm)


def arms_of(session: Session) -> list[str]:
    """Return the arms that are trained."""
    return list(session.config.controls.arms)


def train_arm(session: Session, arm: str) -> None:
    """Train stages I, II, III of an arm, each from the one before.

    The steps of a stage are those that HEAL's own examples need, in every arm.
    """
    config = session.config
    parent: Checkpoint | None = None
    used = []
    for stage, epochs in zip(STAGES, config.curriculum.epochs, strict=True):
        examples = read_stage(session.store, session.run_id, arm, stage)
        num_heal = len(read_stage(session.store, session.run_id, "heal", stage))
        steps = num_optimizer_steps(num_heal, epochs, config.sft.batch_size)
        work = StageWork(session, arm, stage, parent, [row["trajectory_id"] for row in examples], steps)
        session.check_end()
        retried(train_stage, config.failures)(session, work)
        parent = work.checkpoint
        used.append(parent.checkpoint_id)
    session.close_phase("training", arm, "checkpoint", dict.fromkeys(used, False))
    link_stages(session.store, session.run_id)
