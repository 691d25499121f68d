import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import GraniteConfig, GraniteForCausalLM

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
