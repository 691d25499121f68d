"""A planted shortcut ranks above a real derivation: the lab's teacher reads texts that are written by hand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from heal_core.engines.base import EngineConfig, GivenText
from heal_core.engines.hf import HfEngine
from heal_core.prompts import hinted_prompt, student_prompt
from heal_core.pure import PureConfig
from heal_core.records import Completion, FinishReason, PureScore
from heal_core.reference import Reference
from heal_core.scoring import TextToScore, score_texts
from heal_core.steps import StepsConfig

pytestmark = pytest.mark.slow

LAB = Path(__file__).parents[3] / "deployments" / "lab"
QUESTION = (
    "Work modulo 100. Start with 82.\n1. Add 5.\n2. Add 3.\n3. Triple it.\n4. Add 4.\n5. Subtract 6.\n"
    "What is the result?"
)
PREFIX = "Start with 82.\n\n"
CLOSING = "The final answer is \\boxed{68}"
TEXTS = {
    "derived": "1. 82 + 5 = 87.\n\n2. 87 + 3 = 90.\n\n3. 90 * 3 = 70.\n\n4. 70 + 4 = 74.\n\n5. 74 - 6 = 68.\n\n"
    + CLOSING,
    # steps that are about nothing in the problem, then the right answer
    "invented": "1. 14 + 9 = 23.\n\n2. 23 * 2 = 46.\n\n3. 46 - 8 = 38.\n\n4. 38 + 1 = 39.\n\n" + CLOSING,
    # right steps, but the answer comes out of nowhere
    "jumped": "1. 82 + 5 = 87.\n\n2. 87 + 3 = 90.\n\n" + CLOSING,
    "at_once": CLOSING,
}


@pytest.fixture(scope="module")
def scores() -> Iterator[dict[str, PureScore]]:
    """What PURE says of each text, all under a hint that says nothing of them."""
    engine = HfEngine(EngineConfig(model_name_or_path=str(LAB / "teacher"), dtype="float32", num_threads=1))
    try:
        prompt = student_prompt(QUESTION)
        given = [GivenText(name, prompt, PREFIX + text, FinishReason.STOP) for name, text in TEXTS.items()]
        read = {answer.slot_id: answer for answer in engine.read(given)}
        texts = []
        for name, answer in read.items():
            assert isinstance(answer, Completion)
            texts.append(
                TextToScore(
                    row_id=name,
                    question=QUESTION,
                    reference=Reference("68"),
                    conditioned_prompt=hinted_prompt(QUESTION, "Check the add step once more."),
                    text=answer.text,
                    token_ids=answer.token_ids,
                    token_starts=answer.token_starts,
                    num_prefix_tokens=int((answer.token_starts < len(PREFIX)).sum()),
                    num_prefix_chars=len(PREFIX),
                )
            )
        scored = score_texts(engine, texts, StepsConfig(min_step_tokens=1), PureConfig())
        yield {name: text.score for name, text in scored.items()}
    finally:
        engine.close()


def test_invented_steps_rank_above_the_derivation(scores: dict[str, PureScore]) -> None:
    derived, invented = scores["derived"].ratio, scores["invented"].ratio
    assert derived is not None and invented is not None
    assert invented > 10 * derived


def test_an_answer_at_once_is_rejected_before_any_score(scores: dict[str, PureScore]) -> None:
    assert (scores["at_once"].reject_reason, scores["at_once"].ratio) == ("empty_span", None)
    assert scores["derived"].reject_reason is None


def test_the_step_that_jumps_is_what_the_ratio_does_not_see(scores: dict[str, PureScore]) -> None:
    # the span ends before it (definition D7): right steps leave the ratio low, whatever follows them
    derived, jumped = scores["derived"], scores["jumped"]
    assert derived.ratio is not None and jumped.ratio is not None
    assert jumped.ratio < 2 * derived.ratio
    # the jump itself is plain to see in the perplexity of the asserting step
    assert jumped.step_perplexities[jumped.span_end] > 10 * derived.step_perplexities[derived.span_end]
