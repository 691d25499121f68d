"""A training example that can be traced back to the store, and the layouts in which trainers read it.

The user turn is what HEAL trains with, letter for letter. What does not belong here: where examples come from
(`store.examples`), files (`files`), and whether a template gives a text back (`template_check`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from heal_core.prompts import student_prompt
from heal_core.reference import reference_of

Layout = Literal["messages", "prompt-completion", "text"]


@dataclass(frozen=True)
class TracedExample:
    """A prompt and the response that a stage trains on, and what they are in the store."""

    trajectory_id: str
    problem_id: str
    prompt: str
    response: str
    arm: str
    stage: str
    kind: str
    band: str | None

    def trace(self) -> dict[str, str | None]:
        """Return the columns by which a row is found again in the store."""
        return {name: getattr(self, name) for name in TRACE_COLUMNS}


TRACE_COLUMNS = ("trajectory_id", "problem_id", "arm", "stage", "kind", "band")


def traced_example(row: Mapping[str, Any], arm: str, stage: str) -> TracedExample:
    """Return the example of a row of `read_stage_rows`."""
    return TracedExample(
        trajectory_id=row["trajectory_id"],
        problem_id=row["problem_id"],
        prompt=prompt_of(row),
        response=row["response"],
        arm=arm,
        stage=stage,
        kind=row["kind"],
        band=row["band"],
    )


def prompt_of(row: Mapping[str, Any]) -> str:
    """Return the user turn of a problem, as the student is trained on it and asked later."""
    wording = reference_of({**row, "spec": row.get("spec")}).wording  # stores from before schema 0005 have none
    return student_prompt(row["question"], wording)


def as_messages(example: TracedExample) -> dict[str, Any]:
    """Return TRL's conversational layout: one user and one assistant turn."""
    return {"messages": [turn("user", example.prompt), turn("assistant", example.response)], **example.trace()}


def as_prompt_completion(example: TracedExample) -> dict[str, Any]:
    """Return TRL's conversational prompt and completion, of which it trains the completion alone."""
    return {
        "prompt": [turn("user", example.prompt)],
        "completion": [turn("assistant", example.response)],
        **example.trace(),
    }


def as_sharegpt(example: TracedExample) -> dict[str, Any]:
    """Return the layout of ShareGPT, as LLaMA-Factory documents it."""
    turns = [{"from": "human", "value": example.prompt}, {"from": "gpt", "value": example.response}]
    return {"conversations": turns, **example.trace()}


def turn(role: str, content: str) -> dict[str, str]:
    """Return a message."""
    return {"role": role, "content": content}


CONVERSATIONS: dict[str, Callable[[TracedExample], dict[str, Any]]] = {
    "messages": as_messages,
    "prompt-completion": as_prompt_completion,
}
"""The layouts that leave the template to the trainer; `text` needs a tokenizer."""
