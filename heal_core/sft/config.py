"""The settings of one SFT stage, under the names that TRL and transformers give them.

How long a stage trains is not here: the curriculum decides that per stage
(`StageSpec.num_optimizer_steps`), so that every arm takes the same steps.
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from heal_core.errors import ConfigError

_NOT_IDENTITY = {
    "num_threads", "device", "save_every_steps", "save_every_seconds", "save_total_limit", "launcher",
    "per_device_train_batch_size", "micro_batch_tokens", "stall_seconds", "num_held_out", "report_to",
}  # fmt: skip
"""Where, how safely and how closely watched a stage is trained; they shape no result beyond rounding."""


class LoraConfig(BaseModel):
    """A low-rank adapter that is trained in place of the weights, the same one through all stages.

    Names and meanings are PEFT's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    r: int = Field(default=16, ge=1)
    """Rank of the adapter."""
    alpha: int = Field(default=32, ge=1)
    """Its scale is alpha / r; PEFT's `lora_alpha`."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """On what goes into it; PEFT's `lora_dropout`."""
    target_modules: Literal["all-linear"] | tuple[str, ...] = "all-linear"
    """What is adapted: names of modules."""
    save: Literal["merged", "adapter"] = "merged"
    """What a stage's folder holds: `merged` weights beside the adapter, which any engine loads, or the `adapter` alone,
    some MB, which the engine `hf` loads onto the student.
    """


Logger = Literal["tensorboard", "wandb", "trackio"]


class SftConfig(BaseModel):
    """How a stage is trained. Source: METHOD section 5 (docs/method.md).

    A device computes its share of a step in micro-batches of like lengths. bfloat16 means mixed precision over
    float32 weights, since an update at these learning rates is smaller than bfloat16's spacing.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    learning_rate: float = Field(default=1e-5, gt=0, le=1)
    """Peak learning rate of every stage."""
    batch_size: int = Field(default=8, ge=1)
    """Examples per optimizer step."""
    per_device_train_batch_size: int | None = Field(default=None, ge=1)
    """At most so many examples at a time; none: no limit."""
    micro_batch_tokens: int | None = Field(default=None, ge=2)
    """At most so many tokens at a time, padding included; a longer example goes alone. None: no limit."""
    warmup_ratio: float = Field(default=0.05, ge=0, lt=1)
    """Share of a stage's steps with rising learning rate."""
    lr_scheduler_type: str = Field(default="cosine", pattern="^(cosine|linear|constant_with_warmup)$")
    """Schedule after that."""
    weight_decay: float = Field(default=1e-4, ge=0, le=1)
    """Of AdamW."""
    adam_beta1: float = Field(default=0.9, ge=0, lt=1)
    """Of AdamW."""
    adam_beta2: float = Field(default=0.95, ge=0, lt=1)
    """Of AdamW."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients are clipped to this norm."""
    max_length: int = Field(default=8192, ge=2)
    """A longer example, in tokens, is dropped and counted, never cut."""
    dtype: str = Field(default="auto", pattern="^(auto|float32|bfloat16|fastest)$")
    """Precision of the computation, weights are float32: `auto` is bfloat16 (mixed precision) on a GPU and float32 on
    the CPU, `fastest` tries both on the CPU.
    """
    device: str = Field(default="auto", pattern="^(auto|cpu|cuda)$")
    """Where it trains."""
    gradient_checkpointing: bool = False
    """Less memory for more time."""
    lora: LoraConfig | None = None
    """Train an adapter in place of the weights, `{}` with the defaults."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Mixed with the run's `seed`."""
    num_threads: int | None = Field(default=None, ge=1)
    """CPU threads; none leaves it to torch."""
    save_every_steps: int | None = Field(default=None, ge=1)
    """Optimizer steps between checkpoints, besides."""
    save_every_seconds: float | None = Field(default=600.0, gt=0)
    """Time between checkpoints from which a killed stage goes on."""
    # one would be gone before the next is known to be whole
    save_total_limit: int = Field(default=2, ge=2)
    """Checkpoints that are kept."""
    num_held_out: int = Field(default=128, ge=0)
    """Solutions of held-out problems whose loss is measured before and after each stage."""
    report_to: tuple[Logger, ...] = ()
    """TRL's loggers, of the extra `logging`."""
    launcher: tuple[str, ...] = ()
    """Words that replace the interpreter, e.g. `[accelerate, launch, --config_file, fsdp.yaml]`."""
    stall_seconds: float = Field(default=3600.0, gt=0)
    """Time without an optimizer step, loading included, after which it is killed and goes on from its last checkpoint.
    """

    def device_share(self, num_processes: int) -> int:
        """Return how many examples of an optimizer step each process computes.

        Raises:
            ValueError: If `batch_size` cannot be shared out evenly.
        """
        share, rest = divmod(self.batch_size, num_processes)
        if rest or not share:
            raise ValueError(
                f"sft.batch_size {self.batch_size} cannot be shared out evenly over {num_processes} processes; "
                f"make it a multiple of {num_processes}"
            )
        return share

    def identity(self) -> dict[str, Any]:
        """Return what goes into content keys: the settings that change what is learnt."""
        settings = self.model_dump(mode="json", exclude=_NOT_IDENTITY)
        # a checkpoint keeps the key that it had before there were adapters
        return {name: value for name, value in settings.items() if name != "lora" or value is not None}


def find_launcher(launcher: tuple[str, ...]) -> tuple[str, ...]:
    """Return the words of `sft.launcher` with a program that is there: on the PATH, or beside this interpreter.

    Raises:
        ConfigError: If it is at neither.
    """
    if not launcher or shutil.which(launcher[0]) is not None:
        return launcher
    beside = Path(sys.executable).with_name(launcher[0])
    if beside.is_file():
        return (str(beside), *launcher[1:])
    raise ConfigError(
        f"sft.launcher: there is no program {launcher[0]!r}, neither on the PATH nor beside {sys.executable}. Name one "
        "that is there, for instance [accelerate, launch, --config_file, deployments/recipes/ddp.yaml], or none."
    )


def check_loggers(config: SftConfig) -> None:
    """Refuse loggers that are not installed.

    Raises:
        ConfigError: With how to get them.
    """
    missing = [name for name in config.report_to if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"sft.report_to: {', '.join(missing)} is not installed. Install it (pip install 'heal-distill[logging]'), "
            "or leave it out: every step is in the view training_steps."
        )
