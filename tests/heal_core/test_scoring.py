import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from heal_core.engines.base import ScoreRequest
from heal_core.prompts import ANSWER_CUE, hinted_prompt, student_prompt
from heal_core.pure import PureConfig
from heal_core.reference import Reference
from heal_core.scoring import ScoredText, TextToScore, score_texts
from heal_core.steps import StepsConfig

HINT = "Think of rows."
HINTED_PROMPT = hinted_prompt("How many?", HINT)
STEPS = StepsConfig(min_step_tokens=1)
TWO_STEPS = "Six rows.\n\nThe answer is \\boxed{42}."
PLAIN = [-1.0, -3.0, -0.5, -0.1]
HINTED = [-0.5, -1.0, -0.5, -0.1]
ANSWERS = {0: [-4.0, -2.0], 2: [-2.0, -1.0], 4: [-0.25, -0.25]}
"""Log-probabilities of `42` and `}`, by the number of tokens before the cue."""


def two_steps(**changes: Any) -> TextToScore:
    """Return a text of four tokens: `Six| rows.` and `The answer is |\\boxed{42}.`, two steps."""
    values: dict[str, Any] = {
        "row_id": "r",
        "question": "How many?",
        "reference": Reference("42"),
        "conditioned_prompt": HINTED_PROMPT,
        "text": TWO_STEPS,
        "token_ids": np.array([11, 12, 13, 14]),
        "token_starts": np.array([0, 3, 11, 25]),
        "num_prefix_tokens": 0,
        "num_prefix_chars": 0,
    }
    return TextToScore(**(values | changes))


def scripted(request: ScoreRequest) -> Sequence[float]:
    kind = request.request_id.split("/")[1]
    if kind == "plain":
        return PLAIN[: len(request.token_ids)]
    if kind == "hinted":
        return HINTED[len(request.context_token_ids) :]
    return ANSWERS[len(request.context_token_ids)]


def score_one(new_engine: Any, text: TextToScore, script: Any = scripted) -> tuple[ScoredText, list[ScoreRequest]]:
    engine = new_engine(score_tokens=script)
    return score_texts(engine, [text], STEPS, PureConfig())[text.row_id], engine.scored


def test_the_terms_of_a_text_of_two_steps(new_engine: Any) -> None:
    scored, _ = score_one(new_engine, two_steps())
    score = scored.score
    # P_1 = exp((1 + 3) / 2), P_2 = exp((0.5 + 0.1) / 2)
    assert score.step_perplexities == pytest.approx([math.exp(2), math.exp(0.3)])
    # U_0 = (4 + 2) / 2, U_1 = (2 + 1) / 2, U_2 = 0.25
    assert score.answer_uncertainties == pytest.approx([3, 1.5, 0.25])
    # the second step asserts 42, so S holds the first alone
    assert (score.span_start, score.span_end, score.reject_reason) == (0, 1, None)
    assert score.ratio == pytest.approx(math.exp(2) / (1.5 + 0.01))
    # step 1: 2 * (3 - 1.5) / 1.51 = 1.987; the asserting step: 0.3 * (1.5 - 0.25) / 0.26 = 1.442
    assert score.jump == pytest.approx(2 * 1.5 / 1.51)
    # (0.5 + 2 + 0 + 0) / 4
    assert score.reliance == pytest.approx(0.625)
    # this engine does not say: plain 4, hinted 4, the contexts of the answers 0 + 2 + 4, and their tokens 3 * 2
    assert scored.num_scored_tokens == 20


def test_only_what_was_repaired_counts_against_the_hint(new_engine: Any) -> None:
    text = TWO_STEPS.replace("The", "No, not yet.\n\nThe")  # 14 characters more
    starts = np.array([0, 3, 11, 15, 25, 39])
    plain, hinted = [-1.0, -3.0, -2.0, -1.0, -0.5, -0.1], [-1.5, -0.5, -0.5, -0.3]

    def script(request: ScoreRequest) -> Sequence[float]:
        kind = request.request_id.split("/")[1]
        num_context = len(request.context_token_ids)
        return {"plain": plain, "hinted": hinted}.get(kind, [-3.0 + num_context / 2] * 2)

    repair = two_steps(
        text=text, token_ids=np.arange(11, 17), token_starts=starts, num_prefix_tokens=2, num_prefix_chars=11
    )
    scored, requests = score_one(new_engine, repair, script)
    # the first step is the wrong path's: S is the second step, the third asserts
    assert (scored.score.span_start, scored.score.span_end) == (1, 2)
    # U_2 = 3 - 4 / 2 = 1 after four tokens; P_2 = exp((2 + 1) / 2)
    assert scored.score.ratio == pytest.approx(math.exp(1.5) / 1.01)
    # (0.5 + 0.5 + 0 - 0.2) / 4
    assert scored.score.reliance == pytest.approx(0.2)
    (under_hint,) = [request for request in requests if request.request_id.endswith("/hinted")]
    assert (under_hint.context_token_ids, under_hint.token_ids) == ((11, 12), (13, 14, 15, 16))


def test_the_scorer_sees_the_hint_only_where_reliance_is_measured(new_engine: Any) -> None:
    _, requests = score_one(new_engine, two_steps())
    assert len(requests) == 2 + 3
    for request in requests:
        if request.request_id == "r/hinted":
            assert request.prompt == HINTED_PROMPT
        else:
            assert request.prompt == student_prompt("How many?")
            assert HINT not in request.prompt + request.cue + (request.text or "")


def test_each_uncertainty_is_asked_for_behind_the_cue_with_the_closing_brace(new_engine: Any) -> None:
    _, requests = score_one(new_engine, two_steps())
    asked = sorted((r.context_token_ids, r.cue, r.text) for r in requests if r.text is not None)
    assert asked == [
        ((), ANSWER_CUE, "42}"),
        ((11, 12), ANSWER_CUE, "42}"),
        ((11, 12, 13, 14), ANSWER_CUE, "42}"),
    ]


def test_the_likeliest_surface_form_counts(new_engine: Any) -> None:
    def script(request: ScoreRequest) -> Sequence[float]:
        worth = {"1/2}": [-3.0, -3.0], "0.5}": [-2.0, -1.0]}
        return worth[request.text] if request.text else scripted(request)

    text = two_steps(reference=Reference("1/2"), text=TWO_STEPS.replace("42", "1/2"))
    scored, _ = score_one(new_engine, text, script)
    assert scored.score.answer_uncertainties == pytest.approx([1.5, 1.5, 1.5])


def test_a_thinking_texts_cue_closes_its_thoughts(new_engine: Any) -> None:
    text = "<think>Six.</think>The answer is \\boxed{42}."
    thought = two_steps(text=text, token_starts=np.array([0, 7, 11, 19]))
    _, requests = score_one(new_engine, thought)
    assert {request.cue for request in requests if request.text} == {"\n</think>" + ANSWER_CUE}


def test_without_a_hint_there_is_no_reliance(new_engine: Any) -> None:
    scored, requests = score_one(new_engine, two_steps(conditioned_prompt=None))
    assert scored.score.reliance is None
    assert scored.score.ratio == pytest.approx(math.exp(2) / 1.51)
    assert not any(request.request_id.endswith("/hinted") for request in requests)


def test_a_text_that_never_asserts_the_answer_is_rejected(new_engine: Any) -> None:
    scored, _ = score_one(new_engine, two_steps(text=TWO_STEPS.replace("42", "43")))
    assert (scored.score.reject_reason, scored.score.ratio) == ("answer_not_found", None)


def test_a_repair_that_added_nothing_is_rejected(new_engine: Any) -> None:
    # the kept steps alone held the right answer; this once scored the prefix, then stopped the run
    whole = two_steps(num_prefix_tokens=4, num_prefix_chars=len(TWO_STEPS))
    scored, _ = score_one(new_engine, whole)
    assert (scored.score.reject_reason, scored.score.reliance) == ("answer_not_found", None)


def test_a_batch_keeps_its_texts_apart(new_engine: Any) -> None:
    other = two_steps(row_id="other", token_ids=np.array([21, 22, 23, 24]))

    def script(request: ScoreRequest) -> Sequence[float]:
        factor = 2 if request.request_id.startswith("other") else 1
        return [factor * value for value in scripted(request)]

    scored = score_texts(new_engine(score_tokens=script), [two_steps(), other], STEPS, PureConfig())
    assert scored["r"].score.step_perplexities == pytest.approx([math.exp(2), math.exp(0.3)])
    assert scored["other"].score.step_perplexities == pytest.approx([math.exp(4), math.exp(0.6)])
    assert scored["other"].score.reliance == pytest.approx(1.25)


def test_no_texts_need_no_scores(new_engine: Any) -> None:
    assert score_texts(new_engine(), [], STEPS, PureConfig()) == {}
