"""What the trainer calls while it trains: progress for the parent, a mark on whole checkpoints.

Imports transformers, so that only `train` may import this module.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from heal_core.errors import TrainingError
from heal_core.sft import folders


class ProgressCallback(TrainerCallback):
    """Tells the parent how far training is, and ends it when it diverges or nobody waits for it."""

    def __init__(self, path: Path, every_seconds: float) -> None:
        self._path = path
        self._every_seconds = every_seconds
        self._written = -math.inf
        self._parent_id = os.getppid()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Check the step that was just taken and write the progress file, now and then."""
        logs: dict[str, float] = kwargs["logs"]
        if "loss" not in logs:
            return
        if not math.isfinite(logs["loss"]) or not math.isfinite(logs["grad_norm"]):
            raise TrainingError(
                f"training diverged at optimizer step {state.global_step}: loss {logs['loss']}, "
                f"gradient norm {logs['grad_norm']}; lower sft.learning_rate"
            )
        # Processes started by a launcher do not get the signal that ends the launcher itself.
        if os.getppid() != self._parent_id:
            raise TrainingError("the process that started this training is gone")
        now = time.monotonic()
        due = now - self._written >= self._every_seconds or state.global_step == state.max_steps
        if state.is_world_process_zero and due:
            self._written = now
            progress = {
                "optimizer_step": state.global_step,
                "num_optimizer_steps": state.max_steps,
                "loss": logs["loss"],
            }
            folders.write_text(self._path, json.dumps(progress), durable=False)


class ClockCallback(TrainerCallback):
    """Writes a checkpoint now and then; at a given moment ends training with one, to be gone on with another time."""

    def __init__(self, stop_at: datetime | None, save_every_seconds: float | None) -> None:
        self._stop_at = stop_at
        self._save_every_seconds = save_every_seconds or math.inf
        self._saved = time.monotonic()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the clock: loading is no work that a checkpoint could keep."""
        self._saved = time.monotonic()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Ask for a checkpoint, or for one and the end, when it is time and steps are left."""
        if state.global_step == state.max_steps:
            return
        is_stop, is_save = self._due(args)
        if is_stop or is_save:
            control.should_save = True
        if is_stop:
            control.should_training_stop = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Start the clock again."""
        self._saved = time.monotonic()

    def _due(self, args: TrainingArguments) -> tuple[bool, bool]:
        """Return what the clocks of the first process say: processes that disagree would wait for each other."""
        is_stop = self._stop_at is not None and datetime.now(UTC) >= self._stop_at
        is_save = time.monotonic() - self._saved >= self._save_every_seconds
        if args.world_size == 1:
            return is_stop, is_save
        decision = torch.tensor([is_stop, is_save], dtype=torch.int, device=args.device)
        torch.distributed.broadcast(decision, src=0)
        return bool(decision[0]), bool(decision[1])


class BeginCallback(TrainerCallback):
    """Calls `begin` when all is loaded and the first step is next."""

    def __init__(self, begin: Callable[[], None]) -> None:
        self._begin = begin

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Call it; the exposures of a stage are one epoch."""
        self._begin()


class EvaluateCallback(TrainerCallback):
    """Asks for the loss on the held-out solutions after the last step; `train` asks for the one before the first."""

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Ask at the end."""
        control.should_evaluate = state.global_step == state.max_steps


class CheckpointCallback(TrainerCallback):
    """Marks each checkpoint once all of it is on disk."""

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Mark the checkpoint that was just written."""
        if state.is_world_process_zero:
            folders.mark_complete(Path(str(args.output_dir)) / f"checkpoint-{state.global_step}")
