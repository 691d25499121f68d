"""Training examples as token ids with a completion mask, in the exact order of training.

Order is decided here and nowhere else: the trainer reads sequentially and never
shuffles, truncates or packs. What does not belong here: which examples a stage holds
(`curriculum`), and whether they may be trained on (`preflight`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from heal_core.chat import check_template, encode_text, end_of_turn_id, fit_opening, render_prompt_ids
from heal_core.errors import TrainingError
from heal_core.keys import content_key

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORED_LABEL = -100
PROMPT_END_TOKENS = 8
"""Tokens at the end of a prompt that hold an opened `<think>`, if there is one."""

COLUMNS = ("example_id", "prompt", "response")


@dataclass(frozen=True)
class Example:
    """One prompt and the response to learn."""

    example_id: str
    prompt: str
    response: str


@dataclass(frozen=True)
class TokenisedExample:
    """An example as the model sees it; the first `num_prompt_tokens` carry no loss.

    `position` is its place among all examples of the stage, from 0, those that are too long included.
    """

    example_id: str
    input_ids: list[int]
    num_prompt_tokens: int
    position: int = 0

    @property
    def labels(self) -> list[int]:
        """Return the token to learn at each position, -100 on the prompt."""
        return [IGNORED_LABEL] * self.num_prompt_tokens + self.input_ids[self.num_prompt_tokens :]


@dataclass(frozen=True)
class TokenisedExamples:
    """The examples of a stage that fit, and the ids of those that were too long.

    `known_lengths` are the tokens of each that fits, where they are known without reading them.
    """

    examples: Sequence[TokenisedExample]
    over_long_ids: tuple[str, ...]
    known_lengths: Sequence[int] | None = None

    @cached_property
    def lengths(self) -> Sequence[int]:
        """Return the tokens of each example that fits."""
        return self.known_lengths or [len(example.input_ids) for example in self.examples]


def read_examples(path: Path) -> list[Example]:
    """Return the examples of a Parquet or JSONL file, in file order.

    Raises:
        TrainingError: If the file is missing, lacks a column, or has an empty cell.
    """
    if not path.is_file():
        raise TrainingError(f"training examples: expected a Parquet or JSONL file, found nothing at {path}")
    frame = pl.read_parquet(path) if path.suffix == ".parquet" else _read_jsonl(path)
    missing = [name for name in COLUMNS if name not in frame.columns]
    if missing:
        raise TrainingError(f"{path}: columns {missing} are missing; found {frame.columns}, needed {list(COLUMNS)}")
    examples = [Example(*row) for row in frame.select(COLUMNS).iter_rows()]
    for example in examples:
        if not (example.example_id and example.prompt and example.response):
            raise TrainingError(
                f"{path}: example {example.example_id!r} has an empty id, prompt or response; remove it"
            )
    return examples


def _read_jsonl(path: Path) -> pl.DataFrame:
    schema = dict.fromkeys(COLUMNS, pl.String)
    return pl.read_ndjson(path) if path.stat().st_size else pl.DataFrame(schema=schema)


def tokenise_examples(
    examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase, max_length: int
) -> TokenisedExamples:
    """Return prompt, response and end-of-turn token of each example that fits `max_length` tokens.

    A longer example is dropped and named, never cut: half a solution teaches to stop in the middle.

    Source: METHOD section 5 (docs/method.md).
    """
    kept: list[TokenisedExample] = []
    over_long = []
    for example, tokenised in zip(examples, tokenise(examples, tokenizer, max_length), strict=True):
        if tokenised is None:
            over_long.append(example.example_id)
        else:
            kept.append(tokenised)
    return TokenisedExamples(kept, tuple(over_long))


def tokenise(
    examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase, max_length: int
) -> Iterator[TokenisedExample | None]:
    """Yield each example as tokens, None for one that has more than `max_length`.

    A response opens `<think>` where the student's template does not, whatever the teacher's did.
    """
    check_template(tokenizer)
    end_id = end_of_turn_id(tokenizer)
    for position, example in enumerate(examples):
        prompt_ids = render_prompt_ids(tokenizer, example.prompt)
        prompt_end = str(tokenizer.decode(prompt_ids[-PROMPT_END_TOKENS:]))
        response = fit_opening(prompt_end, example.response)
        input_ids = [*prompt_ids, *encode_text(tokenizer, response), end_id]
        fits = len(input_ids) <= max_length
        yield TokenisedExample(example.example_id, input_ids, len(prompt_ids), position) if fits else None


def training_order(example_ids: Sequence[str], num_exposures: int, seed: int) -> list[int]:
    """Return the position of the example shown at each exposure, shape [num_exposures].

    The first epoch keeps the given order; each later one is sorted by a hash of seed, epoch
    and example id, a shuffle that no library version can change. The last epoch may be cut.

    Raises:
        TrainingError: If there is no example to show.
    """
    if not example_ids:
        raise TrainingError("a stage of SFT needs at least one example, found none")
    order: list[int] = []
    epoch = 0
    while len(order) < num_exposures:
        order += _epoch_order(example_ids, epoch, seed)
        epoch += 1
    return order[:num_exposures]


def _epoch_order(example_ids: Sequence[str], epoch: int, seed: int) -> list[int]:
    positions = list(range(len(example_ids)))
    if epoch == 0:
        return positions
    return sorted(positions, key=lambda i: (content_key("epoch", seed, epoch, example_ids[i]), i))
