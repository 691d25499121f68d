"""Score verified texts with an engine: all PURE terms of a batch of repairs in one stream of requests.

`pure` plans the requests and combines the numbers; this module carries them to a scorer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from heal_core.engines.base import Engine, ScoreRequest, ScoreResult
from heal_core.prompts import student_prompt
from heal_core.pure import PureConfig, collect_uncertainties, combine_scores, find_span, plan_uncertainties
from heal_core.records import PureScore
from heal_core.reference import Reference
from heal_core.steps import StepsConfig, split_steps


@dataclass(frozen=True)
class TextToScore:
    """A verified response with what the scorer needs; arrays over prefix and continuation, shape [T].

    `num_prefix_tokens` and `num_prefix_chars` say where the repaired part begins; `conditioned_prompt`
    is what it was written under, None for a text that was written under the student prompt.
    """

    row_id: str
    question: str
    reference: Reference
    conditioned_prompt: str | None
    text: str
    token_ids: np.ndarray
    token_starts: np.ndarray
    num_prefix_tokens: int
    num_prefix_chars: int


@dataclass(frozen=True)
class ScoredText:
    """The PURE terms of a text, and how many tokens the scorer read for them.

    What several texts share (a problem's prompt, the kept steps of a path) counts for one of them.
    """

    score: PureScore
    num_scored_tokens: int


def score_texts(
    engine: Engine, texts: Sequence[TextToScore], steps_config: StepsConfig, config: PureConfig
) -> dict[str, ScoredText]:
    """Return the PURE terms of each text, by row id.

    The scorer sees the student prompt, without hint or answer; only `reliance` reads the same
    tokens under the prompt that they were written under too.

    Source: METHOD section 3 (docs/method.md).
    """
    requests: dict[str, list[ScoreRequest]] = {text.row_id: _requests(text, steps_config) for text in texts}
    results = {
        result.request_id: result
        for result in engine.score([request for group in requests.values() for request in group])
    }
    logprobs = {request_id: result.logprobs for request_id, result in results.items()}
    return {
        text.row_id: ScoredText(
            _combine(text, logprobs, steps_config, config),
            sum(_num_read(request, results[request.request_id]) for request in requests[text.row_id]),
        )
        for text in texts
    }


def _num_read(request: ScoreRequest, result: ScoreResult) -> int:
    """Return the tokens that were read for a request; at least those that it names, where the engine does not say."""
    if result.num_read_tokens is not None:
        return result.num_read_tokens
    return len(request.context_token_ids) + len(result.logprobs)


def _requests(text: TextToScore, steps_config: StepsConfig) -> list[ScoreRequest]:
    token_ids = tuple(text.token_ids.tolist())
    prefix, repaired = token_ids[: text.num_prefix_tokens], token_ids[text.num_prefix_tokens :]
    prompt = student_prompt(text.question, text.reference.wording)
    requests = [ScoreRequest(f"{text.row_id}/plain", prompt, token_ids=token_ids)]
    if text.conditioned_prompt is not None:
        requests.append(ScoreRequest(f"{text.row_id}/hinted", text.conditioned_prompt, prefix, token_ids=repaired))
    _, steps = split_steps(text.text, text.token_starts, steps_config)
    # in a thinking model's text the forced answer first closes the think block
    before_cue = "\n</think>" if "</think>" in text.text else ""
    return requests + plan_uncertainties(text.row_id, prompt, token_ids, steps, text.reference, before_cue)


def _combine(
    text: TextToScore, logprobs: dict[str, np.ndarray], steps_config: StepsConfig, config: PureConfig
) -> PureScore:
    _, steps = split_steps(text.text, text.token_starts, steps_config)
    plain = logprobs[f"{text.row_id}/plain"]
    # min_step_tokens may have merged the seam's step into its neighbour; an empty continuation has no step
    start_step = next((i for i, step in enumerate(steps) if step.end_char > text.num_prefix_chars), len(steps))
    return combine_scores(
        step_surprisals=[-plain[step.start_token : step.end_token] for step in steps],
        answer_uncertainties=collect_uncertainties(text.row_id, len(steps), text.reference, logprobs),
        span=find_span([text.text[s.start_char : s.end_char] for s in steps], text.reference, start_step),
        hinted_logprobs=logprobs.get(f"{text.row_id}/hinted"),
        plain_logprobs=plain[text.num_prefix_tokens :],
        config=config,
    )
