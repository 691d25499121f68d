"""One stage of SFT, inside the training child: from the examples to the finished folder.

What of it is TRL's is in `trainer`. Nothing is imported from torch or TRL until a stage is
known to need training and its examples are known to be good.
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
from heal_core.sft import folders, model, probe
from heal_core.sft.config import check_loggers
from heal_core.sft.data import TokenisedExamples, read_examples, training_order
from heal_core.sft.microbatches import MicroBatchLimits, padded_tokens, split_step
from heal_core.sft.preflight import (
    Estimate,
    PreflightReport,
    build_report,
    check_examples,
    check_first_batch,
    check_thinking,
)
from heal_core.sft.spec import RESULT_FILE, HeldOutLoss, StageResult, StageSpec, StepLog, finished_result, training_key
from heal_core.sft.tokenised import StoredExamples, tokenise_cached

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from heal_core.sft.trainer import StageTrainer

PREFLIGHT_FILE = "preflight.json"
_VERSIONS = ("torch", "transformers", "trl", "accelerate", "datasets", "peft")


def train_stage(spec: StageSpec) -> StageResult:
    """Return the result of `spec`, trained now, resumed, or found finished.

    Raises:
        TrainingError: If it cannot be trained, or another process is training it.
        TimeIsUpError: If `stop_at` came before the last step; a checkpoint was written.
    """
    with folders.lock_output(spec.output_dir) if _is_main_process() else contextlib.nullcontext():
        finished = finished_result(spec)
        if finished is not None:
            return finished
        with folders.told_if_full(spec.output_dir, spec.label):
            return _train(spec)


def _is_main_process() -> bool:
    return int(os.environ.get("RANK", "0")) == 0


def _num_processes() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def _train(spec: StageSpec) -> StageResult:
    started = time.monotonic()
    key = training_key(spec)
    if _is_main_process():
        folders.claim_partial(spec.output_dir, key)
    tokenizer, max_length, vocabulary_size = model.load_tokenizer(spec)
    end_id = end_of_turn_id(tokenizer)
    tokenised = _tokenise(spec, spec.examples_path, tokenizer, max_length)
    check_examples(tokenised, end_id, vocabulary_size, max_length)
    num_unpaired = check_thinking(tokenised, tokenizer)
    held_out = _tokenise(spec, spec.held_out_path, tokenizer, max_length) if spec.held_out_path else None
    order = training_order(_stored(tokenised).ids(), spec.num_exposures, spec.config.seed)
    trainer = _build_trainer(spec, tokenizer, tokenised, order, held_out, end_id)
    _check_dataloader(trainer, tokenised, order, end_id)
    checkpoint = _find_checkpoint(spec, trainer)
    report = _preflight(spec, trainer, tokenizer, tokenised, order, max_length)
    first_step = folders.checkpoint_step(checkpoint) if checkpoint else 0
    report = report.model_copy(update={"num_unpaired_thinking": num_unpaired, "resumed_from_step": first_step})
    if _is_main_process():
        folders.write_text(folders.preflight_path(spec.output_dir), report.model_dump_json(indent=2))
    trainer.args.eval_on_start = trainer.num_held_out > 0 and checkpoint is None
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if trainer.state.global_step < spec.num_optimizer_steps:
        raise TimeIsUpError(
            f"{spec.label} stopped after step {trainer.state.global_step} of {spec.num_optimizer_steps}"
        )
    result = _stage_result(spec, key, report, trainer, checkpoint, time.monotonic() - started)
    _save(spec, trainer, tokenizer, result, end_id)
    return result


def _tokenise(spec: StageSpec, path: Path, tokenizer: PreTrainedTokenizerBase, max_length: int) -> TokenisedExamples:
    folder = spec.tokenised_dir or folders.partial_dir(spec.output_dir) / "tokenised"
    stored, over_long = tokenise_cached(read_examples(path), tokenizer, max_length, folder)
    return TokenisedExamples(stored, over_long, stored.lengths())


def _build_trainer(
    spec: StageSpec,
    tokenizer: PreTrainedTokenizerBase,
    tokenised: TokenisedExamples,
    order: Sequence[int],
    held_out: TokenisedExamples | None,
    end_id: int,
) -> StageTrainer:
    """Return the trainer in the precision that the settings name, or that a pass in both finds faster."""
    import torch

    from heal_core.sft.trainer import build_trainer

    config = spec.config
    on_gpu = torch.cuda.is_available()
    if config.device == "cuda" and not on_gpu:
        raise TrainingError(f"{spec.label}: device cuda was asked for, torch finds no GPU; use auto or cpu")
    try:
        config.device_share(_num_processes())
    except ValueError as error:
        raise TrainingError(f"{spec.label}: {error}") from error
    check_loggers(config)
    examples, held = _stored(tokenised), _stored(held_out) if held_out else None

    def build(is_bfloat16: bool) -> StageTrainer:
        # a launcher's file may name another, which accelerate would take in place of the settings'
        os.environ["ACCELERATE_MIXED_PRECISION"] = "bf16" if is_bfloat16 else "no"
        student = model.load_model(spec, end_id, is_bfloat16=is_bfloat16)
        return build_trainer(
            spec, student, tokenizer, examples, order, held, is_bfloat16=is_bfloat16, num_processes=_num_processes()
        )

    is_bfloat16 = config.dtype == "bfloat16" or (config.dtype in ("auto", "fastest") and on_gpu)
    trainer = build(is_bfloat16)
    if config.dtype == "fastest" and not on_gpu and _num_processes() == 1:
        exposed = [tokenised.lengths[index] for index in order]
        batch = trainer.exposures(_largest(exposed, _micro_batches(spec, tokenised.lengths, order)))
        if probe.fastest_dtype(trainer, batch, folders.dtype_path(spec.output_dir)) == "bfloat16":
            del trainer
            trainer = build(True)
    return trainer


def _stored(tokenised: TokenisedExamples) -> StoredExamples:
    assert isinstance(tokenised.examples, StoredExamples)
    return tokenised.examples


def _micro_batches(spec: StageSpec, lengths: Sequence[int], order: Sequence[int]) -> list[list[int]]:
    """Return the micro-batches of the whole stage, each as places in `order`.

    Several processes may cut a step further, to make the same number of passes.
    """
    limits = MicroBatchLimits(spec.config.per_device_train_batch_size, spec.config.micro_batch_tokens)
    share = spec.config.device_share(_num_processes())
    return [
        [start + i for i in group]
        for start in range(0, len(order), share)
        for group in split_step([lengths[index] for index in order[start : start + share]], limits)
    ]


def _preflight(
    spec: StageSpec,
    trainer: StageTrainer,
    tokenizer: PreTrainedTokenizerBase,
    tokenised: TokenisedExamples,
    order: Sequence[int],
    max_length: int,
) -> PreflightReport:
    exposed = [tokenised.lengths[index] for index in order]
    batches = _micro_batches(spec, tokenised.lengths, order)
    num_padded = padded_tokens(exposed, batches)
    seconds = memory = None
    if _num_processes() == 1:  # several would have to share the model first
        cost = probe.try_pass(trainer, trainer.exposures(_largest(exposed, batches)))
        seconds, memory = cost.token_seconds * num_padded, cost.peak_memory_mib
    num_parameters, num_trained = trainer.count_parameters()
    estimate = Estimate(
        num_padded_tokens=num_padded,
        num_micro_batches=len(batches),
        expected_seconds=seconds,
        expected_memory_mib=memory,
        num_parameters=num_parameters,
        num_trained_parameters=num_trained,
        dtype=_dtype(trainer),
    )
    return build_report(
        tokenised, order, tokenizer, estimate, max_length=max_length, num_optimizer_steps=spec.num_optimizer_steps
    )


def _largest(lengths: Sequence[int], batches: Sequence[Sequence[int]]) -> Sequence[int]:
    """Return the micro-batch that computes most tokens."""
    return max(batches, key=lambda batch: padded_tokens(lengths, [batch]))


def _find_checkpoint(spec: StageSpec, trainer: StageTrainer) -> Path | None:
    folder = folders.checkpoints_dir(spec.output_dir)
    if _is_main_process():
        folders.remove_torn_checkpoints(folder)
    trainer.accelerator.wait_for_everyone()
    return folders.last_complete_checkpoint(folder)


def _dtype(trainer: StageTrainer) -> str:
    return "bfloat16" if trainer.args.bf16 else "float32"


def _check_dataloader(trainer: StageTrainer, tokenised: TokenisedExamples, order: Sequence[int], end_id: int) -> None:
    """Check the first batch that the trainer's own dataloader gives to this process."""
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
    trainer: StageTrainer,
    checkpoint: Path | None,
    seconds: float,
) -> StageResult:
    history: list[dict[str, Any]] = trainer.state.log_history
    steps = tuple(
        StepLog(
            step=int(e["step"]),
            loss=e["loss"],
            learning_rate=e["learning_rate"],
            grad_norm=e["grad_norm"],
            # None in checkpoints of before these were noted
            num_tokens=e.get("num_read_tokens"),
            seconds=e.get("seconds"),
            positions=tuple(e.get("positions", ())),
        )
        for e in history
        if "loss" in e
    )
    if len(steps) != spec.num_optimizer_steps:
        raise TrainingError(
            f"{spec.label}: {len(steps)} optimizer steps were taken, expected {spec.num_optimizer_steps}"
        )
    held_out = tuple(
        HeldOutLoss(
            step=int(e["step"]), loss=e["eval_loss"], num_tokens=e["eval_num_tokens"], num_examples=trainer.num_held_out
        )
        for e in history
        if "eval_loss" in e
    )
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
        held_out=held_out,
        num_parameters=report.num_parameters,
        num_trained_parameters=report.num_trained_parameters,
        resumed_from_step=folders.checkpoint_step(checkpoint) if checkpoint else 0,
        seconds=seconds,
        peak_memory_mib=_peak_memory_mib(trainer.args.device.type),
        device=trainer.args.device.type,
        dtype=_dtype(trainer),
        versions={"python": platform.python_version()} | {n: importlib.metadata.version(n) for n in _VERSIONS},
        preflight=report,
    )


def _peak_memory_mib(device: str) -> float:
    import torch

    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def _save(
    spec: StageSpec, trainer: StageTrainer, tokenizer: PreTrainedTokenizerBase, result: StageResult, end_id: int
) -> None:
    """Write model, tokenizer, result and preflight report as one folder, and move it into place."""
    folder = folders.partial_dir(spec.output_dir) / "model"
    lora = spec.config.lora
    weights = folder if lora is None else model.adapter_dir(folder, lora)
    if _is_main_process():
        shutil.rmtree(folder, ignore_errors=True)
    trainer.accelerator.wait_for_everyone()
    trainer.save_model(str(weights))  # every process takes part: weights may be sharded
    if _is_main_process():
        if lora is not None:
            model.finish_adapter(spec, lora, folder, end_id)
        tokenizer.save_pretrained(folder)
        (folder / "training_args.bin").unlink(missing_ok=True)  # a pickle of paths on this machine
        (folder / PREFLIGHT_FILE).write_text(result.preflight.model_dump_json(indent=2), encoding="utf-8")
        (folder / RESULT_FILE).write_text(result.model_dump_json(indent=2), encoding="utf-8")
        folders.publish(folder, spec.output_dir)
    trainer.accelerator.wait_for_everyone()
