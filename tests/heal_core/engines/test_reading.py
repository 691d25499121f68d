"""Given texts as completions, on the lab's teacher: what sampling said of a text, reading says too."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from heal_core.engines.base import EngineConfig, GenerationRequest, GivenText, SamplingConfig, UnreadableText
from heal_core.engines.loading import LoadedModel, load
from heal_core.engines.reading import read
from heal_core.engines.sampling import generate
from heal_core.engines.scoring import score
from heal_core.prompts import student_prompt
from heal_core.records import Completion, FinishReason

LAB = Path(__file__).parents[3] / "deployments" / "lab"
PROMPTS = [
    student_prompt(json.loads(line)["problem"]) for line in (LAB / "development.jsonl").read_text().splitlines()[:3]
]


@pytest.fixture(scope="module")
def teacher() -> LoadedModel:
    folder = LAB / "teacher"
    return load(EngineConfig(model_name_or_path=str(folder), num_threads=1), folder)


def read_all(loaded: LoadedModel, given: Sequence[GivenText]) -> list[Completion | UnreadableText]:
    return list(read(loaded, given, lambda requests: score(loaded, requests, lambda: None), lambda: None))


def read_one(loaded: LoadedModel, text: str, reason: FinishReason = FinishReason.STOP) -> Completion | UnreadableText:
    (answer,) = read_all(loaded, [GivenText("one", PROMPTS[0], text, reason)])
    return answer


def test_a_text_that_was_sampled_is_read_as_it_was_sampled(teacher: LoadedModel) -> None:
    wanted = [GenerationRequest(f"{i}-{s}", p, (), 60) for i, p in enumerate(PROMPTS) for s in range(4)]
    sampled = {c.slot_id: c for c in generate(teacher, wanted, SamplingConfig(temperature=1), 8, lambda: None)}
    given = [GivenText(r.slot_id, r.prompt, sampled[r.slot_id].text, sampled[r.slot_id].finish_reason) for r in wanted]
    found = {answer.slot_id: answer for answer in read_all(teacher, given)}
    assert found.keys() == sampled.keys()
    for slot_id, completion in sampled.items():
        answer = found[slot_id]
        assert isinstance(answer, Completion)
        np.testing.assert_array_equal(answer.token_ids, completion.token_ids)
        np.testing.assert_array_equal(answer.token_starts, completion.token_starts)
        np.testing.assert_allclose(answer.entropies, completion.entropies, atol=1e-4)
        np.testing.assert_allclose(answer.logprobs, completion.logprobs, atol=1e-4)
        assert (answer.text, answer.finish_reason) == (completion.text, completion.finish_reason)
        assert answer.num_prompt_tokens == completion.num_prompt_tokens
        assert answer.seconds > 0


def test_the_token_that_ends_the_turn_is_no_part_of_an_answer(teacher: LoadedModel) -> None:
    plain, ended = read_one(teacher, "1. 17 - 9 = 8."), read_one(teacher, "1. 17 - 9 = 8.<|end|>\n")
    assert isinstance(plain, Completion) and isinstance(ended, Completion)
    assert ended.text == plain.text == "1. 17 - 9 = 8."
    np.testing.assert_array_equal(ended.token_ids, plain.token_ids)


def test_a_cut_text_stays_cut(teacher: LoadedModel) -> None:
    answer = read_one(teacher, "1. 17 - 9", FinishReason.LENGTH)
    assert isinstance(answer, Completion)
    assert answer.finish_reason is FinishReason.LENGTH


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("<|end|>", "empty_text"),
        ("1. 17<|end|> 2. 9", "turn_ends_within: a token that ends the turn is number "),
        ("7 " * 3000, "too_long: "),
    ],
)
def test_what_is_no_answer_of_the_model_comes_back_with_the_reason(
    teacher: LoadedModel, text: str, reason: str
) -> None:
    answer = read_one(teacher, text)
    assert isinstance(answer, UnreadableText)
    assert answer.reason.startswith(reason)


def test_a_bad_text_costs_no_other(teacher: LoadedModel) -> None:
    given = [
        GivenText("bad", PROMPTS[0], "<|end|>", FinishReason.STOP),
        GivenText("good", PROMPTS[0], "1. 17 - 9 = 8.", FinishReason.STOP),
    ]
    found = {answer.slot_id: type(answer) for answer in read_all(teacher, given)}
    assert found == {"bad": UnreadableText, "good": Completion}
