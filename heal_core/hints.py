"""The hints of GEAR: whether the teacher writes any, how they are drawn, and what is taken as the hint.

The prompt texts stand in `prompts`, the leak gate in `gates`.
"""

from __future__ import annotations

import re
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from heal_core.engines.base import SamplingConfig

MAX_SENTENCES = 3


class HintSamplingConfig(SamplingConfig):
    """How a hint is drawn: as rollouts are, but short."""

    max_tokens: int = Field(default=512, ge=1)
    """Limit of a hint."""


class HintConfig(BaseModel):
    """What a wrong path is continued under. Source: definition D6 (docs/method.md)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    arm: Literal["generated", "answer"] = "generated"
    """`generated`: the teacher writes a hint that must not give the answer away, and continues without the answer;
    `answer`: no hint, the answer stands in the prompt of the continuation (D6).
    """
    max_tries: int = Field(default=3, ge=1)
    """Tries at a hint that passes gate G1, else the path is dropped."""
    sampling: HintSamplingConfig = HintSamplingConfig()


def clean_hint(text: str) -> str:
    """Return the hint itself: what stands after a closed think block, at most three sentences.

    Empty when the model wrote none, or was cut while it still thought.
    """
    visible = text.rsplit("</think>", 1)[-1].strip()
    if "<think>" in visible:
        return ""
    visible = re.sub(r"^(\*\*)?hint(\*\*)?\s*:\s*(\*\*)?\s*", "", visible, flags=re.IGNORECASE)
    sentences = re.split(r"(?<=[.!?])\s+", visible)
    return " ".join(sentences[:MAX_SENTENCES]).strip()
