"""What is checked and written down before the first optimizer step.

A wrong loss mask trains without any complaint and gives a worse student, so it is
checked on the batch that the trainer itself would feed to the model. Batches come in
as lists of integers: nothing here needs torch.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from heal_core.chat import END_THINK, THINK, opens_thinking
from heal_core.errors import TrainingError
from heal_core.sft.data import IGNORED_LABEL, PROMPT_END_TOKENS, TokenisedExample, TokenisedExamples

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_MAX_UNPAIRED_SHARE = 0.1
_SHOWN_CHARS = 300


class DecodedExample(BaseModel):
    """One example as text, cut where the loss begins."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    example_id: str
    without_loss: str
    with_loss: str


class Estimate(BaseModel):
    """What training will compute, and what that takes.

    Attributes:
        num_padded_tokens: Tokens computed in all, by all processes, padding included.
        num_micro_batches: Forward and backward passes in all.
        expected_seconds: Of these passes, from one tried on the largest; None where several processes share the work.
        expected_memory_mib: At the peak, likewise: of the process, of the GPU on one.
        num_trained_parameters: With an adapter, those of the adapter.
        dtype: What is computed in; bfloat16 is mixed precision.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_padded_tokens: int
    num_micro_batches: int
    expected_seconds: float | None
    expected_memory_mib: float | None
    num_parameters: int
    num_trained_parameters: int
    dtype: str


class PreflightReport(BaseModel):
    """What a stage is about to train on.

    Attributes:
        num_examples: Distinct examples that fit.
        num_dropped_over_long: Examples longer than `max_length_tokens`.
        num_tokens: Tokens of the distinct examples, prompts included.
        longest_tokens: The longest of them.
        max_length_tokens: The limit in force: the setting or the model's context, whichever is less.
        loss_share: Share of those tokens that carry loss, within (0, 1).
        num_exposures: Examples shown in all, repeats included.
        num_exposed_tokens: Tokens shown in all, without padding.
        padding_share: Share of padding in what the model computes, within [0, 1).
        num_optimizer_steps: Expected optimizer steps.
        first_example: The first example of training.
        num_unpaired_thinking: Examples in which `<think>` and `</think>` do not take turns.
        resumed_from_step: The step after which a stage that was begun before goes on; 0 from the beginning.

    The rest is as in `Estimate`; None in reports of before these were estimated.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_examples: int
    num_dropped_over_long: int
    num_tokens: int
    longest_tokens: int
    max_length_tokens: int
    loss_share: float
    num_exposures: int
    num_exposed_tokens: int
    padding_share: float
    num_optimizer_steps: int
    num_unpaired_thinking: int = 0
    resumed_from_step: int = 0
    num_micro_batches: int | None = None
    expected_seconds: float | None = None
    expected_memory_mib: float | None = None
    num_parameters: int | None = None
    num_trained_parameters: int | None = None
    dtype: str | None = None
    first_example: DecodedExample


def check_examples(tokenised: TokenisedExamples, end_id: int, vocabulary_size: int, max_length: int) -> None:
    """Refuse a stage with nothing to learn, or with an example that would teach something else.

    Raises:
        TrainingError: If nothing is left, a response ends its turn early, or a token has no embedding.
    """
    if not tokenised.examples:
        raise TrainingError(
            f"no training example is left: {len(tokenised.over_long_ids)} were longer than {max_length} "
            "tokens and dropped; raise sft.max_length, or lower max_tokens"
        )
    for example in tokenised.examples:
        response = example.input_ids[example.num_prompt_tokens :]
        if end_id in response[:-1]:
            raise TrainingError(
                f"example {example.example_id}: its response contains the end-of-turn token in the middle "
                f"(token {end_id}); remove it"
            )
        if max(example.input_ids) >= vocabulary_size:
            raise TrainingError(
                f"example {example.example_id}: token {max(example.input_ids)} has no embedding (the model "
                f"has {vocabulary_size}); the tokenizer does not belong to this model"
            )


def check_thinking(tokenised: TokenisedExamples, tokenizer: PreTrainedTokenizerBase) -> int:
    """Return in how many examples `<think>` and `</think>` do not take turns, refusing them if they are many.

    A text may be odd. Many are the work of a template, or of a tokenizer that loses a tag: it is the tokens that are
    looked at.

    Raises:
        TrainingError: If more than a tenth of the examples are so.
    """
    unpaired, first = 0, ""
    for example in tokenised.examples:
        response = str(tokenizer.decode(example.input_ids[example.num_prompt_tokens :]))
        prompt_end = str(tokenizer.decode(example.input_ids[: example.num_prompt_tokens][-PROMPT_END_TOKENS:]))
        is_opened = opens_thinking(prompt_end)
        tags = [THINK] * is_opened + re.findall(f"{THINK}|{END_THINK}", response)
        if tags != [THINK, END_THINK] * (len(tags) // 2):
            unpaired += 1
            num_opened, num_closed = tags.count(THINK), tags.count(END_THINK)
            where = "the student's chat template opens it in the prompt" if is_opened else "the prompt does not open it"
            first = first or (
                f"example {example.example_id}, which opens it {num_opened} times and closes it {num_closed} times "
                f"({where}): {response[:200]!r}"
            )
    if unpaired > _MAX_UNPAIRED_SHARE * len(tokenised.examples):
        raise TrainingError(
            f"in {unpaired} of {len(tokenised.examples)} examples {THINK} and {END_THINK} do not take turns, so that "
            "the student would learn to think without an end, or to answer inside its reasoning; take a student whose "
            f"template suits the teacher's texts, or texts with both tags. The first is {first}"
        )
    return unpaired


def check_first_batch(
    input_ids: Sequence[Sequence[int]],
    labels: Sequence[Sequence[int]],
    attention_mask: Sequence[Sequence[int]],
    expected: Sequence[TokenisedExample],
    end_id: int,
) -> None:
    """Refuse a collated batch whose labels are not exactly the responses with their end-of-turn token.

    Args:
        input_ids: As the model will see them, shape [B, T], padded on the right.
        labels: Aligned with `input_ids`, -100 where there is no loss.
        attention_mask: 1 on the tokens, 0 on the padding.
        expected: The B examples that training begins with, in order.
        end_id: The end-of-turn token.

    Raises:
        TrainingError: With the example and what is wrong.
    """
    if len(input_ids) != len(expected):
        raise TrainingError(f"the first batch holds {len(input_ids)} examples, expected {len(expected)}")
    for row_ids, row_labels, row_mask, example in zip(input_ids, labels, attention_mask, expected, strict=True):
        fault = _row_fault(row_ids, row_labels, row_mask, example, end_id)
        if fault is not None:
            raise TrainingError(
                f"loss mask of example {example.example_id}: {fault}; this is a fault in HEAL or in the "
                "installed TRL, not in the data"
            )


def _row_fault(
    row_ids: Sequence[int],
    row_labels: Sequence[int],
    row_mask: Sequence[int],
    example: TokenisedExample,
    end_id: int,
) -> str | None:
    num_tokens, num_padding = len(example.input_ids), len(row_ids) - len(example.input_ids)
    if num_padding < 0 or list(row_ids[:num_tokens]) != example.input_ids:
        return "the batch does not hold this example's tokens at its place, so the order or the text changed"
    if list(row_mask) != [1] * num_tokens + [0] * num_padding:
        return "the attention mask does not cover exactly its tokens"
    if all(label == IGNORED_LABEL for label in row_labels):
        return "no token carries loss"
    if row_labels[num_tokens - 1] != end_id:
        return f"the end-of-turn token {end_id} carries no loss, so that the student would not learn to stop"
    if list(row_labels) != example.labels + [IGNORED_LABEL] * num_padding:
        return "the loss does not cover exactly the response"
    return None


def build_report(
    tokenised: TokenisedExamples,
    order: Sequence[int],
    tokenizer: PreTrainedTokenizerBase,
    estimate: Estimate,
    *,
    max_length: int,
    num_optimizer_steps: int,
) -> PreflightReport:
    """Return the figures of a stage whose examples passed `check_examples`."""
    lengths = tokenised.lengths
    num_prompt_tokens = sum(example.num_prompt_tokens for example in tokenised.examples)
    num_shown = sum(lengths[position] for position in order)
    first = tokenised.examples[order[0]]
    return PreflightReport(
        num_examples=len(lengths),
        num_dropped_over_long=len(tokenised.over_long_ids),
        num_tokens=sum(lengths),
        longest_tokens=max(lengths),
        max_length_tokens=max_length,
        loss_share=1 - num_prompt_tokens / sum(lengths),
        num_exposures=len(order),
        num_exposed_tokens=num_shown,
        padding_share=max(0.0, 1 - num_shown / estimate.num_padded_tokens),
        num_optimizer_steps=num_optimizer_steps,
        **estimate.model_dump(exclude={"num_padded_tokens"}),
        first_example=DecodedExample(
            example_id=first.example_id,
            without_loss=str(tokenizer.decode(first.input_ids[: first.num_prompt_tokens])),
            with_loss=str(tokenizer.decode(first.input_ids[first.num_prompt_tokens :])),
        ),
    )


def describe(report: PreflightReport) -> str:
    """Return the figures of a report as a person reads them."""
    counts = (
        f"{report.num_examples:,} examples, {report.num_tokens:,} tokens ({report.loss_share:.0%} carry loss), "
        f"the longest {report.longest_tokens:,} of {report.max_length_tokens:,}; {report.num_dropped_over_long:,} "
        f"({_share(report.num_dropped_over_long, report.num_examples):.1%}) too long and dropped"
    )
    if report.num_unpaired_thinking:
        counts += f"; in {report.num_unpaired_thinking:,} {THINK} and {END_THINK} do not take turns"
    work = f"{report.num_optimizer_steps:,} optimizer steps, {report.num_exposed_tokens:,} tokens"
    if report.resumed_from_step:
        work = f"goes on after step {report.resumed_from_step:,} of {work}"
    if report.num_micro_batches is not None:
        work += f" in {report.num_micro_batches:,} passes, {report.padding_share:.1%} padding"
    if report.num_parameters and report.num_trained_parameters != report.num_parameters:
        work += f"; trains {report.num_trained_parameters:,} of {report.num_parameters:,} parameters"
    if report.expected_seconds is not None and report.expected_memory_mib is not None:
        work += f"; about {_duration(report.expected_seconds)} and {report.expected_memory_mib / 1024:.1f} GiB"
    return f"{counts}; {work} in {report.dtype}"


def describe_example(report: PreflightReport) -> str:
    """Return the first example with where its loss begins, on one line."""
    first = report.first_example
    return (
        f"first example {first.example_id[:12]}, without loss: {_shorten(first.without_loss)!r}; "
        f"with loss: {_shorten(first.with_loss)!r}"
    )


def _share(num_dropped: int, num_kept: int) -> float:
    return num_dropped / (num_dropped + num_kept)


def _duration(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )


def _shorten(text: str) -> str:
    half = _SHOWN_CHARS // 2
    return text if len(text) <= _SHOWN_CHARS else f"{text[:half]} ... {text[-half:]}"
