"""The task that trains one stage of one arm, unless its checkpoint exists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from heal_core.curriculum import STAGES
from heal_core.engines.identity import identify_model, resolve_folder
from heal_core.keys import STAGE_VERSIONS, content_key
from heal_core.logs import log_context
from heal_core.prompts import student_prompt
from heal_core.sft.launch import StageProgress, run_stage
from heal_core.sft.preflight import PreflightReport, describe, describe_example
from heal_core.sft.spec import StageResult, StageSpec
from heal_core.store import durable
from heal_core.store.reads import read_held_out_solutions, read_known, read_references, read_texts
from heal_core.store.workspace import Workspace
from tasks.policy import cached_task
from tasks.session import Session, logger


@dataclass(frozen=True)
class Checkpoint:
    """A trained stage: its id, and its folder."""

    checkpoint_id: str
    folder: Path

    def path(self, name: str) -> Path:
        """Return a file of texts beside the folder."""
        return self.folder.with_name(f"{self.checkpoint_id}.{name}.parquet")

    @classmethod
    def of(cls, workspace: Workspace, checkpoint_id: str) -> Checkpoint:
        """Return a workspace's checkpoint, which may not be there."""
        return cls(checkpoint_id, workspace.checkpoints / checkpoint_id)


class StageWork:
    """One stage of one arm: from which parent, on which examples in order, for how many steps.

    Stage I has none, unless the run's students start from one that was promoted.
    """

    def __init__(
        self,
        session: Session,
        arm: str,
        stage: str,
        parent: Checkpoint | None,
        row_ids: Sequence[str],
        num_optimizer_steps: int,
    ) -> None:
        config = session.config
        if parent is None and session.start_checkpoint_id is not None:
            parent = Checkpoint.of(session.workspace, session.start_checkpoint_id)
        self.arm, self.stage, self.parent = arm, stage, parent
        self.row_ids = list(row_ids)
        self.num_optimizer_steps = num_optimizer_steps
        self.label = f"{arm} {stage}"
        start = parent.checkpoint_id if parent else identify_model(config.student)
        # the arm is not part of it: arms that train alike share the checkpoint
        self.checkpoint_id = content_key(
            "checkpoint",
            STAGE_VERSIONS["checkpoint"],
            start,
            self.row_ids,
            num_optimizer_steps,
            config.sft.identity(),
            config.seed,
        )
        self.checkpoint = Checkpoint.of(session.workspace, self.checkpoint_id)
        # a checkpoint that was deleted must be trained again, whatever the cache says
        self.cache_key = content_key("train", self.checkpoint_id, session.store.epoch, self.checkpoint.folder.exists())


@cached_task("train")
def train_stage(session: Session, work: StageWork) -> str:
    """Return the id of the stage's checkpoint, which stands in the workspace afterwards."""
    folder = work.checkpoint.folder
    if read_known(session.store, "checkpoints", "checkpoint_id", [work.checkpoint_id]) and folder.is_dir():
        return work.checkpoint_id
    student = session.config.student
    seed = int(content_key("sft_seed", session.config.seed, session.config.sft.seed)[:8], 16)
    spec = StageSpec(
        stage=work.stage,
        arm=work.arm,
        model_name_or_path=str(work.parent.folder if work.parent else resolve_folder(student)),
        trust_remote_code=student.trust_remote_code,
        examples_path=_write_examples(session, work.row_ids, work.checkpoint.path("examples")),
        num_optimizer_steps=work.num_optimizer_steps,
        output_dir=folder,
        config=session.config.sft.model_copy(update={"seed": seed}),
        held_out_path=_write_held_out(session, work),
        tokenised_dir=session.workspace.cache / "tokenised",
        logging_dir=session.workspace.logs / "training" / f"{work.arm}-{work.stage}-{work.checkpoint_id[:12]}",
        stop_at=session.deadline.at if session.deadline else None,
    )
    session.progress.begin(session.run_id, session.phase_name, work.label, "optimizer steps", spec.num_optimizer_steps)
    last_step = 0

    def report(progress: StageProgress) -> None:
        nonlocal last_step
        session.progress.advance(progress.optimizer_step - last_step, progress.optimizer_step - last_step)
        last_step = progress.optimizer_step

    def show(preflight: PreflightReport) -> None:
        detail = {"arm": work.arm, "stage": work.stage, **preflight.model_dump()}
        session.record_event("preflight", session.phase_name, detail)
        logger.info("%s stage %s: %s", work.arm, work.stage, describe(preflight))
        if work.stage == STAGES[0]:  # those of the others are in the view training_stages
            logger.info("%s stage %s: %s", work.arm, work.stage, describe_example(preflight))

    with log_context(shard=work.label):
        result = run_stage(spec, report, show)
    session.progress.reach(result.num_optimizer_steps)
    session.progress.finish()
    session.count("stages", 1)
    session.count("optimizer_steps", result.num_optimizer_steps - result.resumed_from_step)
    session.store.append("checkpoints", [_row(work, result)])
    logger.info(
        "%s stage %s: %d examples, %d steps, loss %.3f -> %.3f",
        work.arm, work.stage, result.num_examples, result.num_optimizer_steps, result.loss_first, result.loss_last,
    )  # fmt: skip
    return work.checkpoint_id


def _write_held_out(session: Session, work: StageWork) -> Path | None:
    """Write the solutions of held-out problems whose loss is measured; None where there are none."""
    row_ids = read_held_out_solutions(session.store, session.run_id, session.config.sft.num_held_out)
    return _write_examples(session, row_ids, work.checkpoint.path("held_out")) if row_ids else None


def _write_examples(session: Session, row_ids: Sequence[str], path: Path) -> Path:
    """Write texts in the order given: student prompt and response, no trace of a hint."""
    by_id = {row["trajectory_id"]: row for row in read_texts(session.store, row_ids)}
    rows = [by_id[row_id] for row_id in row_ids]
    references = read_references(session.store, (row["problem_id"] for row in rows))
    frame = pl.DataFrame(
        {
            "example_id": list(row_ids),
            "prompt": [student_prompt(row["question"], references[row["problem_id"]].wording) for row in rows],
            "response": [row["response"] for row in rows],
        }
    )
    durable.write_atomically(path, frame.write_parquet)
    return path


def _row(work: StageWork, result: StageResult) -> dict[str, object]:
    return {
        "checkpoint_id": work.checkpoint_id,
        "parent_checkpoint_id": work.parent.checkpoint_id if work.parent else None,
        "stage": work.stage,
        "folder": f"checkpoints/{work.checkpoint_id}",
        "num_examples": result.num_examples,
        "num_dropped_over_long": result.num_dropped_over_long,
        "num_optimizer_steps": result.num_optimizer_steps,
        "num_tokens": result.num_tokens,
        "loss_first": result.loss_first,
        "loss_last": result.loss_last,
        "seconds": result.seconds,
        "result": result.model_dump_json(),
    }
