from __future__ import annotations

import pytest
from transformers import PreTrainedTokenizerFast

from heal_core.errors import TrainingError
from heal_core.sft.data import Example, TokenisedExample, TokenisedExamples, tokenise_examples
from heal_core.sft.preflight import build_report, check_examples, check_first_batch

END = 9
EXAMPLES = [TokenisedExample("a", [1, 2, 3, END], 2), TokenisedExample("b", [4, 5, END], 1)]
INPUT_IDS = [[1, 2, 3, END], [4, 5, END, 0]]
LABELS = [[-100, -100, 3, END], [-100, 5, END, -100]]
MASK = [[1, 1, 1, 1], [1, 1, 1, 0]]


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
    report = build_report(tokenised, [0, 1, 1, 0], tokenizer, max_length=20, micro_batch_size=2, num_optimizer_steps=1)
    assert (report.num_examples, report.num_dropped_over_long) == (2, 1)
    assert (report.num_tokens, report.longest_tokens) == (14, 8)
    assert report.loss_share == pytest.approx(6 / 14)
    assert (report.num_exposures, report.num_exposed_tokens) == (4, 28)
    # two micro-batches of 2 x 8 positions hold 14 tokens each
    assert report.padding_share == pytest.approx(4 / 32)
    assert report.first_example.without_loss == "<|user|>p<|end|><|assistant|>"
    assert report.first_example.with_loss == "1<|end|>"
