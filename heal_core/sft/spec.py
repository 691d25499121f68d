"""What a training child is told (StageSpec) and what it leaves behind (StageResult), both as JSON.

Light on purpose: the parent reads and writes these without loading torch.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from heal_core.errors import TrainingError
from heal_core.keys import STAGE_VERSIONS, content_key
from heal_core.sft.config import SftConfig
from heal_core.sft.data import read_examples
from heal_core.sft.preflight import PreflightReport

RESULT_FILE = "result.json"


class StageSpec(BaseModel):
    """One stage of SFT to run.

    Attributes:
        stage: Its name, e.g. "I".
        arm: The arm of the comparison that it belongs to.
        model_name_or_path: The base student or the checkpoint of the stage before.
        revision: Of a model on the hub.
        trust_remote_code: Whether that model may bring code of its own.
        examples_path: Parquet or JSONL with `example_id`, `prompt`, `response`, in training order.
        num_optimizer_steps: Optimizer steps; the examples are cycled until they are taken.
        output_dir: The finished model's folder; must not exist, or hold this very training.
        config: How to train.
        held_out_path: The same columns, of solutions of held-out problems whose loss is measured; never trained on.
        tokenised_dir: Where tokenised examples are kept; None: beside the checkpoints, until the stage is finished.
        logging_dir: Where loggers that write files write them.
        stop_at: When to stop after a checkpoint, to go on another time; not part of what is trained.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    stage: str = Field(min_length=1)
    arm: str = Field(min_length=1)
    model_name_or_path: str = Field(min_length=1)
    revision: str | None = None
    trust_remote_code: bool = False
    examples_path: Path
    num_optimizer_steps: int = Field(ge=1)
    output_dir: Path
    config: SftConfig
    held_out_path: Path | None = None
    tokenised_dir: Path | None = None
    logging_dir: Path | None = None
    stop_at: datetime | None = None

    @property
    def num_exposures(self) -> int:
        """Return how many examples are shown in all, repeats included."""
        return self.num_optimizer_steps * self.config.batch_size

    @property
    def label(self) -> str:
        """Return how messages name this stage."""
        return f"stage {self.stage} of arm {self.arm}"


class StepLog(BaseModel):
    """One optimizer step, as the trainer took it; loss in nats per token that carries loss.

    Attributes:
        num_tokens: Tokens that were read, without padding; None in results of before these were noted.
        seconds: Time since the step before; of the first after a start, since training began.
        positions: The examples that were read, by their place among the stage's, in the order of the data.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: int
    loss: float
    learning_rate: float
    grad_norm: float
    num_tokens: int | None = None
    seconds: float | None = None
    positions: tuple[int, ...] = ()


class HeldOutLoss(BaseModel):
    """The loss on solutions of held-out problems after a step (0: before training), nats per token of the solutions."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: int
    loss: float
    num_tokens: int
    num_examples: int


class StageResult(BaseModel):
    """What a finished stage was; stored in its output folder.

    Attributes:
        training_key: Identity of what was trained (`training_key`).
        num_examples: Distinct examples trained on.
        num_tokens: Tokens shown in all, without padding.
        loss_first: Loss of the first step, nats per token.
        loss_last: Loss of the last step, nats per token.
        steps: Every optimizer step, also those before a resume.
        held_out: Before the first step and after the last; empty where there are no held-out solutions.
        num_trained_parameters: With an adapter, those of the adapter.
        resumed_from_step: Where the process that finished had begun; 0 = from scratch.
        seconds: Wall time of that process from the data to the saved model, without imports.
        peak_memory_mib: Of the GPU, or of the process where there is none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: str
    arm: str
    training_key: str
    num_examples: int
    num_dropped_over_long: int
    num_optimizer_steps: int
    num_tokens: int
    loss_first: float
    loss_last: float
    steps: tuple[StepLog, ...]
    held_out: tuple[HeldOutLoss, ...] = ()
    num_parameters: int | None = None
    num_trained_parameters: int | None = None
    resumed_from_step: int
    seconds: float
    peak_memory_mib: float
    device: str
    dtype: str
    versions: dict[str, str]
    preflight: PreflightReport


def num_optimizer_steps(num_examples: int, epochs: int, batch_size: int) -> int:
    """Return ceil(num_examples * epochs / batch_size): the steps that show every example `epochs` times."""
    return -(-num_examples * epochs // batch_size)


def training_key(spec: StageSpec) -> str:
    """Return the identity of what `spec` trains: examples, steps, settings and the parent's training.

    The base student's weights are not in it: callers name `output_dir` after a key that holds them.

    Raises:
        TrainingError: If the examples cannot be read.
    """
    rows = [[e.example_id, e.prompt, e.response] for e in read_examples(spec.examples_path)]
    parent = read_result(Path(spec.model_name_or_path))
    parts: list[Any] = [spec.num_optimizer_steps, spec.config.identity(), rows]
    return content_key("sft", STAGE_VERSIONS["checkpoint"], parent.training_key if parent else None, *parts)


def read_spec(path: Path) -> StageSpec:
    """Return the spec stored at `path`.

    Raises:
        TrainingError: If it cannot be read or has a wrong key or value.
    """
    try:
        return StageSpec.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise TrainingError(f"{path}: not a training spec: {error}") from error


def read_result(folder: Path) -> StageResult | None:
    """Return the result stored in a model folder; None where HEAL trained no stage into it.

    Raises:
        TrainingError: If there is a result that cannot be read.
    """
    path = folder / RESULT_FILE
    if not path.is_file():
        return None
    try:
        return StageResult.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise TrainingError(f"{path}: not a training result: {error}; remove {folder} to train again") from error


def finished_result(spec: StageSpec) -> StageResult | None:
    """Return the result of `spec` if its output is finished, else None.

    Raises:
        TrainingError: If the output folder holds something else.
    """
    if not spec.output_dir.exists():
        return None
    result = read_result(spec.output_dir)
    if result is None or result.training_key != training_key(spec):
        found = "no training result" if result is None else f"another training ({result.training_key})"
        raise TrainingError(
            f"{spec.label}: {spec.output_dir} exists and holds {found}; remove it or choose another output_dir"
        )
    return result
