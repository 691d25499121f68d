"""The slots of what is sampled from a problem alone: plain attempts, and those with the answer in sight.

What does not belong here: hints and repairs, which continue a wrong path (`repair`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from heal_core.engines.base import SamplingConfig
from heal_core.plan import Slot
from heal_core.prompts import guided_prompt, student_prompt
from heal_core.records import Kind
from heal_core.reference import reference_of


def rollout_slot(problem: Mapping[str, Any], recipe_id: str, index: int, sampling: SamplingConfig) -> Slot:
    """Return the slot of a plain attempt at a problem, a row of the table problems."""
    prompt = student_prompt(problem["question"], reference_of(problem).wording)
    return Slot(Kind.ROLLOUT, problem["problem_id"], recipe_id, index, prompt, sampling.max_tokens)


def guided_slot(problem: Mapping[str, Any], recipe_id: str, index: int, sampling: SamplingConfig) -> Slot:
    """Return the slot of a solution that is drawn with the answer in sight."""
    reference = reference_of(problem)
    prompt = guided_prompt(problem["question"], reference.told, reference.wording)
    return Slot(Kind.GUIDED, problem["problem_id"], recipe_id, index, prompt, sampling.max_tokens)
