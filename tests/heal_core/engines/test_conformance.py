"""What every engine promises, whatever runs the model: the same tests for all of them."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from heal_core.chat import render_prompt_ids
from heal_core.engines.base import (
    Capability,
    EngineConfig,
    GenerationRequest,
    GivenText,
    SamplingConfig,
    ScoreRequest,
    UnreadableText,
)
from heal_core.engines.detokenize import detokenize
from heal_core.engines.early_stop import EarlyStopConfig
from heal_core.engines.tokens import load_tokenizer
from heal_core.errors import ConfigError, RequestError
from heal_core.records import EXACT, Completion, FinishReason

ROOT = Path(__file__).parents[3]
HAS_VLLM = (ROOT / ".venv-vllm").is_dir() and importlib.util.find_spec("heal_core.engines.vllm") is not None
SAMPLING = SamplingConfig(temperature=0.8, top_p=0.9)
BABBLE = SamplingConfig(temperature=1.5, top_p=1.0)
QUIET_TOKEN = 700  # after it the odd model ends its turn (conftest.py)
LOGPROB_TOLERANCE_NATS = 1e-4

KINDS = [
    pytest.param("hf", marks=pytest.mark.xdist_group("conformance-hf")),
    pytest.param("openai-vllm", marks=pytest.mark.xdist_group("conformance-openai")),
    pytest.param("openai-plain", marks=pytest.mark.xdist_group("conformance-openai")),
    pytest.param("openai-llama", marks=pytest.mark.xdist_group("conformance-openai")),
    pytest.param(
        "vllm",
        marks=[
            pytest.mark.full,
            pytest.mark.skipif(not HAS_VLLM, reason="vLLM is not installed: make vllm"),
            pytest.mark.xdist_group("vllm"),
        ],
    ),
]

pytestmark = [pytest.mark.slow, pytest.mark.parametrize("kind", KINDS)]


def of_slot(completions: Sequence[Completion]) -> dict[str, Completion]:
    found = {completion.slot_id: completion for completion in completions}
    assert len(found) == len(completions), "each slot once"
    return found


def several(questions: Sequence[str], num: int = 2, max_tokens: int = 60) -> list[GenerationRequest]:
    return [
        GenerationRequest(f"{index}-{sample}", question, (), max_tokens)
        for index, question in enumerate(questions)
        for sample in range(num)
    ]


def test_every_slot_comes_back_once_and_as_soon_as_it_is_done(
    kind: str, engines_of: Callable[[str], Any], questions: list[str]
) -> None:
    engine = engines_of(kind).start()
    long = [GenerationRequest(f"long-{i}", questions[i], (), 60) for i in range(3)]
    wanted = [*long, GenerationRequest("short", questions[3], (), 1)]
    stream = engine.generate(wanted, SamplingConfig(temperature=0.0))
    first = next(stream)
    assert first.slot_id == "short", "it has one token, the others have many"
    assert of_slot([first, *stream]).keys() == {request.slot_id for request in wanted}


def test_a_slot_decides_its_text(kind: str, engines_of: Callable[[str], Any], questions: list[str]) -> None:
    engine = engines_of(kind).start()
    wanted = several(questions, num=2, max_tokens=40)
    first = of_slot(list(engine.generate(wanted, SamplingConfig(temperature=2.0, top_p=1.0))))
    again = of_slot(list(engine.generate(wanted[::-1], SamplingConfig(temperature=2.0, top_p=1.0))))
    same = [slot for slot in first if first[slot].text == again[slot].text]
    # engines that batch differently may round differently: a flip at the edge of a distribution is rare
    assert len(same) >= len(first) - 1
    assert len({completion.text for completion in first.values()}) > len(questions), "other slots, other texts"


def test_a_text_ends_at_its_limit_or_with_its_turn(
    kind: str, engines_of: Callable[[str], Any], questions: list[str]
) -> None:
    engine = engines_of(kind).start()
    whole = list(engine.generate(several(questions[:3], num=1, max_tokens=300), SAMPLING))
    assert any(completion.finish_reason is FinishReason.STOP for completion in whole)
    for completion in whole:
        assert 1 not in completion.token_ids, "the end of the turn is no part of the text"
        assert completion.finish_reason is FinishReason.STOP or len(completion.token_ids) == 300
    for completion in engine.generate(several(questions, max_tokens=5), SAMPLING):
        assert completion.finish_reason is FinishReason.LENGTH
        assert len(completion.token_ids) == 5
    (nothing,) = engine.generate([GenerationRequest("none", questions[0], (), 0)], SAMPLING)
    assert (nothing.text, len(nothing.token_ids), nothing.finish_reason) == ("", 0, FinishReason.LENGTH)


def test_every_array_is_aligned_to_the_tokens(
    kind: str, engines_of: Callable[[str], Any], questions: list[str]
) -> None:
    for completion in engines_of(kind).start().generate(several(questions, max_tokens=30), SAMPLING):
        check_aligned(completion)
        assert completion.num_prompt_tokens > 10
        assert completion.seconds > 0


def test_log_probabilities_are_those_of_the_model_and_entropies_hold_the_exact_ones(
    kind: str, engines_of: Callable[[str], Any], questions: list[str]
) -> None:
    engines = engines_of(kind)
    completions = list(engines.start().generate(several(questions, max_tokens=30), SAMPLING))
    prompt = {request.slot_id: request.prompt for request in several(questions)}
    requests = [ScoreRequest(c.slot_id, prompt[c.slot_id], token_ids=tuple(c.token_ids.tolist())) for c in completions]
    exact = {result.request_id: result for result in engines.exact().score(requests)}
    for completion in completions:
        truth = exact[completion.slot_id]
        np.testing.assert_allclose(completion.logprobs, truth.logprobs, atol=LOGPROB_TOLERANCE_NATS)
        radii = completion.entropy_radii
        assert (radii is None) == (completion.entropy_source == EXACT)
        slack = LOGPROB_TOLERANCE_NATS if radii is None else radii + LOGPROB_TOLERANCE_NATS
        assert (np.abs(completion.entropies - truth.entropies) <= slack).all()


def test_a_text_goes_on_from_token_ids(kind: str, engines_of: Callable[[str], Any], questions: list[str]) -> None:
    engine = engines_of(kind).start()
    assert Capability.TOKEN_PREFIX in engine.description.capabilities
    greedy = SamplingConfig(temperature=0.0)
    (whole,) = engine.generate([GenerationRequest("whole", questions[0], (), 60)], greedy)
    prefix = tuple(whole.token_ids[:10].tolist())
    (rest,) = engine.generate([GenerationRequest("rest", questions[0], prefix, 50)], greedy)
    assert rest.num_prompt_tokens == whole.num_prompt_tokens + 10
    assert rest.token_ids.tolist() == whole.token_ids[10:].tolist()
    assert whole.text.endswith(rest.text)
    check_aligned(rest)


def test_given_tokens_have_the_log_probabilities_that_they_had_when_sampled(
    kind: str, engines_of: Callable[[str], Any], questions: list[str]
) -> None:
    engines = engines_of(kind)
    engine = engines.start()
    if kind in ("openai-plain", "openai-llama"):
        assert Capability.GIVEN_TOKEN_LOGPROBS not in engine.description.capabilities, "and they say so"
        pytest.skip("servers that are not vLLM tell no log-probabilities of given tokens")
    sampled = list(engine.generate(several(questions[:2], max_tokens=30), SAMPLING))
    prompt = {request.slot_id: request.prompt for request in several(questions)}
    requests = [
        ScoreRequest(
            c.slot_id, prompt[c.slot_id], tuple(c.token_ids[:5].tolist()), token_ids=tuple(c.token_ids[5:].tolist())
        )
        for c in sampled
    ]
    requests += [ScoreRequest("text", questions[0], cue="\n\nThe final answer is \\boxed{", text="12}")]
    requests += [ScoreRequest("nothing", questions[0])]
    told = {result.request_id: result for result in engine.score(requests)}
    for completion in sampled:
        np.testing.assert_allclose(
            told[completion.slot_id].logprobs, completion.logprobs[5:], atol=LOGPROB_TOLERANCE_NATS
        )
    exact = {result.request_id: result for result in engines.exact().score(requests)}
    np.testing.assert_allclose(told["text"].logprobs, exact["text"].logprobs, atol=LOGPROB_TOLERANCE_NATS)
    assert len(told["nothing"].logprobs) == 0


def test_a_text_from_elsewhere_is_read_as_if_it_had_been_sampled(
    kind: str, engines_of: Callable[[str], Any], questions: list[str]
) -> None:
    if kind in ("openai-plain", "openai-llama"):
        pytest.skip("servers that are not vLLM tell no log-probabilities of given tokens")
    engine = engines_of(kind).start()
    (sampled,) = engine.generate([GenerationRequest("one", questions[0], (), 60)], SamplingConfig(temperature=0.0))
    given = [
        GivenText("one", questions[0], sampled.text, sampled.finish_reason),
        GivenText("empty", questions[0], "", FinishReason.STOP),
    ]
    found = {result.slot_id: result for result in engine.read(given)}
    assert isinstance(found["empty"], UnreadableText)
    answer = found["one"]
    assert isinstance(answer, Completion)
    check_aligned(answer)
    assert answer.text == sampled.text
    assert answer.entropy_source == sampled.entropy_source
    if answer.token_ids.tolist() == sampled.token_ids.tolist():  # the tokenizer prefers the tokens that were sampled
        np.testing.assert_allclose(answer.logprobs, sampled.logprobs, atol=LOGPROB_TOLERANCE_NATS)
        np.testing.assert_allclose(answer.entropies, sampled.entropies, atol=1e-3)


def test_leaving_early_ends_the_work(kind: str, engines_of: Callable[[str], Any], questions: list[str]) -> None:
    engine = engines_of(kind).start()
    wanted = [GenerationRequest(f"{i}", questions[i % 4], (), 100) for i in range(40)]
    began = time.monotonic()
    all_of_it = len(list(engine.generate(wanted[:4], SAMPLING)))
    seconds_each = (time.monotonic() - began) / all_of_it
    stream = engine.generate(wanted, SAMPLING)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    began = time.monotonic()
    assert len(list(engine.generate(wanted[:1], SAMPLING))) == 1
    assert time.monotonic() - began < 20 * seconds_each + 5, "it did not first finish what nobody wants"


def test_what_does_not_fit_is_refused_before_anything_is_sampled(
    kind: str, engines_of: Callable[[str], Any], questions: list[str]
) -> None:
    engine = engines_of(kind).start()
    fits, exceeds = GenerationRequest("fits", questions[0], (), 5), GenerationRequest("exceeds", questions[0], (), 5000)
    with pytest.raises(RequestError, match=r"exceeds .* more than the context"):
        list(engine.generate([fits, exceeds], SAMPLING))
    assert len(list(engine.generate([fits], SAMPLING))) == 1


def test_a_prompt_is_counted_as_it_is_sent(kind: str, engines_of: Callable[[str], Any], questions: list[str]) -> None:
    engine = engines_of(kind).start()
    (completion,) = engine.generate([GenerationRequest("one", questions[1], (), 1)], SAMPLING)
    assert engine.count_prompt_tokens([questions[1]]) == [completion.num_prompt_tokens]


def test_special_tokens_and_split_characters_stay_where_they_are(
    kind: str, engines_of: Callable[[str], Any], odd_model: Path
) -> None:
    engine = engines_of(kind).start(babbling=True)
    if kind == "openai-plain":
        # bytes of longer characters have one text for many tokens, and no id tells them apart
        with pytest.raises(ConfigError, match="token ids"):
            list(engine.generate([GenerationRequest(f"{i}", "Babble.", (), 60) for i in range(4)], BABBLE))
        return
    tokenizer = load_tokenizer(engine_config(odd_model), odd_model)
    completions = list(engine.generate([GenerationRequest(f"{i}", "Babble.", (), 80) for i in range(8)], BABBLE))
    special = set(tokenizer.all_special_ids)
    assert any(special & set(c.token_ids.tolist()) for c in completions), "the model says any token"
    assert any("\ufffd" in tokenizer.decode([t]) for c in completions for t in c.token_ids.tolist())
    for completion in completions:
        check_aligned(completion)
        text, starts = detokenize(tokenizer, completion.token_ids.tolist())
        assert completion.text == text
        assert completion.token_starts.tolist() == starts.tolist()


def test_a_template_may_open_a_think_block(kind: str, engines_of: Callable[[str], Any], odd_model: Path) -> None:
    engine = engines_of(kind).start(babbling=True)
    tokenizer = load_tokenizer(engine_config(odd_model), odd_model)
    ids = render_prompt_ids(tokenizer, "Think.")
    assert tokenizer.decode(ids).endswith("<think>\n")
    (completion,) = engine.generate([GenerationRequest("one", "Think.", (), 1)], SamplingConfig(temperature=0.0))
    assert completion.num_prompt_tokens == len(ids)
    assert "<think>" not in completion.text


def test_an_answer_may_be_empty(kind: str, engines_of: Callable[[str], Any]) -> None:
    engine = engines_of(kind).start(babbling=True)
    requests = [GenerationRequest(f"{i}", "Babble.", (QUIET_TOKEN,), 20) for i in range(3)]
    for completion in engine.generate(requests, SamplingConfig(temperature=0.0)):
        assert (completion.text, completion.finish_reason) == ("", FinishReason.STOP)
        check_aligned(completion)


def test_a_text_that_loops_is_given_up_where_it_does(
    kind: str, engines_of: Callable[[str], Any], questions: list[str]
) -> None:
    engine = engines_of(kind).start()
    greedy = SamplingConfig(temperature=0.0)
    # "\n\n" stands between any two steps
    watchful = greedy.model_copy(update={"early_stop": EarlyStopConfig(ngram=1, repeats=3)})
    (whole,) = engine.generate([GenerationRequest("whole", questions[0], (), 200)], greedy)
    (cut,) = engine.generate([GenerationRequest("cut", questions[0], (), 200)], watchful)
    length = len(cut.token_ids)
    assert cut.finish_reason is FinishReason.HOPELESS
    assert cut.token_ids.tolist() == whole.token_ids[:length].tolist()
    counts = [int((whole.token_ids[:n] == whole.token_ids[n - 1]).sum()) for n in range(1, length + 1)]
    assert counts[-1] == 3 and max(counts[:-1]) == 2, "it ends with the first token that came for the third time"
    check_aligned(cut)
    assert cut.num_prompt_tokens == whole.num_prompt_tokens


def engine_config(folder: Path) -> EngineConfig:
    return EngineConfig(model_name_or_path=str(folder))


def check_aligned(completion: Completion) -> None:
    """Check what holds of the arrays of any completion."""
    length = len(completion.token_ids)
    for array in (completion.logprobs, completion.entropies, completion.token_starts):
        assert array.shape == (length,)
    assert np.isfinite(completion.logprobs).all()
    assert (completion.logprobs <= 0).all()
    assert (completion.entropies >= 0).all()
    assert (completion.entropies <= np.log(778) + 1e-3).all()
    assert (np.diff(completion.token_starts) >= 0).all()
    if completion.entropy_radii is not None:
        assert completion.entropy_radii.shape == (length,)
        assert (completion.entropy_radii >= 0).all()
