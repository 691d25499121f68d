"""PURE: does a verified repair reason its way to the answer, or jump to it (METHOD section 3).

Plans what the scorer must be asked, combines its numbers into the three scores, and
decides which candidates are dropped. What does not belong here: calling an engine,
cutting steps (`steps`), gates before and the cap after (`gates`, `curriculum`).
Legend for shapes: S steps, T tokens. Steps count from 0 here: step k has the
uncertainty `answer_uncertainties[k]` before it and `[k + 1]` after it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

from heal_core.engines.base import ScoreRequest
from heal_core.errors import ShapeError
from heal_core.records import PureScore, Step
from heal_core.reference import Reference
from heal_core.validity.config import ValidityConfig

AUTO = "auto"
SCORE_NAMES = ("ratio", "jump", "reliance")
"""The scores in METHOD's order; the first is the one that needs no proof (definition D8)."""


class PureConfig(BaseModel):
    """Which score decides, and how much of it is too much (definitions D8 and D9)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    score: Literal["ratio", "jump", "reliance", "auto"] = "ratio"
    """Which score decides (D8); all three are stored. With `auto` the validity test runs first, and its winner is taken
    if it is proven, else `ratio` ([method.md](method.md#is-the-score-worth-anything)).
    """
    epsilon: float = Field(default=0.01, gt=0)
    """Added to the uncertainty in the denominator, in nats per token."""
    drop_fraction: float = Field(default=0.2, ge=0, lt=1)
    """Lambda: share of a problem's candidates that is dropped (D9)."""
    min_candidates: int = Field(default=5, ge=1)
    """Below this many candidates of a problem the pooled threshold decides."""
    pooled_percentile: float = Field(default=80, ge=0, le=100)
    """That threshold, as a percentile of all scores."""
    min_prompt_uncertainty: float = Field(default=0.1, ge=0)
    """A smaller U_0, in nats per token, is rejected as `answer_in_problem`."""
    validity: ValidityConfig = ValidityConfig()

    @model_serializer(mode="wrap")
    def _leave_out_what_decides_nothing(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # a run's id is made of its settings, and only the score `auto` rests on the test; a test keeps its own
        settings: dict[str, Any] = handler(self)
        return {name: value for name, value in settings.items() if name != "validity" or self.score == AUTO}


@dataclass(frozen=True)
class PureCandidate:
    """A verified, gated and scored text; higher = more shortcut-like."""

    row_id: str
    problem_id: str
    score: float


@dataclass(frozen=True)
class PureDecision:
    """Which rows go; `threshold` is the pooled percentile of the scores, None without candidates."""

    threshold: float | None
    dropped: frozenset[str]


def find_span(step_texts: Sequence[str], reference: Reference, start_step: int) -> tuple[int, int] | None:
    """Return the span S as [start, end), from `start_step` to before the first step that asserts a*.

    The answer is looked for in the joined steps, so an assertion may begin in the step before
    the one that holds its value; the latter is the asserting step.

    Returns:
        (s, s) when the first step already asserts it; None when no step does.

    Source: definition D7 (docs/method.md).
    """
    ends = np.cumsum([len(text) for text in step_texts])
    start_char = sum(len(text) for text in step_texts[:start_step])
    for offset in reference.find_assertions("".join(step_texts)):
        if offset >= start_char:
            return start_step, int(np.searchsorted(ends, offset, side="right"))
    return None


def plan_uncertainties(
    row_id: str,
    prompt: str,
    token_ids: Sequence[int],
    steps: Sequence[Step],
    reference: Reference,
    before_cue: str = "",
) -> list[ScoreRequest]:
    """Return the requests that measure U_0 .. U_S: after k steps, each surface form with what closes it.

    Args:
        row_id: Prefix of the request ids, which `collect_uncertainties` reads.
        prompt: The student prompt; the scorer never sees the hint.
        token_ids: The whole response, prefix and continuation, shape [T].
        before_cue: What precedes the cue of the forced answer: it closes a `<think>` that is open there.

    Source: METHOD section 3 (docs/method.md).
    """
    ends = [0, *(step.end_token for step in steps)]
    return [
        ScoreRequest(
            request_id=_uncertainty_id(row_id, k, form_index),
            prompt=prompt,
            context_token_ids=tuple(token_ids[:end]),
            cue=before_cue + reference.wording.cue,
            text=form + reference.wording.closing,
        )
        for k, end in enumerate(ends)
        for form_index, form in enumerate(reference.forms)
    ]


def collect_uncertainties(
    row_id: str, num_steps: int, reference: Reference, logprobs: Mapping[str, np.ndarray]
) -> np.ndarray:
    """Return U_0 .. U_S, shape [S + 1], nats per token: the least over the surface forms.

    Args:
        logprobs: Scores by request id, as planned by `plan_uncertainties`, each shape [T] > 0.
    """
    forms = range(len(reference.forms))
    return np.array(
        [min(-float(logprobs[_uncertainty_id(row_id, k, form)].mean()) for form in forms) for k in range(num_steps + 1)]
    )


def combine_scores(
    *,
    step_surprisals: Sequence[np.ndarray],
    answer_uncertainties: np.ndarray,
    span: tuple[int, int] | None,
    hinted_logprobs: np.ndarray | None,
    plain_logprobs: np.ndarray | None,
    config: PureConfig,
) -> PureScore:
    """Return the PURE terms of one text and its three scores, which are None where it is rejected.

    Args:
        step_surprisals: Surprisal of each step's tokens without the hint, nats, S arrays of shape [T].
        answer_uncertainties: U_0 .. U_S, shape [S + 1], nats per token.
        span: From `find_span`. Without one, both of its bounds are stored as S.
        hinted_logprobs: Repaired tokens with the hint in the prompt, shape [T], nats; None without a hint.
        plain_logprobs: The same tokens without it.

    Raises:
        ShapeError: If the arrays do not fit together, a step has no tokens, or a term of the
            scores is not finite.

    Source: METHOD section 3, definitions D7 and D8 (docs/method.md).
    """
    num_steps = len(step_surprisals)
    _check_shapes(step_surprisals, answer_uncertainties, span)
    log_perplexities = np.array([surprisals.mean() for surprisals in step_surprisals], dtype=np.float64)
    start, end = span if span is not None else (num_steps, num_steps)
    reject_reason = _reject_reason(span, float(answer_uncertainties[0]), config)
    ratio = jump = reliance = None
    if reject_reason is None:
        ratio = _ratio(log_perplexities, answer_uncertainties, start, end, config.epsilon)
        jump = _jump(log_perplexities, answer_uncertainties, start, end, config.epsilon)
        reliance = _reliance(hinted_logprobs, plain_logprobs)
    return PureScore(
        ratio=ratio,
        jump=jump,
        reliance=reliance,
        step_perplexities=np.exp(log_perplexities),
        answer_uncertainties=answer_uncertainties,
        span_start=start,
        span_end=end,
        reject_reason=reject_reason,
    )


def decide_drops(candidates: Sequence[PureCandidate], config: PureConfig) -> PureDecision:
    """Return which candidates are dropped, and the pooled threshold to freeze for the run.

    Of a problem with n >= `min_candidates` the worst floor(lambda * n) go, ties by row id;
    of the others, those above the percentile of all candidates together.

    Raises:
        ShapeError: If a score is not finite.

    Source: definition D9 (docs/method.md).
    """
    for candidate in candidates:
        if not math.isfinite(candidate.score):
            raise ShapeError(f"row {candidate.row_id} has the PURE score {candidate.score}; expected a finite one")
    if not candidates:
        return PureDecision(None, frozenset())
    threshold = float(np.percentile([c.score for c in candidates], config.pooled_percentile))
    by_problem: dict[str, list[PureCandidate]] = {}
    for candidate in sorted(candidates, key=lambda c: (-c.score, c.row_id)):
        by_problem.setdefault(candidate.problem_id, []).append(candidate)
    dropped: set[str] = set()
    for group in by_problem.values():
        dropped.update(c.row_id for c in _worst(group, threshold, config))
    return PureDecision(threshold, frozenset(dropped))


def _worst(group: Sequence[PureCandidate], threshold: float, config: PureConfig) -> Iterable[PureCandidate]:
    if len(group) < config.min_candidates:
        return [candidate for candidate in group if candidate.score > threshold]
    # 0.29 * 100 is 28.999999999999996 in binary, yet 29 are meant.
    return group[: math.floor(config.drop_fraction * len(group) + 1e-9)]


def _ratio(log_perplexities: np.ndarray, uncertainties: np.ndarray, start: int, end: int, epsilon: float) -> float:
    terms = np.exp(log_perplexities[start:end]) / (uncertainties[start + 1 : end + 1] + epsilon)
    return _finite(terms.mean(), "ratio")


def _jump(log_perplexities: np.ndarray, uncertainties: np.ndarray, start: int, end: int, epsilon: float) -> float:
    """Return the largest jump over the span and the asserting step, which is step `end`."""
    before, after = uncertainties[start : end + 1], uncertainties[start + 1 : end + 2]
    terms = log_perplexities[start : end + 1] * np.maximum(0.0, before - after) / (after + epsilon)
    return _finite(terms.max(), "jump")


def _reliance(hinted: np.ndarray | None, plain: np.ndarray | None) -> float | None:
    if hinted is None or plain is None:
        return None
    if hinted.shape != plain.shape or hinted.ndim != 1 or hinted.size == 0:
        raise ShapeError(f"reliance expects the same tokens twice, shape [T], got {hinted.shape} and {plain.shape}")
    return _finite((hinted - plain).mean(dtype=np.float64), "reliance")


def _finite(value: np.floating, name: str) -> float:
    if not np.isfinite(value):
        raise ShapeError(f"the {name} is {value}: a scored log-probability is missing or infinite")
    return float(value)


def _reject_reason(span: tuple[int, int] | None, prompt_uncertainty: float, config: PureConfig) -> str | None:
    if span is None:
        return "answer_not_found"
    if span[0] == span[1]:
        return "empty_span"
    if prompt_uncertainty < config.min_prompt_uncertainty:
        return "answer_in_problem"
    return None


def _check_shapes(
    step_surprisals: Sequence[np.ndarray], uncertainties: np.ndarray, span: tuple[int, int] | None
) -> None:
    num_steps = len(step_surprisals)
    if uncertainties.shape != (num_steps + 1,):
        raise ShapeError(
            f"{num_steps} steps need {num_steps + 1} answer uncertainties, got shape {uncertainties.shape}"
        )
    for k, surprisals in enumerate(step_surprisals):
        if surprisals.ndim != 1 or surprisals.size == 0:
            raise ShapeError(f"step {k} has surprisals of shape {surprisals.shape}; expected [T] with T >= 1")
    if span is not None and not 0 <= span[0] <= span[1] < num_steps:
        raise ShapeError(f"span {span} must lie before an asserting step of the {num_steps} steps")


def _uncertainty_id(row_id: str, step_count: int, form_index: int) -> str:
    return f"{row_id}/U{step_count}/{form_index}"
