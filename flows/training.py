"""Phase: three sequential stages of SFT, for HEAL and for each baseline, with the same optimizer steps."""

from __future__ import annotations

import os

from heal_core.curriculum import Stage
from heal_core.sft.spec import num_optimizer_steps
from heal_core.store.reads import read_stage
from tasks.session import Session
from tasks.training import Checkpoint, StageWork, train_stage


def arms_of(session: Session) -> list[str]:
    """Return the arms that are trained."""
    controls = session.config.controls
    return ["heal"] + [arm for arm in ("rejection_sampling", "equal_tokens") if getattr(controls, arm)]


def train_arm(session: Session, arm: str, stages: tuple[Stage, Stage, Stage]) -> Checkpoint:
    """Return the last checkpoint of an arm: I, II, III, each from the one before.

    The steps of a stage are those that HEAL's own examples need, in every arm.
    """
    session.close_engine()
    checkpoint: Checkpoint | None = None
    used = []
    for stage in stages:
        rows = read_stage(session.store, session.run_id, arm, stage.name)
        steps = num_optimizer_steps(len(stage.row_ids), stage.epochs, session.config.sft.batch_size)
        work = StageWork(session, arm, stage.name, checkpoint, [row["trajectory_id"] for row in rows], steps)
        train_stage(session, work)
        checkpoint = work.checkpoint
        used.append(checkpoint.checkpoint_id)
        _link(session, arm, stage.name, checkpoint)
    session.close_phase("training", arm, "checkpoint", dict.fromkeys(used, False))
    assert checkpoint is not None
    return checkpoint


def _link(session: Session, arm: str, stage: str, checkpoint: Checkpoint) -> None:
    """Give the stage a name that people find: students/ARM/stage-I."""
    link = session.workspace.students / arm / f"stage-{stage}"
    link.parent.mkdir(parents=True, exist_ok=True)
    temporary = link.with_name(f"{link.name}.tmp")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(os.path.relpath(checkpoint.folder, link.parent))
    temporary.replace(link)
