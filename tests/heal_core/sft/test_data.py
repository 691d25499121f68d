from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from heal_core.chat import end_of_turn_id, render_prompt_ids
from heal_core.errors import TrainingError
from heal_core.sft.data import Example, read_examples, tokenise_examples, training_order

ROWS = [
    {"example_id": "a", "prompt": "1+1", "response": "2"},
    {"example_id": "b", "prompt": "p", "response": "r"},
]


def test_parquet_and_jsonl_give_the_same_examples_in_file_order(tmp_path: Path) -> None:
    pl.DataFrame(ROWS).with_columns(extra=1).write_parquet(tmp_path / "e.parquet")
    (tmp_path / "e.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    expected = [Example("a", "1+1", "2"), Example("b", "p", "r")]
    assert read_examples(tmp_path / "e.parquet") == read_examples(tmp_path / "e.jsonl") == expected


def test_files_that_cannot_be_trained_on_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="found nothing"):
        read_examples(tmp_path / "none.parquet")
    (tmp_path / "columns.jsonl").write_text('{"example_id": "a", "prompt": "p"}\n')
    with pytest.raises(TrainingError, match="response"):
        read_examples(tmp_path / "columns.jsonl")
    (tmp_path / "blank.jsonl").write_text('{"example_id": "a", "prompt": "p", "response": ""}\n')
    with pytest.raises(TrainingError, match="'a' has an empty"):
        read_examples(tmp_path / "blank.jsonl")
    (tmp_path / "nothing.jsonl").write_text("")
    assert read_examples(tmp_path / "nothing.jsonl") == []


def test_an_example_is_prompt_response_and_end_of_turn(tokenizer: PreTrainedTokenizerFast) -> None:
    (example,) = tokenise_examples([Example("a", "1+1", "two")], tokenizer, 100).examples
    assert tokenizer.decode(example.input_ids) == "<|user|>1+1<|end|><|assistant|>two<|end|>"
    assert example.input_ids[: example.num_prompt_tokens] == render_prompt_ids(tokenizer, "1+1")
    # 6 prompt tokens: <|user|>, three bytes, <|end|>, <|assistant|>
    assert example.labels == [-100] * 6 + example.input_ids[6:]


def test_without_a_template_the_example_ends_with_eos(plain_tokenizer: PreTrainedTokenizerFast) -> None:
    (example,) = tokenise_examples([Example("a", "1+1", "two")], plain_tokenizer, 100).examples
    assert plain_tokenizer.decode(example.input_ids) == "Problem:\n1+1\n\nSolution:\ntwo<|eos|>"


def test_too_long_examples_are_dropped_whole(tokenizer: PreTrainedTokenizerFast) -> None:
    # "1+1" renders to 6 tokens and "two" to 3, with the end of turn 10; "four" makes 11
    examples = [Example("fits", "1+1", "two"), Example("long", "1+1", "four")]
    tokenised = tokenise_examples(examples, tokenizer, 10)
    assert [(e.example_id, len(e.input_ids)) for e in tokenised.examples] == [("fits", 10)]
    assert tokenised.over_long_ids == ("long",)


@given(prompt=st.text(max_size=20), response=st.text(min_size=1, max_size=20))
def test_the_loss_covers_exactly_response_and_end_of_turn(
    tokenizer: PreTrainedTokenizerFast, prompt: str, response: str
) -> None:
    (example,) = tokenise_examples([Example("a", prompt, response)], tokenizer, 10_000).examples
    learnt = [label for label in example.labels if label != -100]
    assert learnt[-1] == end_of_turn_id(tokenizer)
    assert tokenizer.decode(learnt[:-1]) == response
    assert len(example.labels) == len(example.input_ids)


@given(num_examples=st.integers(1, 12), num_exposures=st.integers(1, 60), seed=st.integers(0, 5))
def test_every_epoch_shows_every_example_once(num_examples: int, num_exposures: int, seed: int) -> None:
    ids = [str(i) for i in range(num_examples)]
    order = training_order(ids, num_exposures, seed)
    assert len(order) == num_exposures
    assert order[:num_examples] == list(range(min(num_examples, num_exposures)))
    for start in range(0, num_exposures - num_examples + 1, num_examples):
        assert sorted(order[start : start + num_examples]) == list(range(num_examples))


def test_later_epochs_are_shuffled_by_the_seed_alone() -> None:
    ids = [str(i) for i in range(20)]
    order = training_order(ids, 60, seed=0)
    assert order == training_order(ids, 60, seed=0)
    assert order[20:40] != order[:20]
    assert order[40:] != order[20:40]
    assert training_order(ids, 60, seed=1)[20:] != order[20:]


def test_examples_with_one_id_are_each_shown() -> None:
    assert sorted(training_order(["same", "same"], 4, 0)[2:]) == [0, 1]


def test_no_example_is_an_error() -> None:
    with pytest.raises(TrainingError, match="at least one"):
        training_order([], 8, 0)
