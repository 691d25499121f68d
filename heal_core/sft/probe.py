"""What a pass over the student takes in time and memory, tried on a real micro-batch before training.

The weights stay as they are, and so does the state of the random generators: a stage that
was probed trains as one that was not.
"""

from __future__ import annotations

import resource
import statistics
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heal_core.errors import TrainingError
from heal_core.sft import folders

_ROUNDS = 3
_WORTH_IT = 1.1
_ADAM_BYTES = 8  # per trained parameter: two moments in float32


@dataclass(frozen=True)
class PassCost:
    """What training takes, as far as a single process can try it.

    Attributes:
        token_seconds: Time of a forward and backward pass per token of a micro-batch, padding included.
        peak_memory_mib: Of the process on the CPU, of the GPU on one, the optimizer's moments included.
    """

    token_seconds: float
    peak_memory_mib: float


def try_pass(trainer: Any, batch: dict[str, Any]) -> PassCost:
    """Return the cost of the largest micro-batch, which is passed over twice: the first pass is slower.

    Args:
        batch: What the trainer's own data loader would give, shape [B, T].

    Raises:
        TrainingError: If the memory of the GPU does not hold it.
    """
    import torch

    try:
        seconds = [_pass_seconds(trainer, batch, None) for _ in range(2)][-1]
    except torch.OutOfMemoryError as error:
        num_examples, num_tokens = batch["input_ids"].shape
        raise TrainingError(
            f"the GPU's memory does not hold a pass over the largest micro-batch, {num_examples} x {num_tokens} "
            "tokens: set sft.micro_batch_tokens, sft.gradient_checkpointing=true or sft.lora.r=16, or split the "
            f"student over several GPUs (sft.launcher). torch says: {error}"
        ) from error
    _, num_trained = trainer.count_parameters()
    if trainer.args.device.type == "cuda":
        peak = torch.cuda.max_memory_allocated() / 2**20
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    return PassCost(seconds / batch["input_ids"].numel(), peak + num_trained * _ADAM_BYTES / 2**20)


def fastest_dtype(trainer: Any, batch: dict[str, Any], noted: Path) -> str:
    """Return float32 or bfloat16, whichever passes over a micro-batch faster here; a tie is float32.

    A stage that goes on keeps what it began with, which is in the file `noted`: a choice made anew
    could differ, and with it the weights.
    """
    import torch

    if noted.is_file():
        return noted.read_text(encoding="utf-8")
    seconds: dict[Any, list[float]] = {None: [], torch.bfloat16: []}
    for _ in range(_ROUNDS + 1):
        for dtype, times in seconds.items():
            times.append(_pass_seconds(trainer, batch, dtype))
    full, half = (statistics.median(times[1:]) for times in seconds.values())
    chosen = "bfloat16" if full > _WORTH_IT * half else "float32"
    folders.write_text(noted, chosen)
    return chosen


def _pass_seconds(trainer: Any, batch: dict[str, Any], dtype: Any) -> float:
    """Return the seconds of one forward and backward pass, in mixed precision with a `dtype`."""
    import torch

    device = trainer.args.device
    inputs = {name: values.to(device) for name, values in batch.items() if name != "positions"}
    model = trainer.model.to(device)
    if trainer.args.gradient_checkpointing:  # which the trainer turns on when it begins
        model.gradient_checkpointing_enable(trainer.args.gradient_checkpointing_kwargs)
    model.train()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        context: Any = torch.autocast(device.type, dtype) if dtype else nullcontext()
        started = time.perf_counter()
        with context if dtype else trainer.compute_loss_context_manager():
            loss = trainer.compute_loss(model, inputs, num_items_in_batch=1)
        loss.backward()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - started
    model.zero_grad()
    trainer.forget()
    return seconds
