"""TRL's trainer, with the data, their order and what is noted of each step ours.

TRL and transformers bring the loop, the schedule, mixed precision, FSDP, checkpoints and loggers.
An optimizer step reads its examples as one batch and computes it in micro-batches. Imports
torch and TRL, so that only `train` may import this module.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from typing import Any

import datasets
import torch
from transformers import PreTrainedTokenizerBase, PrinterCallback, Trainer
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from heal_core.sft import folders
from heal_core.sft.callbacks import BeginCallback, CheckpointCallback, ClockCallback, EvaluateCallback, ProgressCallback
from heal_core.sft.data import IGNORED_LABEL
from heal_core.sft.microbatches import MicroBatchLimits, split_further, split_step
from heal_core.sft.spec import StageSpec
from heal_core.sft.tokenised import StoredExamples

Batch = dict[str, torch.Tensor]

_PROGRESS_SECONDS = 0.3
_WHOLE_LOGITS_LIMIT = 2**26  # values per micro-batch, 256 MiB in float32

# untyped in their libraries
_training_step: Any = SFTTrainer.training_step
_tiled_loss: Any = SFTTrainer.compute_loss
_plain_loss: Any = Trainer.compute_loss  # what TRL's own builds on


class StageTrainer(SFTTrainer):
    """The trainer of one stage.

    Each entry of its log history of an optimizer step has, beside loss, learning rate and gradient
    norm, the `positions` of the examples that were read, their `num_tokens`, and `seconds`.
    """

    def __init__(self, spec: StageSpec, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        whole: Any = self.model
        self._whole_model = whole
        self._vocabulary_size = whole.config.get_text_config().vocab_size
        self._limits = MicroBatchLimits(spec.config.per_device_train_batch_size, spec.config.micro_batch_tokens)
        self._step_ended = time.monotonic()
        self._read: torch.Tensor | None = None

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Write nothing: the card is written when a student is exported."""

    def training_step(self, model: Any, inputs: Batch, num_items_in_batch: Any = None) -> torch.Tensor:
        """Return the loss of this process's share of an optimizer step, computed in micro-batches."""
        lengths = inputs["attention_mask"].sum(1)
        self._read = torch.stack([inputs["positions"], lengths], dim=1)
        groups = split_step(lengths.tolist(), self._limits)
        if self.args.world_size > 1:
            most = torch.tensor(len(groups), device=lengths.device)
            torch.distributed.all_reduce(most, torch.distributed.ReduceOp.MAX)
            groups = split_further(groups, int(most))
        self.current_gradient_accumulation_steps = len(groups)
        # what a split model would keep of whole gradients between two exchanges is more than the exchange costs
        is_split = self.is_fsdp_enabled or self.is_deepspeed_enabled
        losses = []
        for number, group in enumerate(groups, start=1):
            is_last = number == len(groups)
            self.accelerator.gradient_state._set_sync_gradients(is_last)
            with contextlib.nullcontext() if is_last or is_split else self.accelerator.no_sync(model):
                losses.append(_training_step(self, model, take(inputs, group), num_items_in_batch))
        return torch.stack(losses).sum()

    def compute_loss(
        self, model: Any, inputs: Batch, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the mean loss per trained token, from whole logits where those are small."""
        tokens = inputs["input_ids"]
        is_small = tokens.numel() * self._vocabulary_size <= _WHOLE_LOGITS_LIMIT
        # TRL's loss talks between processes, so that all of them must take it or none
        is_plain = tokens.device.type == "cpu" and self.args.world_size == 1 and self.model_accepts_loss_kwargs
        if not (is_plain and is_small) or self.aux_loss_enabled:
            return _tiled_loss(self, model, inputs, return_outputs, num_items_in_batch)
        # Tiling the logits saves memory that these do not need, and costs a quarter of the step.
        return _plain_loss(self, model, {**inputs, "use_cache": False}, return_outputs, num_items_in_batch)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Return and log the loss on the held-out solutions, the mean over all their tokens."""
        devices = [self.args.device] if self.args.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):  # a data loader draws a number, too
            sums = self._held_out_sums()
        metrics = {"eval_loss": float(sums[0] / sums[1]), "eval_num_tokens": int(sums[1])}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        self._step_ended = time.monotonic()
        return metrics

    def _held_out_sums(self) -> torch.Tensor:
        """Return the summed loss and the number of tokens that carry it, over all processes, shape [2]."""
        model: Any = self.model_wrapped if self.is_in_train else self.model
        model.eval()
        sums = torch.zeros(2, dtype=torch.float64, device=self.args.device)
        for batch in self.get_eval_dataloader():
            num_tokens = (batch["labels"][:, 1:] != IGNORED_LABEL).sum()
            inputs = {name: values for name, values in batch.items() if name != "positions"}
            with torch.no_grad(), self.compute_loss_context_manager():
                loss = self.compute_loss(model, inputs)
            sums += torch.stack([loss.detach().double() * num_tokens, num_tokens.double()])
        if self.args.world_size > 1:
            torch.distributed.all_reduce(sums)
        return sums

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log a step, with what of it only this class knows."""
        if "loss" not in logs or self._read is None:
            super().log(logs, start_time)
            return
        now = time.monotonic()
        seconds, self._step_ended = now - self._step_ended, now
        read = self.accelerator.gather(self._read).tolist()
        num_tokens = sum(length for _, length in read)
        logs["tokens_per_second"] = num_tokens / seconds
        super().log(logs, start_time)
        # numbers for people's loggers above, what resumes with the checkpoint here
        noted: dict[str, Any] = self.state.log_history[-1]
        noted |= {"positions": [position for position, _ in read], "num_read_tokens": num_tokens, "seconds": seconds}

    def count_parameters(self) -> tuple[int, int]:
        """Return how many parameters the model has, and how many of them are trained."""
        parameters: list[torch.nn.Parameter] = list(self._whole_model.parameters())
        return sum(p.numel() for p in parameters), sum(p.numel() for p in parameters if p.requires_grad)

    def exposures(self, indices: Sequence[int]) -> Batch:
        """Return some of the exposures as one batch."""
        rows: Any = self.train_dataset
        batch: Batch = self.data_collator([rows[index] for index in indices])
        return batch

    @property
    def num_held_out(self) -> int:
        """Return how many held-out solutions are read."""
        rows: Any = self.eval_dataset
        return len(rows) if rows is not None else 0

    def forget(self) -> None:
        """Forget what TRL has counted so far, of passes that are no training."""
        self._metrics["train"].clear()
        self._total_train_tokens = 0

    def begin(self) -> None:
        """Start the clock of the first step."""
        self._step_ended = time.monotonic()

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        Trainer._save_checkpoint(self, *args, **kwargs)
        # each process writes its own random state; only then is the checkpoint whole
        self.accelerator.wait_for_everyone()


def take(batch: Batch, rows: Sequence[int]) -> Batch:
    """Return some rows of a padded batch, without the padding that the others needed."""
    longest = int(batch["attention_mask"][list(rows)].sum(1).max())
    return {name: values[list(rows)][:, :longest] for name, values in batch.items() if name != "positions"}


def collate(examples: Sequence[dict[str, Any]], pad_id: int) -> Batch:
    """Return a batch of shape [B, T], padded on the right; `positions` [B] says which examples it holds."""
    longest = max(len(example["input_ids"]) for example in examples)
    shape = (len(examples), longest)
    batch = {
        "input_ids": torch.full(shape, pad_id),
        "labels": torch.full(shape, IGNORED_LABEL),
        "attention_mask": torch.zeros(shape, dtype=torch.long),
    }
    for row, example in enumerate(examples):
        tokens = torch.tensor(example["input_ids"])
        num_prompt = example["num_prompt_tokens"]
        batch["input_ids"][row, : len(tokens)] = tokens
        batch["labels"][row, num_prompt : len(tokens)] = tokens[num_prompt:]
        batch["attention_mask"][row, : len(tokens)] = 1
    return {**batch, "positions": torch.tensor([example["position"] for example in examples])}


def build_trainer(
    spec: StageSpec,
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    examples: StoredExamples,
    order: Sequence[int],
    held_out: StoredExamples | None,
    *,
    is_bfloat16: bool,
    num_processes: int,
) -> StageTrainer:
    """Return the trainer over the exposures in `order`, read sequentially as they are."""
    datasets.disable_progress_bars()
    pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0  # what is under the padding is masked
    # the same for every process, or some would be read twice
    num_held_out = len(held_out) - len(held_out) % num_processes if held_out else 0
    callbacks = [
        ProgressCallback(folders.progress_path(spec.output_dir), _PROGRESS_SECONDS),
        CheckpointCallback(),
        ClockCallback(spec.stop_at, spec.config.save_every_seconds),
        *([EvaluateCallback()] if num_held_out else []),
    ]
    trainer = StageTrainer(
        spec,
        model=model,
        args=_arguments(spec, is_bfloat16, num_processes),
        train_dataset=_dataset(examples, order),
        eval_dataset=_dataset(held_out, range(num_held_out)) if held_out and num_held_out else None,
        data_collator=lambda rows: collate(rows, pad_id),
        processing_class=tokenizer,
        callbacks=callbacks,
    )
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(BeginCallback(trainer.begin))
    return trainer


def _dataset(examples: StoredExamples, order: Sequence[int]) -> datasets.Dataset:
    # mapped, not in memory; without a fingerprint it would be pickled to get one
    rows = datasets.Dataset(datasets.table.InMemoryTable(examples.table), fingerprint=examples.key)
    return rows.select([examples.positions[index] for index in order])


def _arguments(spec: StageSpec, is_bfloat16: bool, num_processes: int) -> SFTConfig:
    config = spec.config
    on_gpu = torch.cuda.is_available()
    return SFTConfig(
        output_dir=str(folders.checkpoints_dir(spec.output_dir)),
        max_steps=spec.num_optimizer_steps,
        # all of a step at once, which `training_step` splits
        per_device_train_batch_size=config.device_share(num_processes),
        per_device_eval_batch_size=1,
        gradient_accumulation_steps=1,
        learning_rate=config.learning_rate,
        lr_scheduler_type=config.lr_scheduler_type,
        warmup_steps=config.warmup_ratio,  # below 1 it is a share of the steps
        weight_decay=config.weight_decay,
        adam_beta1=config.adam_beta1,
        adam_beta2=config.adam_beta2,
        max_grad_norm=config.max_grad_norm,
        seed=config.seed,
        bf16=is_bfloat16,
        use_cpu=not on_gpu,
        gradient_checkpointing=config.gradient_checkpointing,
        # the order, length and labels of the examples are final
        train_sampling_strategy="sequential",
        dataset_kwargs={"skip_prepare_dataset": True},
        remove_unused_columns=False,
        max_length=None,
        packing=False,
        shuffle_dataset=False,
        dataloader_num_workers=0,
        dataloader_pin_memory=False,
        save_strategy="no" if config.save_every_steps is None else "steps",
        save_steps=config.save_every_steps or spec.num_optimizer_steps,
        save_total_limit=config.save_total_limit,
        logging_steps=1,
        logging_nan_inf_filter=False,  # it would show a diverged loss as the one before
        eval_strategy="no",  # `EvaluateCallback` says when
        report_to=list(config.report_to) or "none",
        project=os.environ.get("TRACKIO_PROJECT", "heal"),  # transformers reads no variable for it
        run_name=f"{spec.output_dir.name[:12]} {spec.arm} {spec.stage}",
        push_to_hub=False,
        disable_tqdm=True,
        log_level="error",
    )
