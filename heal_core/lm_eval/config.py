"""Which tasks of lm-evaluation-harness a run evaluates, and how."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

_PACE = {"python", "batch_size", "call_seconds"}


class LmEvalConfig(BaseModel):
    """Tasks by name, with the harness's own names of settings.

    Attributes:
        tasks: Tasks, groups or tags.
        include_path: A folder with task files of one's own.
        limit: Problems per task; below 1 a share of them.
        num_fewshot: Solved examples in each prompt; None for the task's own number.
        apply_chat_template: Whether prompts are put into the student's chat template.
        system_instruction: Of each prompt.
        gen_kwargs: Settings of generation that replace the tasks' own.
        model: What the harness runs a student with.
        model_args: Further arguments of that, beside the student's folder and dtype.
        batch_size: A number, or `auto`.
        python: An interpreter that has the harness; None for this one.
        call_seconds: Time for the evaluation of one student.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    tasks: tuple[str, ...] = Field(min_length=1)
    include_path: str | None = None
    limit: float | None = Field(default=None, gt=0)
    num_fewshot: int | None = Field(default=None, ge=0)
    apply_chat_template: bool = False
    system_instruction: str | None = None
    gen_kwargs: dict[str, JsonValue] = {}
    model: Literal["hf", "vllm"] = "hf"
    model_args: dict[str, JsonValue] = {}
    batch_size: int | Literal["auto"] = 8
    python: str | None = None
    call_seconds: float = Field(default=4 * 3600.0, gt=0)

    def identity(self) -> dict[str, Any]:
        """Return what shapes the results, for content keys; where the task files are does not."""
        return self.model_dump(mode="json", exclude=_PACE | {"include_path"})
