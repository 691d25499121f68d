"""One stage of SFT through TRL's trainer, inside the training child.

TRL brings the loop, the schedule, mixed precision, FSDP and checkpoints; the data, their
order and the output folder are ours. Nothing is imported from torch or TRL until a
stage is known to need training and its examples are known to be good.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import resource
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heal_core.chat import end_of_turn_id
from heal_core.errors import TimeIsUpError, TrainingError
from heal_core.sft import folders
from heal_core.sft.data import TokenisedExamples, read_examples, tokenise_examples, training_order
from heal_core.sft.preflight import PreflightReport, build_report, check_examples, check_first_batch
from heal_core.sft.spec import RESULT_FILE, StageResult, StageSpec, StepLog, finished_result, training_key

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase
    from trl.trainer.sft_trainer import SFTTrainer

PREFLIGHT_FILE = "preflight.json"
_PROGRESS_SECONDS = 0.3
_WHOLE_LOGITS_LIMIT = 2**26  # values per micro-batch, 256 MiB in float32
_KEPT_CHECKPOINTS = 2  # the one before stays until the newest is known to be whole


def train_stage(spec: StageSpec) -> StageResult:
    """Return the result of `spec`, trained now, resumed, or found finished.

    Raises:
        TrainingError: If it cannot be trained, or another process is training it.
        TimeIsUpError: If `stop_at` came before the last step; a checkpoint was written.
    """
    with folders.lock_output(spec.output_dir) if _is_main_process() else contextlib.nullcontext():
        return finished_result(spec) or _train(spec)


def _is_main_process() -> bool:
    return int(os.environ.get("RANK", "0")) == 0


def _train(spec: StageSpec) -> StageResult:
    started = time.monotonic()
    key = training_key(spec)
    if _is_main_process():
        folders.claim_partial(spec.output_dir, key)
    tokenizer, max_length, vocabulary_size = _load_tokenizer(spec)
    tokenised = tokenise_examples(read_examples(spec.examples_path), tokenizer, max_length)
    check_examples(tokenised, end_of_turn_id(tokenizer), vocabulary_size, max_length)
    order = training_order([e.example_id for e in tokenised.examples], spec.num_exposures, spec.config.seed)
    per_device, _ = _split_batch(spec)
    report = build_report(
        tokenised,
        order,
        tokenizer,
        max_length=max_length,
        micro_batch_size=per_device,
        num_optimizer_steps=spec.num_optimizer_steps,
    )
    trainer = build_trainer(spec, tokenizer, tokenised, order)
    _check_dataloader(trainer, tokenised, order, end_of_turn_id(tokenizer))
    checkpoint = folders.last_complete_checkpoint(folders.checkpoints_dir(spec.output_dir))
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if trainer.state.global_step < spec.num_optimizer_steps:
        raise TimeIsUpError(
            f"{spec.label} stopped after step {trainer.state.global_step} of {spec.num_optimizer_steps}"
        )
    result = _stage_result(spec, key, report, trainer, checkpoint, time.monotonic() - started)
    _save(spec, trainer, tokenizer, result)
    return result


def _split_batch(spec: StageSpec) -> tuple[int, int]:
    try:
        return spec.config.split_batch(int(os.environ.get("WORLD_SIZE", "1")))
    except ValueError as error:
        raise TrainingError(f"{spec.label}: {error}") from error


def _load_tokenizer(spec: StageSpec) -> tuple[PreTrainedTokenizerBase, int, int]:
    """Return the student's tokenizer, the longest example allowed and the size of its vocabulary."""
    from transformers import AutoConfig, AutoTokenizer

    source: dict[str, Any] = {"revision": spec.revision, "trust_remote_code": spec.trust_remote_code}
    try:
        tokenizer = AutoTokenizer.from_pretrained(spec.model_name_or_path, **source)
        config = AutoConfig.from_pretrained(spec.model_name_or_path, **source).get_text_config()
    except (OSError, ValueError) as error:
        raise TrainingError(f"{spec.label}: cannot load the student {spec.model_name_or_path}: {error}") from error
    context_tokens = getattr(config, "max_position_embeddings", None) or spec.config.max_length
    return tokenizer, min(spec.config.max_length, context_tokens), config.vocab_size


def build_trainer(
    spec: StageSpec,
    tokenizer: PreTrainedTokenizerBase,
    tokenised: TokenisedExamples,
    order: Sequence[int],
) -> SFTTrainer:
    """Return TRL's trainer over the exposures in `order`, read sequentially as they are."""
    import datasets
    from transformers import PrinterCallback, Trainer
    from trl.trainer.sft_trainer import SFTTrainer

    from heal_core.sft.callbacks import CheckpointCallback, ProgressCallback, StopCallback

    plain_loss: Any = Trainer.compute_loss
    tiled_loss: Any = SFTTrainer.compute_loss

    class StageTrainer(SFTTrainer):
        """The trainer without a model card in every checkpoint, and with a faster loss for small models."""

        def create_model_card(self, *args: Any, **kwargs: Any) -> None:
            """Write nothing."""

        def compute_loss(
            self,
            model: Any,
            inputs: dict[str, Any],
            return_outputs: bool = False,
            num_items_in_batch: Any = None,
        ) -> Any:
            """Return the mean loss per trained token, from whole logits where those are small."""
            tokens = inputs["input_ids"]
            small = tokens.numel() * len(tokenizer) <= _WHOLE_LOGITS_LIMIT
            if tokens.device.type != "cpu" or not small:
                return tiled_loss(self, model, inputs, return_outputs, num_items_in_batch)
            # Tiling the logits saves memory that these do not need, and costs a quarter of the step.
            inputs["use_cache"] = False
            return plain_loss(self, model, inputs, return_outputs, num_items_in_batch)

    datasets.disable_progress_bars()
    examples = tokenised.examples
    exposures = datasets.Dataset.from_dict(
        {"input_ids": [e.input_ids for e in examples], "labels": [e.labels for e in examples]}
    ).select(order)
    trainer = StageTrainer(
        model=_load_model(spec, end_of_turn_id(tokenizer)),
        args=_training_arguments(spec),
        train_dataset=exposures,
        processing_class=tokenizer,
        callbacks=[
            ProgressCallback(folders.progress_path(spec.output_dir), _PROGRESS_SECONDS),
            CheckpointCallback(),
            *([StopCallback(spec.stop_at)] if spec.stop_at else []),
        ],
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _training_arguments(spec: StageSpec) -> Any:
    import torch
    from trl.trainer.sft_config import SFTConfig

    config = spec.config
    on_gpu = torch.cuda.is_available()
    if config.device == "cuda" and not on_gpu:
        raise TrainingError(f"{spec.label}: device cuda was asked for, torch finds no GPU; use auto or cpu")
    per_device, accumulation = _split_batch(spec)
    return SFTConfig(
        output_dir=str(folders.checkpoints_dir(spec.output_dir)),
        max_steps=spec.num_optimizer_steps,
        per_device_train_batch_size=per_device,
        gradient_accumulation_steps=accumulation,
        learning_rate=config.learning_rate,
        lr_scheduler_type=config.lr_scheduler_type,
        warmup_steps=config.warmup_ratio,  # below 1 it is a share of the steps
        weight_decay=config.weight_decay,
        adam_beta1=config.adam_beta1,
        adam_beta2=config.adam_beta2,
        max_grad_norm=config.max_grad_norm,
        seed=config.seed,
        bf16=config.dtype == "bfloat16" or (config.dtype == "auto" and on_gpu),
        use_cpu=not on_gpu,
        gradient_checkpointing=config.gradient_checkpointing,
        # the order, length and labels of the examples are final
        train_sampling_strategy="sequential",
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=None,
        packing=False,
        shuffle_dataset=False,
        dataloader_num_workers=0,
        dataloader_pin_memory=False,
        save_strategy="no" if config.save_every_steps is None else "steps",
        save_steps=config.save_every_steps or spec.num_optimizer_steps,
        save_total_limit=_KEPT_CHECKPOINTS,
        logging_steps=1,
        logging_nan_inf_filter=False,  # it would show a diverged loss as the one before
        eval_strategy="no",
        report_to="none",
        push_to_hub=False,
        disable_tqdm=True,
        log_level="error",
    )


def _load_model(spec: StageSpec, end_id: int) -> PreTrainedModel:
    """Return the student in float32, with `end_id` among the tokens that stop its generation."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    model = AutoModelForCausalLM.from_pretrained(
        spec.model_name_or_path,
        revision=spec.revision,
        trust_remote_code=spec.trust_remote_code,
        dtype=torch.float32,
    )
    stop = model.generation_config.eos_token_id
    stop_ids = [] if stop is None else [stop] if isinstance(stop, int) else list(stop)
    if end_id not in stop_ids:
        model.generation_config.eos_token_id = [*stop_ids, end_id]
    return model


def _check_dataloader(trainer: SFTTrainer, tokenised: TokenisedExamples, order: Sequence[int], end_id: int) -> None:
    """Check the first micro-batch that the trainer's own dataloader gives to this process."""
    loader: Any = trainer.get_train_dataloader()
    # The loader beneath accelerate's: an unfinished pass over the wrapper would upset its step counting.
    batch = next(iter(loader.base_dataloader), None)
    if batch is None:
        raise TrainingError("the trainer dropped every example that it was given; is this TRL supported?")
    size, rank = trainer.args.per_device_train_batch_size, trainer.args.process_index
    first = order[rank * size : (rank + 1) * size]
    check_first_batch(
        batch["input_ids"].tolist(),
        batch["labels"].tolist(),
        batch["attention_mask"].tolist(),
        [tokenised.examples[position] for position in first],
        end_id,
    )


def _stage_result(
    spec: StageSpec,
    key: str,
    report: PreflightReport,
    trainer: SFTTrainer,
    checkpoint: Path | None,
    seconds: float,
) -> StageResult:
    steps = tuple(
        StepLog(step=int(e["step"]), loss=e["loss"], learning_rate=e["learning_rate"], grad_norm=e["grad_norm"])
        for e in trainer.state.log_history
        if "loss" in e
    )
    if len(steps) != spec.num_optimizer_steps:
        raise TrainingError(
            f"{spec.label}: {len(steps)} optimizer steps were taken, expected {spec.num_optimizer_steps}"
        )
    names = ("torch", "transformers", "trl", "accelerate", "datasets")
    return StageResult(
        stage=spec.stage,
        arm=spec.arm,
        training_key=key,
        num_examples=report.num_examples,
        num_dropped_over_long=report.num_dropped_over_long,
        num_optimizer_steps=len(steps),
        num_tokens=report.num_exposed_tokens,
        loss_first=steps[0].loss,
        loss_last=steps[-1].loss,
        steps=steps,
        resumed_from_step=folders.checkpoint_step(checkpoint) if checkpoint else 0,
        seconds=seconds,
        peak_memory_mib=_peak_memory_mib(trainer.args.device.type),
        device=trainer.args.device.type,
        dtype="bfloat16" if trainer.args.bf16 else "float32",
        versions={"python": platform.python_version()} | {n: importlib.metadata.version(n) for n in names},
        preflight=report,
    )


def _peak_memory_mib(device: str) -> float:
    import torch

    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def _save(spec: StageSpec, trainer: SFTTrainer, tokenizer: PreTrainedTokenizerBase, result: StageResult) -> None:
    """Write model, tokenizer, result and preflight report as one folder, and move it into place."""
    model_dir = folders.partial_dir(spec.output_dir) / "model"
    if _is_main_process():
        shutil.rmtree(model_dir, ignore_errors=True)
    trainer.accelerator.wait_for_everyone()
    trainer.save_model(str(model_dir))  # every process takes part: weights may be sharded
    if _is_main_process():
        tokenizer.save_pretrained(model_dir)
        (model_dir / "training_args.bin").unlink(missing_ok=True)  # a pickle of paths on this machine
        (model_dir / PREFLIGHT_FILE).write_text(result.preflight.model_dump_json(indent=2), encoding="utf-8")
        (model_dir / RESULT_FILE).write_text(result.model_dump_json(indent=2), encoding="utf-8")
        folders.publish(model_dir, spec.output_dir)
    trainer.accelerator.wait_for_everyone()
