import json
import math
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.cache_utils import DynamicCache

from heal_core.engines.base import EngineConfig, GenerationRequest, SamplingConfig
from heal_core.engines.drawing import draw, slot_uniforms
from heal_core.engines.early_stop import EarlyStopConfig, LoopWatch, line_ends
from heal_core.engines.loading import LoadedModel, load
from heal_core.engines.sampling import _new_cache, generate
from heal_core.errors import ModelError
from heal_core.prompts import student_prompt
from heal_core.records import Completion, FinishReason

LAB = Path(__file__).parents[3] / "deployments" / "lab"
SAMPLING = SamplingConfig()
QUESTIONS = [json.loads(line)["problem"] for line in (LAB / "development.jsonl").read_text().splitlines()[:4]]


@pytest.fixture(scope="module")
def teacher() -> LoadedModel:
    folder = LAB / "teacher"
    return load(EngineConfig(model_name_or_path=str(folder), num_threads=1), folder)


def requests(num_samples: int = 4, max_tokens: int = 60, tag: str = "slot") -> list[GenerationRequest]:
    return [
        GenerationRequest(f"{tag}-{index}-{sample}", student_prompt(question), (), max_tokens)
        for index, question in enumerate(QUESTIONS)
        for sample in range(num_samples)
    ]


def run(
    loaded: LoadedModel,
    wanted: list[GenerationRequest],
    sampling: SamplingConfig = SAMPLING,
    batch_size: int = 8,
) -> dict[str, Completion]:
    return {c.slot_id: c for c in generate(loaded, wanted, sampling, batch_size, lambda: None)}


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    weights = np.exp((logits - logits.max()) / temperature)
    return weights / weights.sum()


def test_the_same_requests_give_the_same_bits(teacher: LoadedModel) -> None:
    first, second = run(teacher, requests()), run(teacher, requests())
    assert first.keys() == second.keys() == {request.slot_id for request in requests()}
    for slot_id, completion in first.items():
        other = second[slot_id]
        assert completion.text == other.text
        assert completion.token_ids.tobytes() == other.token_ids.tobytes()
        assert completion.logprobs.tobytes() == other.logprobs.tobytes()
        assert completion.entropies.tobytes() == other.entropies.tobytes()


def test_samples_of_a_problem_differ(teacher: LoadedModel) -> None:
    sampling = SamplingConfig(temperature=2, top_p=1)
    texts = {completion.text for completion in run(teacher, requests(num_samples=8)[:8], sampling).values()}
    assert len(texts) == 8


def test_tokens_do_not_depend_on_what_else_is_in_the_batch(teacher: LoadedModel) -> None:
    everything = run(teacher, requests(), batch_size=16)
    for batch_size, subset in ((1, requests()[2:4]), (5, requests()[1::3])):
        for slot_id, completion in run(teacher, subset, batch_size=batch_size).items():
            other = everything[slot_id]
            assert completion.token_ids.tolist() == other.token_ids.tolist()
            np.testing.assert_allclose(completion.logprobs, other.logprobs, atol=1e-4)
            np.testing.assert_allclose(completion.entropies, other.entropies, atol=1e-4)


def test_completions_agree_with_a_plain_forward_pass(teacher: LoadedModel) -> None:
    wanted = requests(num_samples=2, max_tokens=40)
    for slot_id, completion in run(teacher, wanted).items():
        prompt = next(r.prompt for r in wanted if r.slot_id == slot_id)
        prompt_ids = teacher.prompt_ids(prompt)
        assert completion.num_prompt_tokens == len(prompt_ids)
        with torch.inference_mode():
            ids = torch.tensor([prompt_ids + completion.token_ids.tolist()], device=teacher.device)
            logits = teacher.model(ids).logits[0, len(prompt_ids) - 1 :].double().cpu().numpy()
        uniforms = slot_uniforms(slot_id, 0, len(logits))
        for step, token in enumerate(completion.token_ids):
            probabilities = softmax(logits[step])
            assert completion.logprobs[step] == pytest.approx(math.log(probabilities[token]), abs=1e-4)
            entropy = -(probabilities * np.log(probabilities)).sum()
            assert completion.entropies[step] == pytest.approx(entropy, abs=1e-4)
            row = torch.from_numpy(logits[step]).float()[None]
            assert draw(row, torch.tensor(uniforms[step : step + 1]), SAMPLING).item() == token


def test_entropies_and_offsets_are_within_their_bounds(teacher: LoadedModel) -> None:
    sampling = SamplingConfig(temperature=2, top_p=1)
    for completion in run(teacher, requests(), sampling).values():
        length = len(completion.token_ids)
        arrays = (completion.logprobs, completion.entropies, completion.token_starts)
        assert [len(array) for array in arrays] == [length] * 3
        assert (completion.entropies >= 0).all()
        assert (completion.entropies <= math.log(teacher.description.vocabulary_size) + 1e-6).all()
        assert (completion.logprobs <= 0).all()
        assert completion.text == teacher.tokenizer.decode(completion.token_ids)
        assert completion.token_starts[0] == 0
        for token, start in zip(completion.token_ids, completion.token_starts, strict=True):
            assert completion.text[start:].startswith(teacher.tokenizer.decode([token]))


def test_a_turn_ends_at_its_end_token_and_a_cut_at_the_limit(teacher: LoadedModel) -> None:
    stopped = [c for c in run(teacher, requests(max_tokens=500)).values() if c.finish_reason is FinishReason.STOP]
    assert not any(teacher.eos_ids & set(completion.token_ids.tolist()) for completion in stopped)
    # at a limit of exactly its length there is no room for the end token; one more, and there is
    length = len(stopped[0].token_ids)
    request = next(r for r in requests() if r.slot_id == stopped[0].slot_id)
    cut = run(teacher, [replace(request, max_tokens=length)])[request.slot_id]
    assert (cut.finish_reason, len(cut.token_ids)) == (FinishReason.LENGTH, length)
    ended = run(teacher, [replace(request, max_tokens=length + 1)])[request.slot_id]
    assert (ended.finish_reason, len(ended.token_ids)) == (FinishReason.STOP, length)


def test_rows_that_end_early_leave_the_others_as_they_were(teacher: LoadedModel) -> None:
    # limits of 5, 6, .. 20 take rows out of the batch at every step, and compact it several times
    wanted = [replace(request, max_tokens=5 + index) for index, request in enumerate(requests())]
    together, unlimited = run(teacher, wanted, batch_size=16), run(teacher, requests())
    for request in wanted:
        expected = unlimited[request.slot_id].token_ids[: request.max_tokens]
        assert together[request.slot_id].token_ids.tolist() == expected.tolist()
        assert together[request.slot_id].finish_reason is FinishReason.LENGTH


@pytest.mark.parametrize(
    "early_stop", [EarlyStopConfig(ngram=2, repeats=3), EarlyStopConfig(ngram=None, max_step_tokens=11)]
)
def test_a_hopeless_text_is_cut_and_the_others_are_as_they_were(
    teacher: LoadedModel, early_stop: EarlyStopConfig
) -> None:
    watched = SamplingConfig(early_stop=early_stop)
    plain, stopped = run(teacher, requests(), batch_size=16), run(teacher, requests(), watched, batch_size=16)
    ends_line = line_ends(teacher.tokenizer)
    num_stopped = 0
    for slot_id, whole in plain.items():
        watch = LoopWatch(early_stop, ends_line)
        end = next((index + 1 for index, token in enumerate(whole.token_ids.tolist()) if watch.add(token)), None)
        text = stopped[slot_id]
        assert text.token_ids.tolist() == whole.token_ids[:end].tolist()
        assert text.finish_reason is (FinishReason.HOPELESS if end else whole.finish_reason)
        assert whole.text.startswith(text.text)
        assert len(text.entropies) == len(text.token_starts) == len(text.token_ids)
        num_stopped += end is not None
    assert 0 < num_stopped < len(plain)


def test_a_text_that_is_hopeless_at_its_very_limit_needs_no_higher_one(teacher: LoadedModel) -> None:
    watched = SamplingConfig(early_stop=EarlyStopConfig(ngram=None, max_step_tokens=5))
    request = requests()[0]
    hopeless = run(teacher, [request], watched)[request.slot_id]
    length = len(hopeless.token_ids)
    assert (hopeless.finish_reason, length < request.max_tokens) == (FinishReason.HOPELESS, True)
    at_limit, below = (
        run(teacher, [replace(request, max_tokens=limit)], watched)[request.slot_id] for limit in (length, length - 1)
    )
    assert (at_limit.finish_reason, below.finish_reason) == (FinishReason.HOPELESS, FinishReason.LENGTH)


def test_a_prefix_is_continued(teacher: LoadedModel) -> None:
    # greedy decoding from its own beginning must reach the same end
    greedy = SamplingConfig(temperature=0)
    request = requests(max_tokens=60)[0]
    whole = run(teacher, [request], greedy)[request.slot_id]
    kept = whole.token_ids[:20].tolist()
    rest = run(teacher, [replace(request, prefix_token_ids=tuple(kept), max_tokens=40)], greedy)[request.slot_id]
    assert rest.token_ids.tolist() == whole.token_ids[20:].tolist()
    assert whole.text == whole.text[: whole.token_starts[20]] + rest.text
    assert rest.num_prompt_tokens == whole.num_prompt_tokens + 20


def test_a_model_that_says_nothing_gives_an_empty_completion(teacher: LoadedModel) -> None:
    # greedy, from everything that was said before the turn's end
    greedy = SamplingConfig(temperature=0)
    whole = next(
        c
        for c in run(teacher, requests(num_samples=1, max_tokens=500), greedy).values()
        if c.finish_reason is FinishReason.STOP
    )
    request = next(r for r in requests() if r.slot_id == whole.slot_id)
    prefix = tuple(whole.token_ids.tolist())
    empty = run(teacher, [replace(request, prefix_token_ids=prefix, max_tokens=10)], greedy)[whole.slot_id]
    assert (empty.text, empty.finish_reason) == ("", FinishReason.STOP)
    assert empty.token_ids.shape == empty.entropies.shape == empty.token_starts.shape == (0,)


def test_no_room_gives_an_empty_completion_cut_at_the_limit(teacher: LoadedModel) -> None:
    request = replace(requests()[0], max_tokens=0)
    completion = run(teacher, [request])[request.slot_id]
    assert (completion.text, completion.finish_reason) == ("", FinishReason.LENGTH)


def test_the_seconds_of_a_batch_are_shared_out(teacher: LoadedModel) -> None:
    started = time.perf_counter()
    seconds = [completion.seconds for completion in run(teacher, requests(), batch_size=8).values()]
    elapsed = time.perf_counter() - started
    assert min(seconds) > 0
    assert 0.5 * elapsed < sum(seconds) <= elapsed


def test_a_request_beyond_the_context_is_refused_before_any_work(teacher: LoadedModel) -> None:
    prompt_tokens = len(teacher.prompt_ids(student_prompt(QUESTIONS[0])))
    context = teacher.description.context_tokens
    fits = replace(requests()[0], max_tokens=context - prompt_tokens)
    beats: list[None] = []
    with pytest.raises(ModelError, match=r"3 more than the context"):
        too_long = replace(fits, slot_id="long", max_tokens=fits.max_tokens + 3)
        list(generate(teacher, [fits, too_long], SAMPLING, 8, lambda: beats.append(None)))
    assert not beats


def test_a_token_of_another_model_is_refused(teacher: LoadedModel) -> None:
    alien = replace(requests()[0], prefix_token_ids=(teacher.description.vocabulary_size,))
    with pytest.raises(ModelError, match="token ids must come from this model"):
        run(teacher, [alien])


def test_a_beat_can_stop_the_work(teacher: LoadedModel) -> None:
    def stop_at_third() -> Iterator[None]:
        yield from (None, None)
        raise TimeoutError

    beats = stop_at_third()
    with pytest.raises(TimeoutError):
        list(generate(teacher, requests(), SAMPLING, 8, lambda: next(beats)))


@pytest.mark.parametrize("num_heads", [1, 4])
def test_the_roomy_cache_holds_what_the_ordinary_one_does(num_heads: int) -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=50,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=num_heads,
    )
    model = LlamaForCausalLM(config).eval()
    roomy, ordinary = _new_cache(model), DynamicCache(config=config)
    picked = torch.tensor([2, 0, 0])
    with torch.inference_mode():
        for cache in (roomy, ordinary):
            model(torch.arange(15).view(3, 5), past_key_values=cache)
            cache.reorder_cache(picked)
        for step in range(130):  # past two growths of the room
            ids = torch.full((3, 1), step % 50)
            logits = [model(ids, past_key_values=cache).logits for cache in (roomy, ordinary)]
            torch.testing.assert_close(logits[0], logits[1])
    assert roomy.get_seq_length() == ordinary.get_seq_length() == 135
    for ours, theirs in zip(roomy.layers, ordinary.layers, strict=True):
        torch.testing.assert_close(ours.keys, theirs.keys)
