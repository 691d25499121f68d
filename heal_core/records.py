"""The records that flow through HEAL, one frozen type per concept.

problem -> trajectory (rollout, hint, guided, repair) -> verdict, profile, score.
Records carry no behaviour beyond what can be read off them. Their tables are
described in `store/migrations`; settings are in `config.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

DISTILLATION, EVALUATION = "distillation", "evaluation"
"""What a run is for."""

EXACT = "exact"
"""Where an entropy is from: the whole distribution over the vocabulary."""
RESCORED = "rescored"
"""The same, of a profile whose text was read again, since its breakpoint was not certain."""


class Kind(StrEnum):
    """What a sampled completion is for."""

    ROLLOUT = "rollout"  # a plain attempt at a problem, by any model
    HINT = "hint"  # a hint for a wrong rollout, written by the teacher
    GUIDED = "guided"  # a fresh solution with the answer in sight
    REPAIR = "repair"  # a continuation of a wrong rollout's kept steps under a hint
    CONTINUATION = "continuation"  # one without a hint, for the validity test of PURE
    SHORTCUT = "shortcut"  # one that was built for it, not sampled


class FinishReason(StrEnum):
    STOP = "stop"  # the model ended its turn
    LENGTH = "length"  # cut at the limit
    HOPELESS = "hopeless"  # given up where it looped or ran on (`engines.early_stop`)


class VerdictLabel(StrEnum):
    CORRECT = "correct"
    WRONG = "wrong"
    UNVERIFIABLE = "unverifiable"


class Band(StrEnum):
    UNGRADED = "ungraded"
    EXTREMELY_HARD = "extremely_hard"
    HARD = "hard"
    EASY = "easy"


@dataclass(frozen=True)
class Problem:
    """A question with its reference answer. `problem_id` is a content key of both, the type and its spec."""

    problem_id: str
    question: str
    answer: str
    source: str
    uuid: str
    problem_type: str  # how an answer is compared
    cluster_id: str  # near-duplicates share it, and so their split
    split: str  # "train" or "held_out"
    spec: str = ""  # what the type needs beyond the answer, as JSON (`specs`)


@dataclass(frozen=True)
class QuarantinedRow:
    """A row of a source that could not become a problem."""

    source: str
    line: int
    reason: str
    raw: str


@dataclass(frozen=True)
class ContaminationMatch:
    """A training row that holds a problem of an evaluation set. Texts are bounded; lines count from 1.

    Attributes:
        source: Where the training row is from, as in `QuarantinedRow`.
        problem_id: The problem that it would have been.
        evaluation_set: "held_out", or the source of `problems.decontaminate`.
        num_shared: Distinct n-grams of the evaluation problem that the training problem has.
        num_ngrams: Distinct n-grams of the evaluation problem.
        passage: Its longest run of words that the training problem has too.
    """

    source: str
    line: int
    problem_id: str
    question: str
    evaluation_set: str
    evaluation_source: str
    evaluation_line: int
    evaluation_question: str
    num_shared: int
    num_ngrams: int
    passage: str


@dataclass(frozen=True)
class Completion:
    """What an engine sampled after a prompt and an optional prefix.

    Arrays are aligned, shape [T]; the prefix is not in them.

    Attributes:
        token_ids: Sampled tokens, the end-of-turn token not included.
        logprobs: Raw log-probabilities at temperature 1 before top-p, nats, <= 0.
        entropies: Token entropies (definition D3), nats, within [0, ln V]; the middle of each interval
            where `entropy_radii` is given.
        token_starts: Character offset in `text` at which each token begins.
        text: The decoded tokens.
        num_prompt_tokens: Tokens of prompt and prefix together.
        seconds: Share of the batch's wall time, for accounting only.
        entropy_radii: Half the width of each entropy's certified interval, nats; None where it is exact.
        entropy_source: EXACT, or how many of the most probable tokens it is known from: "top_20".
        num_cached_tokens: How many of the prompt's tokens the engine had read before; None where it does not say.
    """

    slot_id: str
    token_ids: np.ndarray
    logprobs: np.ndarray
    entropies: np.ndarray
    token_starts: np.ndarray
    text: str
    finish_reason: FinishReason
    num_prompt_tokens: int
    seconds: float
    entropy_radii: np.ndarray | None = None
    entropy_source: str = EXACT
    num_cached_tokens: int | None = None


@dataclass(frozen=True)
class Verdict:
    """What a verifier says of a text against a reference answer."""

    label: VerdictLabel
    extracted: str | None  # the answer it read, None when there was none
    extraction: str | None  # where it stood: "boxed", "answer_phrase", "code_block", .. (docs/verifier.md)
    reason: str | None  # why not correct: "no_answer", "different", "timeout", "unparsable_gold", ...
    verifier: str
    verifier_version: str
    seconds: float


@dataclass(frozen=True)
class Step:
    """One reasoning step: a half-open range of characters and of tokens of a completion."""

    start_char: int
    end_char: int
    start_token: int
    end_token: int


@dataclass(frozen=True)
class Breakpoint:
    """Where a trajectory breaks (definition D5). Steps count from 0 here; the method's b is step_index + 1.

    Attributes:
        step_index: The step with the largest surge; never the first.
        surge: Its rise of mean entropy over the step before, nats; may be <= 0 when `flat`.
        window_size: How many steps could have been chosen.
        z_score: The surge against the other surges of the window; None below three.
        flat: No rise was positive, so the position is only a convention.
    """

    step_index: int
    surge: float
    window_size: int
    z_score: float | None
    flat: bool


@dataclass(frozen=True)
class EntropyProfile:
    """A trajectory cut into steps, with their mean entropies, shape [S], nats.

    Attributes:
        step_radii: Half the width of each one's interval, shape [S], nats; None where they are exact.
        is_certain: No values within the intervals have another breakpoint.
    """

    steps: tuple[Step, ...]
    step_entropies: np.ndarray
    separator: str
    breakpoint: Breakpoint | None
    step_radii: np.ndarray | None = None
    is_certain: bool = True


@dataclass(frozen=True)
class GateResult:
    """Whether a text passed; the first gate that refused it, and what it saw."""

    passed: bool
    gate: str | None = None
    detail: str | None = None


@dataclass(frozen=True)
class GateFinding:
    """What one gate says of a text, whether or not the run lets it refuse.

    Attributes:
        refused: None where it has nothing to say: G6 always, G5 without enough natural texts, G8 without a seam.
        value: What it measured; None where it only looks for something.
        detail: What it saw; None where it does not refuse.
    """

    gate: str
    refused: bool | None
    value: float | None = None
    detail: str | None = None


@dataclass(frozen=True)
class PureScore:
    """The PURE terms and scores of one verified text (METHOD section 3); higher = more shortcut-like.

    Attributes:
        ratio: Mean over the span of P_k / (U_k + epsilon); None when rejected.
        jump: Largest drop of uncertainty weighted by surprisal; None when rejected.
        reliance: Mean gain in log-probability from the hint, nats per token; None when
            rejected or without a hint.
        step_perplexities: P_k, shape [S], >= 1.
        answer_uncertainties: U_0 .. U_S, shape [S + 1], nats per token.
        span_start: First step of the span D7.
        span_end: One past its last step, the first step that asserts the answer.
        reject_reason: "answer_not_found", "empty_span", "answer_in_problem" or None.
    """

    ratio: float | None
    jump: float | None
    reliance: float | None
    step_perplexities: np.ndarray
    answer_uncertainties: np.ndarray
    span_start: int
    span_end: int
    reject_reason: str | None
