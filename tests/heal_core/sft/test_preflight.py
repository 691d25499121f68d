from __future__ import annotations

from dataclasses import replace

import pytest
from transformers import PreTrainedTokenizerFast

from heal_core.errors import RequestError, TrainingError
from heal_core.sft.data import Example, TokenisedExample, TokenisedExamples, tokenise_examples
from heal_core.sft.preflight import (
    Estimate,
    build_report,
    check_examples,
    check_first_batch,
    check_thinking,
    describe,
    describe_example,
)
from tests.heal_core.sft.conftest import CHAT_TEMPLATE, new_tokenizer

END = 9
EXAMPLES = [TokenisedExample("a", [1, 2, 3, END], 2), TokenisedExample("b", [4, 5, END], 1)]
INPUT_IDS = [[1, 2, 3, END], [4, 5, END, 0]]
LABELS = [[-100, -100, 3, END], [-100, 5, END, -100]]
MASK = [[1, 1, 1, 1], [1, 1, 1, 0]]

ESTIMATE = Estimate(
    num_padded_tokens=32, num_micro_batches=2, expected_seconds=90.0, expected_memory_mib=1536.0,
    num_parameters=1000, num_trained_parameters=1000, dtype="float32",
)  # fmt: skip


def changed(rows: list[list[int]], row: int, column: int, value: int) -> list[list[int]]:
    copy = [list(r) for r in rows]
    copy[row][column] = value
    return copy


def test_a_right_batch_passes() -> None:
    check_first_batch(INPUT_IDS, LABELS, MASK, EXAMPLES, END)


@pytest.mark.parametrize(
    ("labels", "complaint"),
    [
        (changed(LABELS, 0, 1, 2), "example a: the loss does not cover exactly"),  # a prompt token is learnt
        (
            changed(LABELS, 0, 2, -100),
            "example a: the loss does not cover exactly",
        ),  # a response token is not
        (changed(LABELS, 1, 2, -100), "example b: the end-of-turn token 9 carries no loss"),
        (changed(LABELS, 1, 3, 0), "example b: the loss does not cover exactly"),  # padding is learnt
        ([LABELS[0], [-100] * 4], "example b: no token carries loss"),
    ],
)
def test_wrong_labels_are_refused(labels: list[list[int]], complaint: str) -> None:
    with pytest.raises(TrainingError, match=complaint):
        check_first_batch(INPUT_IDS, labels, MASK, EXAMPLES, END)


def test_truncated_shuffled_or_packed_batches_are_refused() -> None:
    with pytest.raises(TrainingError, match="example a: the batch does not hold"):
        check_first_batch(INPUT_IDS[::-1], LABELS[::-1], MASK[::-1], EXAMPLES, END)
    with pytest.raises(TrainingError, match="example a: the batch does not hold"):
        check_first_batch([r[:3] for r in INPUT_IDS], [r[:3] for r in LABELS], MASK, EXAMPLES, END)
    with pytest.raises(TrainingError, match="holds 1 examples, expected 2"):
        check_first_batch([[1, 2, 3, END, 4, 5, END]], LABELS[:1], MASK[:1], EXAMPLES, END)
    with pytest.raises(TrainingError, match="attention mask"):
        check_first_batch(INPUT_IDS, LABELS, changed(MASK, 1, 3, 1), EXAMPLES, END)


def test_stages_with_nothing_or_the_wrong_thing_to_learn_are_refused() -> None:
    with pytest.raises(TrainingError, match="2 were longer than 3 tokens"):
        check_examples(TokenisedExamples((), ("a", "b")), END, 10, 3)
    early = TokenisedExample("early", [1, END, 2, END], 1)
    with pytest.raises(TrainingError, match="example early"):
        check_examples(TokenisedExamples((early,), ()), END, 10, 8)
    with pytest.raises(TrainingError, match="token 9 has no embedding"):
        check_examples(TokenisedExamples(tuple(EXAMPLES), ()), END, 9, 8)
    # the prompt's own end-of-turn tokens are no fault
    check_examples(TokenisedExamples((TokenisedExample("ok", [END, 1, END], 1),), ()), END, 10, 8)


def test_report_counts_tokens_loss_and_padding(tokenizer: PreTrainedTokenizerFast) -> None:
    # 4 prompt tokens each ("<|user|>", one byte, "<|end|>", "<|assistant|>"); lengths 4+1+1 = 6, 4+3+1 = 8
    examples = [Example("a", "p", "1"), Example("b", "q", "123"), Example("c", "p", "1" * 50)]
    tokenised = tokenise_examples(examples, tokenizer, 20)
    # two micro-batches of 2 x 8 positions hold 14 tokens each
    report = build_report(tokenised, [0, 1, 1, 0], tokenizer, ESTIMATE, max_length=20, num_optimizer_steps=1)
    assert (report.num_examples, report.num_dropped_over_long) == (2, 1)
    assert (report.num_tokens, report.longest_tokens) == (14, 8)
    assert report.loss_share == pytest.approx(6 / 14)
    assert (report.num_exposures, report.num_exposed_tokens) == (4, 28)
    assert report.padding_share == pytest.approx(4 / 32)
    assert report.first_example.without_loss == "<|user|>p<|end|><|assistant|>"
    assert report.first_example.with_loss == "1<|end|>"
    told = describe(report)
    assert "2 examples, 14 tokens (43% carry loss), the longest 8 of 20; 1 (33.3%) too long and dropped" in told
    assert "1 optimizer steps, 28 tokens in 2 passes, 12.5% padding; about 90 s and 1.5 GiB in float32" in told
    example = describe_example(report)
    assert example == "first example a, without loss: '<|user|>p<|end|><|assistant|>'; with loss: '1<|end|>'"


def thinking_tokenizer(opening: str) -> PreTrainedTokenizerFast:
    return new_tokenizer(CHAT_TEMPLATE.replace("<|assistant|>{%", f"<|assistant|>{opening}{{%"))


@pytest.mark.parametrize("response", ["so 2", "<think>1 and 1</think>so 2", "1 and 1</think>so 2"])
def test_a_response_opens_thinking_where_the_template_does_not(response: str) -> None:
    tokenizer = thinking_tokenizer("")
    tokenised = tokenise_examples([Example("a", "1+1", response)], tokenizer, 100)
    check_thinking(tokenised, tokenizer)
    (example,) = tokenised.examples
    learnt = tokenizer.decode(example.input_ids[example.num_prompt_tokens : -1])
    added = "<think>\n" if response.startswith("1") else ""
    assert learnt == added + response


@pytest.mark.parametrize("opening", ["<think>", "<think>\n", ""])
def test_what_the_template_opens_is_not_opened_twice(opening: str) -> None:
    tokenizer = thinking_tokenizer("<think>\n")
    tokenised = tokenise_examples([Example("a", "1+1", f"{opening}1 and 1</think>so 2")], tokenizer, 100)
    check_thinking(tokenised, tokenizer)
    whole = tokenizer.decode(tokenised.examples[0].input_ids)
    assert whole.endswith("<|assistant|><think>\n1 and 1</think>so 2<|end|>")


@pytest.mark.parametrize(
    ("opening", "response", "counts"),
    [
        ("<think>\n", "so 2", "opens it 1 times and closes it 0 times"),
        ("", "<think>1 and 1", "opens it 1 times and closes it 0 times"),
        ("", "<think>1</think><think>so", "opens it 2 times and closes it 1 times"),
        ("", "<think>1<think>2</think></think>so", "opens it 2 times and closes it 2 times"),
    ],
)
def test_thinking_without_an_end_is_refused(opening: str, response: str, counts: str) -> None:
    tokenizer = thinking_tokenizer(opening)
    tokenised = tokenise_examples([Example("a", "1+1", response)], tokenizer, 100)
    with pytest.raises(TrainingError, match=f"1 of 1 examples .* example a, which {counts}"):
        check_thinking(tokenised, tokenizer)


def test_a_text_that_is_odd_is_counted_and_stops_nobody() -> None:
    tokenizer = thinking_tokenizer("")
    rows = [Example(f"e{i}", "1+1", "<think>1 and 1</think>so 2") for i in range(9)]
    odd = Example("odd", "1+1", "<think>1</think>no</think>2")
    few, many = ([*rows, odd], [*rows[:-1], odd])
    assert check_thinking(tokenise_examples(few, tokenizer, 100), tokenizer) == 1
    with pytest.raises(TrainingError, match="in 1 of 9 examples <think> and </think> do not take turns"):
        check_thinking(tokenise_examples(many, tokenizer, 100), tokenizer)


def test_a_tag_that_was_lost_on_the_way_to_tokens_is_found() -> None:
    tokenizer = thinking_tokenizer("")
    (example,) = tokenise_examples([Example("a", "1+1", "<think>1</think>2")], tokenizer, 100).examples
    slash = tokenizer.convert_tokens_to_ids("/")
    damaged = replace(example, input_ids=[token for token in example.input_ids if token != slash])
    with pytest.raises(TrainingError, match="opens it 2 times and closes it 0 times"):
        check_thinking(TokenisedExamples((damaged,), ()), tokenizer)


def test_a_template_that_leaves_out_the_problem_is_refused() -> None:
    template = "{% for m in messages %}{% if m.role == 'assistant' %}{{ m.content }}<|end|>{% endif %}{% endfor %}"
    with pytest.raises(RequestError, match="its chat template leaves out what the user says"):
        tokenise_examples([Example("a", "1+1", "2")], new_tokenizer(template + "<|assistant|>"), 100)


@pytest.mark.parametrize("template", ["{% for m in messages %}", "{{ raise_exception('no users') }}"])
def test_a_template_that_cannot_be_rendered_is_refused(template: str) -> None:
    with pytest.raises(RequestError, match="its chat template refuses a turn of user alone"):
        tokenise_examples([Example("a", "1+1", "2")], new_tokenizer(template), 100)
