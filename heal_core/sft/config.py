"""The settings of one SFT stage, under the names that TRL and transformers give them.

How long a stage trains is not here: the curriculum decides that per stage
(`StageSpec.num_optimizer_steps`), so that every arm takes the same steps.
"""

from __future__ import annotations

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

_NOT_IDENTITY = {
    "num_threads", "device", "save_every_steps", "launcher", "per_device_train_batch_size", "stall_seconds",
}  # fmt: skip
"""Where and how safely a stage is trained; they shape no result beyond rounding."""


class SftConfig(BaseModel):
    """How a stage is trained. Source: METHOD section 5 (docs/method.md).

    `batch_size` examples make one optimizer step: `per_device_train_batch_size` at a time
    (None: all of a device's share at once), the rest by gradient accumulation. `dtype`
    bfloat16 means mixed precision over float32 weights, since an update at these learning
    rates is smaller than bfloat16's spacing; `auto` is bfloat16 on a GPU, float32 on the CPU.
    `save_every_steps` writes checkpoints from which a killed stage goes on. `launcher`
    replaces the interpreter, e.g. `["accelerate", "launch", "--config_file", "fsdp.yaml"]`. `stall_seconds` without an
    optimizer step, loading included, kill the child, which goes on from its last checkpoint.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    learning_rate: float = Field(default=1e-5, gt=0, le=1)
    batch_size: int = Field(default=8, ge=1)
    per_device_train_batch_size: int | None = Field(default=None, ge=1)
    warmup_ratio: float = Field(default=0.05, ge=0, lt=1)
    lr_scheduler_type: str = Field(default="cosine", pattern="^(cosine|linear|constant_with_warmup)$")
    weight_decay: float = Field(default=1e-4, ge=0, le=1)
    adam_beta1: float = Field(default=0.9, ge=0, lt=1)
    adam_beta2: float = Field(default=0.95, ge=0, lt=1)
    max_grad_norm: float = Field(default=1.0, gt=0)
    max_length: int = Field(default=8192, ge=2)
    dtype: str = Field(default="auto", pattern="^(auto|float32|bfloat16)$")
    device: str = Field(default="auto", pattern="^(auto|cpu|cuda)$")
    gradient_checkpointing: bool = False
    seed: int = Field(default=0, ge=0, lt=2**32)
    num_threads: int | None = Field(default=None, ge=1)
    save_every_steps: int | None = Field(default=None, ge=1)
    launcher: tuple[str, ...] = ()
    stall_seconds: float = Field(default=3600.0, gt=0)

    @model_validator(mode="after")
    def _check_batch(self) -> Self:
        self.split_batch(1)
        return self

    def split_batch(self, num_processes: int) -> tuple[int, int]:
        """Return (per-device batch size, gradient accumulation steps) that make `batch_size` exactly.

        Raises:
            ValueError: If the parts do not divide `batch_size`.
        """
        per_device = self.per_device_train_batch_size or max(1, self.batch_size // num_processes)
        accumulation, rest = divmod(self.batch_size, per_device * num_processes)
        if rest or accumulation == 0:
            raise ValueError(
                f"batch_size {self.batch_size} is not a multiple of per_device_train_batch_size {per_device} "
                f"x {num_processes} processes; choose a per_device_train_batch_size that divides it"
            )
        return per_device, accumulation

    def identity(self) -> dict[str, Any]:
        """Return what goes into content keys: the settings that change what is learnt."""
        return self.model_dump(mode="json", exclude=_NOT_IDENTITY)
