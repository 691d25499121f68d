"""Gates on answer-conditioned text: signs that a hint or a solution leans on the answer it was shown.

`examine_hint` is G1; `examine_text` says what each of G2 to G10 finds, and `first_refusal` which of those that
refuse in a run comes first. Repairs and guided samples pass through them, and base rollouts too, which give the
false-positive rates. What does not belong here: whether the answer is right (`verify`), how the answer is found
(`reference`, `answers`), the wording that gates look for (`gate_rules`), scores that need a model (`pure`).
Source: METHOD section 4 (docs/method.md).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, field_validator, model_serializer

from heal_core.errors import ShapeError
from heal_core.gate_rules import GateRules, count_matches, find_first, shipped_rules
from heal_core.loops import most_repeats
from heal_core.records import GateFinding, GateResult
from heal_core.reference import CodeReference, Reference
from heal_core.scripts import find_foreign
from heal_core.seams import find_bad_seam

TextGate = Literal["G2", "G3", "G4", "G5", "G10"]
FormGate = Literal["G7", "G8", "G9"]

GATES = ("G2", "G3", "G4", "G5", "G6", "G7", "G8", "G9", "G10")
"""Those on texts, in METHOD's order."""

_OPERAND = (  # an expression without words; its length is bounded so that a search stays linear
    r"(?:[^\S\n]|[-+*/^\u00d7·÷()\[\]{}%|!]|[0-9]|[.,](?=[0-9])|\\[A-Za-z]+|_|(?<![A-Za-z])[A-Za-z](?![A-Za-z])){0,120}"
)
_NUMERIC_EQUATION = re.compile(rf"[0-9]{_OPERAND}+={_OPERAND}(?<=[0-9])")  # the first is possessive
_LATEX_MATH = re.compile(r"\$\$.{1,2000}?\$\$|\$[^$]{1,2000}\$|\\\(.{1,2000}?\\\)|\\\[.{1,2000}?\\\]", re.DOTALL)


class GatesConfig(BaseModel):
    """Which gates refuse, and their limits as shares of the repaired tokens or of the natural length.

    `enabled` and `form` are sets, since gates always run in METHOD's order. `rules` are patterns beside those that
    HEAL ships.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    enabled: tuple[TextGate, ...] = ("G2", "G3", "G4", "G5", "G10")
    """Gates on the use of the answer that refuse; G1 always does, G6 never. All run in METHOD's order, and those that
    are off are counted all the same.
    """
    form: tuple[FormGate, ...] = ("G7", "G8", "G9")
    """Gates on the form of the text that refuse."""
    early_fraction: float = Field(default=0.1, ge=0, le=1)
    """G3: no answer within this share of the repaired tokens."""
    late_fraction: float = Field(default=0.6, ge=0, le=1)
    """G4: most of them that may follow the first assertion, as a share."""
    min_length_ratio: float = Field(default=0.3, ge=0)
    """G5: shortest response, in median lengths of natural ones."""
    min_natural_paths: int = Field(default=20, ge=1)
    """G5 is off with fewer natural ones (hard band)."""
    max_foreign_share: float = Field(default=0.01, ge=0, le=1)
    """G7: share of letters of another script that may be."""
    loop_ngram: int = Field(default=20, ge=1)
    """G9: length in tokens of what recurs."""
    loop_repeats: int = Field(default=5, ge=2)
    """G9: so many occurrences are a loop."""
    rules: GateRules = GateRules()

    @field_validator("enabled", "form", mode="before")
    @classmethod
    def _tell_where_a_gate_is_set(cls, given: Any, info: Any) -> Any:
        others = {"enabled": ("form", ("G7", "G8", "G9")), "form": ("enabled", ("G2", "G3", "G4", "G5", "G10"))}
        key, gates = others[info.field_name]
        for gate in given if isinstance(given, list | tuple) else ():
            if gate in gates:
                raise ValueError(f"gates.{info.field_name} has {gate}, which is set in gates.{key}")
            if gate == "G6":
                raise ValueError(f"gates.{info.field_name} has G6, which is reported and never refuses")
            if gate == "G1":
                raise ValueError(f"gates.{info.field_name} has G1, which refuses hints always")
        return given

    @model_serializer(mode="wrap")
    def _leave_out_later_defaults(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # a run's id is made of its settings, and of the code's versions apart from them: a setting that came later
        # is not in the id as long as it is not used
        settings: dict[str, Any] = handler(self)
        later = ("form", "max_foreign_share", "loop_ngram", "loop_repeats", "rules")
        unused = {name for name in later if getattr(self, name) == type(self).model_fields[name].default}
        return {name: value for name, value in settings.items() if name not in unused}


@dataclass(frozen=True)
class AnswerConditionedText:
    """A response with the part that was written under a hint or with the answer in sight.

    Attributes:
        text: The whole response, kept prefix and continuation.
        repaired_start_char: Where the continuation begins; 0 for guided samples and base rollouts.
        token_starts: Offsets in `text` at which the tokens of the repaired part begin, ascending, shape [T].
        num_repaired_tokens: Their number.
        token_ids: Those tokens, shape [T].
        seam_char: Where what was sampled joins what was kept, or in a text of one piece where it would have been cut
            (`seams.natural_seam`); None without a seam.
    """

    question: str
    reference: Reference
    text: str
    repaired_start_char: int
    token_starts: np.ndarray
    num_repaired_tokens: int
    token_ids: np.ndarray
    seam_char: int | None = None

    @property
    def repaired(self) -> str:
        """The part that was written under a hint or with the answer in sight."""
        return self.text[self.repaired_start_char :]

    @cached_property
    def first_assertion(self) -> int | None:
        """Offset in `text` of the repaired part's first assertion of the answer, None without one."""
        offsets = self.reference.find_assertions(self.text)
        return next((offset for offset in offsets if offset >= self.repaired_start_char), None)

    def num_tokens_before(self, offset: int) -> int:
        """Return how many repaired tokens begin before the one that holds `offset`."""
        return max(0, int(np.searchsorted(self.token_starts, offset, side="right")) - 1)


def check_hint(hint: str, reference: Reference, question: str) -> GateResult:
    """Return the verdict on a hint: refused as "empty", or as "G1" when it states the answer. See `examine_hint`."""
    for finding in examine_hint(hint, reference, question):
        if finding.refused:
            return GateResult(False, finding.gate, finding.detail)
    return GateResult(True)


def examine_hint(hint: str, reference: Reference, question: str) -> tuple[GateFinding, GateFinding]:
    """Return whether a hint is empty, and whether it states the answer, which is G1.

    A number or an expression counts in every written form; a short one only next to "=",
    "is" or "answer", on either side. That the question holds the same value is no excuse,
    since a hint that repeats it points at it; the detail then says so. Of a program, eight words in a row count.
    """
    if not hint.strip():
        return GateFinding("empty", True, detail="the hint has no text"), GateFinding("G1", None)
    offset = reference.find_leak(hint, question)
    if offset is None:
        return GateFinding("empty", False), GateFinding("G1", False)
    in_question = " (the question holds it too)" if reference.find_assertions(question) else ""
    leak = f"states the answer{in_question}: {_excerpt(hint, offset)}"
    return GateFinding("empty", False), GateFinding("G1", True, detail=leak)


def check_text(
    item: AnswerConditionedText,
    median_natural_tokens: float | None,
    num_natural_paths: int,
    num_response_tokens: int,
    config: GatesConfig,
) -> GateResult:
    """Return the first refusal among the enabled gates, in METHOD's order, or a pass. See `examine_text`."""
    findings = examine_text(item, median_natural_tokens, num_natural_paths, num_response_tokens, config)
    return first_refusal(findings, config)


def first_refusal(findings: Sequence[GateFinding], config: GatesConfig) -> GateResult:
    """Return the first refusal by a gate that refuses in this run, or a pass."""
    for finding in findings:
        if finding.refused and finding.gate in (*config.enabled, *config.form):
            return GateResult(False, finding.gate, finding.detail)
    return GateResult(True)


def examine_text(
    item: AnswerConditionedText,
    median_natural_tokens: float | None,
    num_natural_paths: int,
    num_response_tokens: int,
    config: GatesConfig,
) -> tuple[GateFinding, ...]:
    """Return what each gate finds, in METHOD's order, those that do not refuse in this run too.

    Args:
        median_natural_tokens: Median length of the hard band's correct rollouts; None without any.
        num_natural_paths: How many rollouts that median is over; G5 is off when they are too few.
        num_response_tokens: Length of the whole response.

    Raises:
        ConfigError: If one of the run's own patterns takes too long.
        ShapeError: If the tokens or their offsets are not as many as the repaired tokens.
    """
    if not len(item.token_starts) == len(item.token_ids) == item.num_repaired_tokens:
        raise ShapeError(
            f"{item.num_repaired_tokens} repaired tokens need as many ids and offsets, got {len(item.token_ids)} and "
            f"{len(item.token_starts)}"
        )
    natural_tokens = None if num_natural_paths < config.min_natural_paths else median_natural_tokens
    rules = shipped_rules() + config.rules
    open_end = item.reference.find_open_end(item.text.rsplit("</think>", 1)[-1])
    findings = (
        _meta_reference(item, rules.meta_references),
        _early_assertion(item, config.early_fraction),
        _late_talk(item, config.late_fraction),
        _too_short(num_response_tokens, natural_tokens, config.min_length_ratio),
        _hesitation(item, rules.hesitations),
        _foreign_letters(item, config.max_foreign_share),
        _bad_seam(item, rules.restarts),
        _loop(item, config.loop_ngram, config.loop_repeats),
        GateFinding("G10", open_end is not None, detail=open_end),
    )
    assert tuple(finding.gate for finding in findings) == GATES
    return findings


def _meta_reference(item: AnswerConditionedText, patterns: Sequence[str]) -> GateFinding:
    for pattern in patterns:
        start = find_first(pattern, item.repaired)
        if start is not None and find_first(pattern, item.question) is None:
            return GateFinding("G2", True, detail=f"refers to what it was shown: {_excerpt(item.repaired, start)}")
    return GateFinding("G2", False)


def _early_assertion(item: AnswerConditionedText, early_fraction: float) -> GateFinding:
    # a program is the solution itself: nearly every natural text opens its code block at once
    if isinstance(item.reference, CodeReference):
        return GateFinding("G3", None)
    if item.first_assertion is None:
        return GateFinding("G3", False)
    before, total = item.num_tokens_before(item.first_assertion), item.num_repaired_tokens
    value = before / max(1, total)
    if before >= early_fraction * total:
        return GateFinding("G3", False, value)
    return GateFinding("G3", True, value, f"asserts the answer after {before} of {total} repaired tokens")


def _late_talk(item: AnswerConditionedText, late_fraction: float) -> GateFinding:
    offset = item.first_assertion
    if isinstance(item.reference, CodeReference):  # a program follows from no equation
        return GateFinding("G4", None)
    if offset is None:
        return GateFinding("G4", False)
    total = item.num_repaired_tokens
    after = total - item.num_tokens_before(offset) - 1
    value = after / max(1, total)
    if after <= late_fraction * total or _has_new_equation(item, offset):
        return GateFinding("G4", False, value)
    return GateFinding(
        "G4",
        True,
        value,
        f"asserts the answer without a new equation before it, {after} of {total} repaired tokens follow",
    )


def _too_short(num_tokens: int, natural_tokens: float | None, min_ratio: float) -> GateFinding:
    if not natural_tokens:
        return GateFinding("G5", None)
    value = num_tokens / natural_tokens
    if num_tokens >= min_ratio * natural_tokens:
        return GateFinding("G5", False, value)
    return GateFinding(
        "G5", True, value, f"{num_tokens} tokens are under {min_ratio:g} x the natural median of {natural_tokens:g}"
    )


def _hesitation(item: AnswerConditionedText, patterns: tuple[str, ...]) -> GateFinding:
    return GateFinding("G6", None, 1000 * count_matches(patterns, item.repaired) / max(1, item.num_repaired_tokens))


def _foreign_letters(item: AnswerConditionedText, max_share: float) -> GateFinding:
    found = find_foreign(item.repaired, (item.question, *item.reference.all_forms))
    if found.share <= max_share:
        return GateFinding("G7", False, found.share)
    return GateFinding(
        "G7",
        True,
        found.share,
        f"{len(found.letters)} of {found.num_letters} letters are {' and '.join(found.scripts)}: {found.letters[:20]}",
    )


def _bad_seam(item: AnswerConditionedText, restarts: Sequence[str]) -> GateFinding:
    seam = item.seam_char
    meant = [pattern for pattern in restarts if find_first(pattern, item.question) is None]
    detail = find_bad_seam(item.text[: seam or 0], item.text[seam or 0 :], meant)
    if detail is None and seam is None:
        return GateFinding("G8", None)
    return GateFinding("G8", detail is not None, detail=detail)


def _loop(item: AnswerConditionedText, ngram: int, repeats: int) -> GateFinding:
    most = most_repeats(item.token_ids, ngram)
    if most < repeats:
        return GateFinding("G9", False, most)
    return GateFinding("G9", True, most, f"the same {ngram} tokens occur {most} times")


def _has_new_equation(item: AnswerConditionedText, end: int) -> bool:
    """Return whether an equation that neither question nor prefix holds stands before `end`."""
    known = _squeeze(item.question) + "\n" + _squeeze(item.text[: item.repaired_start_char])
    found = _equations(item.text[item.repaired_start_char : end])
    return any(_squeeze(equation) not in known for equation in found)


def _equations(text: str) -> Iterator[str]:
    """Yield what counts as an equation: "=" with a number on each side, or within LaTeX maths."""
    yield from (match.group() for match in _NUMERIC_EQUATION.finditer(text))
    yield from (match.group() for match in _LATEX_MATH.finditer(text) if "=" in match.group())


def _squeeze(text: str) -> str:
    return re.sub(r"\s", "", text)


def _excerpt(text: str, offset: int) -> str:
    return repr(" ".join(text[max(0, offset - 30) : offset + 50].split()))
