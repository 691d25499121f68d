"""Gates on answer-conditioned text: signs that a hint or a solution leans on the answer it was shown.

`check_hint` is G1; `check_text` runs G2, G3, G4, G5 and G10 on repairs, on guided
samples, and on base rollouts too, which give the false-positive rate. What does not
belong here: whether the answer is right (`verify`), how the answer is found (`reference`, `answers`),
scores that need a model (`pure`).
Source: METHOD section 4 (docs/method.md).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from heal_core.errors import ShapeError
from heal_core.records import GateResult
from heal_core.reference import CodeReference, Reference

TextGate = Literal["G2", "G3", "G4", "G5", "G10"]

_ANSWER = r"(?:(?:final|correct|right|true|known|expected|actual) )*answer\b(?! (?:choice|option|format))"
META_REFERENCES = (
    r"\b(?:the|this|that|your|given|provided) hints?\b",
    r"\bas hinted\b",
    rf"\bgiven (?:that )?(?:the|this) {_ANSWER}",
    r"\b(?:the|this) (?:given|provided|known|stated|supplied|reference) answer\b",
    rf"\bthe {_ANSWER} (?:is|was|has been) (?:already )?(?:given|provided|supplied)\b(?! (?:by|as|in)\b)",
    rf"\b(?:we|I) (?:already )?know (?:that )?the {_ANSWER}",
    rf"\b(?:told|informed) (?:that )?the {_ANSWER}",
    r"\bas (?:was )?provided\b(?! (?:in|by) the (?:problem|question|statement|figure|diagram|table))",
    rf"\bwork(?:s|ed|ing)? back(?:wards?)? from (?:the|this|that) (?:{_ANSWER}|result\b)",
    r"\bwithout mentioning\b",
    r"(?:根据|按照|依据|依照|参考|正如|利用)(?:所给|给出|给定|上述|以上|上面|该|这个|此)?的?提示",
    r"(?:这个|这条|该|此|上述|上面的)提示",
    r"提示(?:中|里|说|告诉|指出|表明|提到|给出)",
    r"(?:已知|给定|所给|给出的|提供的|参考|标准)的?(?:最终|正确)?答案",
    r"答案(?:已经|已)(?:给出|给定|知道|知)",
    r"(?:从|由|根据)(?:最终|正确|已知)*的?答案(?:出发|倒推|反推|逆推|往回推|倒着推)",
)
"""Phrases that only someone who was shown a hint or an answer writes (G2), as patterns without case."""

_OPERAND = (  # an expression without words; its length is bounded so that a search stays linear
    r"(?:[^\S\n]|[-+*/^\u00d7·÷()\[\]{}%|!]|[0-9]|[.,](?=[0-9])|\\[A-Za-z]+|_|(?<![A-Za-z])[A-Za-z](?![A-Za-z])){0,120}"
)
_NUMERIC_EQUATION = re.compile(rf"[0-9]{_OPERAND}+={_OPERAND}(?<=[0-9])")  # the first is possessive
_LATEX_MATH = re.compile(r"\$\$.{1,2000}?\$\$|\$[^$]{1,2000}\$|\\\(.{1,2000}?\\\)|\\\[.{1,2000}?\\\]", re.DOTALL)


class GatesConfig(BaseModel):
    """Which gates refuse, and their limits as shares of the repaired tokens or of the natural length.

    `enabled` is a set: the gates always run in METHOD's order.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    enabled: tuple[TextGate, ...] = ("G2", "G3", "G4", "G5", "G10")
    early_fraction: float = Field(default=0.1, ge=0, le=1)
    late_fraction: float = Field(default=0.6, ge=0, le=1)
    min_length_ratio: float = Field(default=0.3, ge=0)
    min_natural_paths: int = Field(default=20, ge=1)


@dataclass(frozen=True)
class AnswerConditionedText:
    """A response with the part that was written under a hint or with the answer in sight.

    Attributes:
        text: The whole response, kept prefix and continuation.
        repaired_start_char: Where the continuation begins; 0 for guided samples and base rollouts.
        token_starts: Offsets in `text` at which the tokens of the repaired part begin, ascending, shape [T].
        num_repaired_tokens: Their number.
    """

    question: str
    reference: Reference
    text: str
    repaired_start_char: int
    token_starts: np.ndarray
    num_repaired_tokens: int

    @cached_property
    def first_assertion(self) -> int | None:
        """Offset in `text` of the repaired part's first assertion of the answer, None without one."""
        offsets = self.reference.find_assertions(self.text)
        return next((offset for offset in offsets if offset >= self.repaired_start_char), None)

    def num_tokens_before(self, offset: int) -> int:
        """Return how many repaired tokens begin before the one that holds `offset`."""
        return max(0, int(np.searchsorted(self.token_starts, offset, side="right")) - 1)


def check_hint(hint: str, reference: Reference, question: str) -> GateResult:
    """Return G1's verdict on a hint: refused as "empty", or as "G1" when it states the answer.

    A number or an expression counts in every written form; a short one only next to "=",
    "is" or "answer", on either side. That the question holds the same value is no excuse,
    since a hint that repeats it points at it; the detail then says so. Of a program, eight words in a row count.
    """
    if not hint.strip():
        return GateResult(False, "empty", "the hint has no text")
    offset = reference.find_leak(hint, question)
    if offset is None:
        return GateResult(True)
    in_question = " (the question holds it too)" if reference.find_assertions(question) else ""
    return GateResult(False, "G1", f"states the answer{in_question}: {_excerpt(hint, offset)}")


def check_text(
    item: AnswerConditionedText,
    median_natural_tokens: float | None,
    num_natural_paths: int,
    num_response_tokens: int,
    config: GatesConfig,
) -> GateResult:
    """Return the first refusal among the enabled gates, in METHOD's order, or a pass.

    Args:
        median_natural_tokens: Median length of the hard band's correct rollouts; None without any.
        num_natural_paths: How many rollouts that median is over; G5 is off when they are too few.
        num_response_tokens: Length of the whole response.

    Raises:
        ShapeError: If the token offsets are not as many as the repaired tokens.
    """
    if len(item.token_starts) != item.num_repaired_tokens:
        raise ShapeError(
            f"{item.num_repaired_tokens} repaired tokens need as many offsets, got {len(item.token_starts)}"
        )
    natural_tokens = None if num_natural_paths < config.min_natural_paths else median_natural_tokens
    gates: dict[TextGate, Callable[[], str | None]] = {
        "G2": lambda: _meta_reference(item),
        "G3": lambda: _early_assertion(item, config.early_fraction),
        "G4": lambda: _late_talk(item, config.late_fraction),
        "G5": lambda: _too_short(num_response_tokens, natural_tokens, config.min_length_ratio),
        "G10": lambda: item.reference.find_open_end(item.text.rsplit("</think>", 1)[-1]),
    }
    for gate, find_refusal in gates.items():
        if gate in config.enabled and (detail := find_refusal()) is not None:
            return GateResult(False, gate, detail)
    return GateResult(True)


def _meta_reference(item: AnswerConditionedText) -> str | None:
    repaired, question = (_plain_quotes(t) for t in (item.text[item.repaired_start_char :], item.question))
    for pattern in META_REFERENCES:
        found = re.search(pattern, repaired, re.IGNORECASE)
        if found and not re.search(pattern, question, re.IGNORECASE):
            return f"refers to what it was shown: {_excerpt(repaired, found.start())}"
    return None


def _early_assertion(item: AnswerConditionedText, early_fraction: float) -> str | None:
    # a program is the solution itself: nearly every natural text opens its code block at once
    if item.first_assertion is None or isinstance(item.reference, CodeReference):
        return None
    before, total = item.num_tokens_before(item.first_assertion), item.num_repaired_tokens
    if before >= early_fraction * total:
        return None
    return f"asserts the answer after {before} of {total} repaired tokens"


def _late_talk(item: AnswerConditionedText, late_fraction: float) -> str | None:
    offset = item.first_assertion
    if offset is None or isinstance(item.reference, CodeReference):  # a program follows from no equation
        return None
    total = item.num_repaired_tokens
    after = total - item.num_tokens_before(offset) - 1
    if after <= late_fraction * total or _has_new_equation(item, offset):
        return None
    return f"asserts the answer without a new equation before it, {after} of {total} repaired tokens follow"


def _has_new_equation(item: AnswerConditionedText, end: int) -> bool:
    """Return whether an equation that neither question nor prefix holds stands before `end`."""
    known = _squeeze(item.question) + "\n" + _squeeze(item.text[: item.repaired_start_char])
    found = _equations(item.text[item.repaired_start_char : end])
    return any(_squeeze(equation) not in known for equation in found)


def _equations(text: str) -> Iterator[str]:
    """Yield what counts as an equation: "=" with a number on each side, or within LaTeX maths."""
    yield from (match.group() for match in _NUMERIC_EQUATION.finditer(text))
    yield from (match.group() for match in _LATEX_MATH.finditer(text) if "=" in match.group())


def _too_short(num_tokens: int, natural_tokens: float | None, min_ratio: float) -> str | None:
    if natural_tokens is None or num_tokens >= min_ratio * natural_tokens:
        return None
    return f"{num_tokens} tokens are under {min_ratio:g} x the natural median of {natural_tokens:g}"


def _squeeze(text: str) -> str:
    return re.sub(r"\s", "", text)


def _plain_quotes(text: str) -> str:
    return text.replace("\u2019", "'")


def _excerpt(text: str, offset: int) -> str:
    return repr(" ".join(text[max(0, offset - 30) : offset + 50].split()))
