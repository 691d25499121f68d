"""Which tasks of lm-evaluation-harness a run evaluates, and how."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

_PACE = {"python", "batch_size", "call_seconds"}


class LmEvalConfig(BaseModel):
    """Tasks by name, with the harness's own names of settings."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tasks: tuple[str, ...] = Field(min_length=1)
    """Tasks, groups or tags."""
    include_path: str | None = None
    """Folder with task files of your own."""
    limit: float | None = Field(default=None, gt=0)
    """Problems per task; below 1 a share of them."""
    num_fewshot: int | None = Field(default=None, ge=0)
    """Solved examples in each prompt; none: the task's own number."""
    apply_chat_template: bool = False
    """Put prompts into the student's chat template."""
    system_instruction: str | None = None
    """Of each prompt."""
    gen_kwargs: dict[str, JsonValue] = {}
    """Settings of generation that replace the tasks' own."""
    model: Literal["hf", "vllm"] = "hf"
    """What the harness runs a student with; `vllm` not with `sft.lora.save=adapter`."""
    model_args: dict[str, JsonValue] = {}
    """Further arguments of that, beside the student's folder and dtype."""
    batch_size: int | Literal["auto"] = 8
    """Rows at a time."""
    python: str | None = None
    """An interpreter that has the harness; none: this one."""
    call_seconds: float = Field(default=4 * 3600.0, gt=0)
    """Time for the evaluation of one student."""

    def identity(self) -> dict[str, Any]:
        """Return what shapes the results, for content keys; where the task files are does not."""
        return self.model_dump(mode="json", exclude=_PACE | {"include_path"})
