import json
import logging
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import GraniteConfig, GraniteForCausalLM, MistralConfig, MistralForCausalLM

from heal_core.engines import scoring
from heal_core.engines.base import EngineConfig, GenerationRequest, SamplingConfig, ScoreRequest, ScoreResult
from heal_core.engines.loading import LoadedModel, load
from heal_core.engines.sampling import generate
from heal_core.engines.scoring import has_plain_head, score
from heal_core.errors import ModelError
from heal_core.prompts import ANSWER_CUE, student_prompt

LAB = Path(__file__).parents[3] / "deployments" / "lab"
PROMPTS = [
    student_prompt(json.loads(line)["problem"]) for line in (LAB / "development.jsonl").read_text().splitlines()[:3]
]


@pytest.fixture(scope="module")
def teacher() -> LoadedModel:
    folder = LAB / "teacher"
    return load(EngineConfig(model_name_or_path=str(folder), num_threads=1), folder)


def run(loaded: LoadedModel, *requests: ScoreRequest) -> dict[str, ScoreResult]:
    return {result.request_id: result for result in score(loaded, requests, lambda: None)}


def test_scores_equal_what_sampling_said(teacher: LoadedModel) -> None:
    wanted = [GenerationRequest(f"{i}-{s}", p, (), 80) for i, p in enumerate(PROMPTS) for s in range(5)]
    sampled = {c.slot_id: c for c in generate(teacher, wanted, SamplingConfig(temperature=1), 8, lambda: None)}
    results = run(
        teacher,
        *(ScoreRequest(r.slot_id, r.prompt, token_ids=tuple(sampled[r.slot_id].token_ids.tolist())) for r in wanted),
    )
    assert results.keys() == sampled.keys()
    for slot_id, completion in sampled.items():
        np.testing.assert_allclose(results[slot_id].logprobs, completion.logprobs, atol=1e-4)
        np.testing.assert_allclose(results[slot_id].entropies, completion.entropies, atol=1e-4)


def test_context_cue_and_text_are_joined_token_by_token(teacher: LoadedModel) -> None:
    context = tuple(teacher.tokenizer("Start with 17.", add_special_tokens=False).input_ids)
    cue = tuple(teacher.tokenizer(ANSWER_CUE, add_special_tokens=False).input_ids)
    text = tuple(teacher.tokenizer("42}", add_special_tokens=False).input_ids)
    results = run(
        teacher,
        ScoreRequest("parts", PROMPTS[0], context, ANSWER_CUE, text="42}"),
        ScoreRequest("tokens", PROMPTS[0], (*context, *cue), token_ids=text),
        ScoreRequest("whole", PROMPTS[0], token_ids=(*context, *cue, *text)),
    )
    assert len(results["parts"].logprobs) == len(text)
    np.testing.assert_allclose(results["parts"].logprobs, results["tokens"].logprobs, atol=1e-5)
    # a sequence's log-probabilities do not depend on where scoring begins
    np.testing.assert_allclose(results["parts"].logprobs, results["whole"].logprobs[-len(text) :], atol=1e-5)
    assert len(results["whole"].logprobs) == len(context) + len(cue) + len(text)


def test_a_score_is_the_log_probability_of_a_plain_forward_pass(teacher: LoadedModel) -> None:
    prompt_ids = teacher.prompt_ids(PROMPTS[1])
    tokens = teacher.tokenizer("1. 17 - 9 = 8.", add_special_tokens=False).input_ids
    with torch.inference_mode():
        logits = teacher.model(torch.tensor([prompt_ids + tokens], device=teacher.device)).logits[0].double().cpu()
    rows = torch.log_softmax(logits[len(prompt_ids) - 1 : -1], dim=-1)
    expected = [rows[index, token].item() for index, token in enumerate(tokens)]
    result = run(teacher, ScoreRequest("one", PROMPTS[1], text="1. 17 - 9 = 8."))["one"]
    np.testing.assert_allclose(result.logprobs, expected, atol=1e-4)
    np.testing.assert_allclose(result.entropies, -(rows.exp() * rows).sum(dim=-1), atol=1e-4)
    assert ((result.entropies >= 0) & (result.entropies <= math.log(teacher.description.vocabulary_size))).all()


def test_nothing_to_score_gives_empty_arrays(teacher: LoadedModel) -> None:
    results = run(teacher, ScoreRequest("none", PROMPTS[0]), ScoreRequest("some", PROMPTS[0], text="5"))
    assert results["none"].logprobs.shape == results["none"].entropies.shape == (0,)
    assert results["some"].logprobs.shape == (1,)


def test_many_rows_come_back_each_once(teacher: LoadedModel) -> None:
    # more tokens than one batch holds
    text = "1. 17 - 9 = 8.\n\n" * 20
    requests = [ScoreRequest(f"r{n}", PROMPTS[n % 3], text=text[: 8 * (n + 1)]) for n in range(40)]
    results = list(score(teacher, requests, lambda: None))
    assert sorted(r.request_id for r in results) == sorted(r.request_id for r in requests)
    alone = run(teacher, requests[7])["r7"]
    together = next(r for r in results if r.request_id == "r7")
    np.testing.assert_allclose(together.logprobs, alone.logprobs, atol=1e-4)


def test_a_model_that_scales_its_logits_is_run_whole(teacher: LoadedModel) -> None:
    # Granite divides its logits; the output layer alone misses that. A probe with padding tokens once
    # did too: their embedding is 0, and so is any multiple of their logits.
    torch.manual_seed(0)
    config = GraniteConfig(
        vocab_size=teacher.description.vocabulary_size,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        logits_scaling=0.05,
        pad_token_id=teacher.pad_id,
    )
    model = GraniteForCausalLM(config).to(teacher.device).eval()
    granite = replace(teacher, model=model)
    assert has_plain_head(teacher)
    assert not has_plain_head(granite)
    prompt_ids = granite.prompt_ids(PROMPTS[0])
    tokens = [5, 6, 7]
    with torch.inference_mode():
        ids = torch.tensor([prompt_ids + tokens], device=teacher.device)
        logits = model(ids).logits[0, len(prompt_ids) - 1 : -1]
    expected = torch.log_softmax(logits.double(), dim=-1)[torch.arange(3), tokens].cpu()
    results = run(
        granite,
        ScoreRequest("a", PROMPTS[0], token_ids=(5, 6, 7)),
        ScoreRequest("b", PROMPTS[1], token_ids=(8,)),
    )
    np.testing.assert_allclose(results["a"].logprobs, expected, atol=1e-4)
    assert results["b"].logprobs.shape == (1,)


def test_a_text_beyond_the_context_is_refused(teacher: LoadedModel) -> None:
    with pytest.raises(ModelError, match="more than the context"):
        run(teacher, ScoreRequest("long", PROMPTS[0], token_ids=(5,) * teacher.description.context_tokens))


def pure_requests(loaded: LoadedModel, num_texts: int = 3, num_steps: int = 6) -> list[ScoreRequest]:
    """Return what PURE asks of some texts: each whole, hinted, and two forms of an answer after each step."""
    requests = []
    for number in range(num_texts):
        step_ids = [
            loaded.tokenizer(f"{n}. {17 + number} - {n} = {17 + number - n}.\n\n", add_special_tokens=False).input_ids
            for n in range(1, num_steps + 1)
        ]
        text = tuple(token for step in step_ids for token in step)
        ends = np.cumsum([0, *map(len, step_ids)])
        prompt = PROMPTS[number % 2]
        requests.append(ScoreRequest(f"{number}/plain", prompt, token_ids=text))
        requests.append(ScoreRequest(f"{number}/hinted", PROMPTS[2], text[: ends[1]], token_ids=text[ends[1] :]))
        requests.extend(
            ScoreRequest(f"{number}/U{k}/{form}", prompt, text[:end], ANSWER_CUE, text=form)
            for k, end in enumerate(ends)
            for form in ("4", "42}", "\\frac{4}{2}}")
        )
        requests.append(ScoreRequest(f"{number}/nothing", prompt, text))
    return requests


def assert_same(one: dict[str, ScoreResult], other: dict[str, ScoreResult]) -> None:
    assert one.keys() == other.keys()
    for request_id, result in one.items():
        np.testing.assert_allclose(result.logprobs, other[request_id].logprobs, atol=1e-4, err_msg=request_id)
        np.testing.assert_allclose(result.entropies, other[request_id].entropies, atol=1e-4, err_msg=request_id)


def test_requests_that_share_their_beginning_score_as_each_alone(teacher: LoadedModel) -> None:
    requests = pure_requests(teacher)
    alone = {name: result for request in requests for name, result in run(teacher, request).items()}
    together = run(teacher, *requests)
    assert_same(together, alone)
    # what is read once counts once: a third of all tokens, at least
    num_read = sum(result.num_read_tokens for result in together.values())
    assert 3 * num_read < sum(result.num_read_tokens for result in alone.values())
    whole = next(r for r in requests if r.request_id == "0/plain")
    assert alone["0/plain"].num_read_tokens == len(teacher.prompt_ids(whole.prompt)) + len(whole.token_ids)


def test_scores_do_not_depend_on_how_much_is_read_at_a_time(
    teacher: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = pure_requests(teacher)
    roomy = run(teacher, *requests)
    shapes = []
    read = scoring._hidden_states

    def counted(loaded: LoadedModel, ids: torch.Tensor, **arguments: torch.Tensor) -> torch.Tensor:
        shapes.append(tuple(ids.shape))
        return read(loaded, ids, **arguments)

    monkeypatch.setattr(scoring, "_hidden_states", counted)
    tight = {result.request_id: result for result in score(teacher, requests, lambda: None, 300)}
    assert_same(tight, roomy)
    assert max(rows * columns for rows, columns in shapes) <= 300
    assert len(shapes) > 3


def test_a_model_with_a_window_reads_each_request_alone_and_says_so(
    teacher: LoadedModel, caplog: pytest.LogCaptureFixture
) -> None:
    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=teacher.description.vocabulary_size, hidden_size=16, intermediate_size=16, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=2, sliding_window=16, pad_token_id=teacher.pad_id,
    )  # fmt: skip
    mistral = replace(teacher, model=MistralForCausalLM(config).to(teacher.device).eval())
    requests = pure_requests(mistral, num_texts=1)
    with caplog.at_level(logging.WARNING, logger="heal"):
        together = run(mistral, *requests)
    assert "reads each request alone: it has a sliding window of 16 tokens" in caplog.text
    assert_same(together, {name: r for request in requests for name, r in run(mistral, request).items()})


def test_a_model_that_scales_its_logits_reads_what_is_shared_once_too(teacher: LoadedModel) -> None:
    torch.manual_seed(0)
    config = GraniteConfig(
        vocab_size=teacher.description.vocabulary_size, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2, logits_scaling=0.05, pad_token_id=teacher.pad_id,
    )  # fmt: skip
    granite = replace(teacher, model=GraniteForCausalLM(config).to(teacher.device).eval())
    requests = pure_requests(granite, num_texts=2)
    together = run(granite, *requests)
    assert_same(together, {name: r for request in requests for name, r in run(granite, request).items()})
    assert min(r.num_read_tokens for r in together.values()) < 20
