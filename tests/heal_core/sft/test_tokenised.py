from __future__ import annotations

from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from heal_core.sft import tokenised
from heal_core.sft.data import Example, tokenise_examples
from heal_core.sft.tokenised import tokenise_cached, tokenised_key

EXAMPLES = [Example("a", "1+1", "two"), Example("long", "p", "1" * 50), Example("b", "2+2", "four")]


def test_they_are_what_tokenising_gives(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    expected = tokenise_examples(EXAMPLES, tokenizer, 20)
    examples, over_long = tokenise_cached(EXAMPLES, tokenizer, 20, tmp_path)
    assert list(examples) == list(expected.examples) and over_long == expected.over_long_ids == ("long",)
    assert [example.position for example in examples] == [0, 2]
    assert examples[-1] == expected.examples[-1] and list(examples[:1]) == list(expected.examples[:1])


def test_nothing_is_tokenised_twice(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = tokenise_cached(EXAMPLES, tokenizer, 20, tmp_path)

    def refuse(*args: object) -> None:
        raise AssertionError("tokenised again")

    monkeypatch.setattr(tokenised, "tokenise", refuse)
    again, over_long = tokenise_cached(EXAMPLES, tokenizer, 20, tmp_path)
    assert list(again) == list(first) and over_long == ("long",)
    with pytest.raises(AssertionError, match="again"):
        tokenise_cached(EXAMPLES, tokenizer, 21, tmp_path)


def test_a_file_that_was_begun_is_not_taken(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    path = tmp_path / f"{tokenised_key(EXAMPLES, tokenizer, 20)}.arrow"
    path.with_name(path.name + ".tmp").write_bytes(b"begun, and killed")
    examples, _ = tokenise_cached(EXAMPLES, tokenizer, 20, tmp_path)
    assert [example.example_id for example in examples] == ["a", "b"]


def test_the_key_holds_texts_order_template_and_length(
    tokenizer: PreTrainedTokenizerFast, plain_tokenizer: PreTrainedTokenizerFast
) -> None:
    key = tokenised_key(EXAMPLES, tokenizer, 20)
    others = [
        tokenised_key(EXAMPLES[::-1], tokenizer, 20),
        tokenised_key([Example("a", "1+1t", "wo"), *EXAMPLES[1:]], tokenizer, 20),
        tokenised_key(EXAMPLES, plain_tokenizer, 20),
        tokenised_key(EXAMPLES, tokenizer, 19),
    ]
    assert len({key, *others}) == 5
    assert key == tokenised_key(list(EXAMPLES), tokenizer, 20)


def test_more_rows_than_are_written_at_once_keep_their_places(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenised, "_ROWS_AT_ONCE", 2)
    many = [Example(f"e{i}", "p", "x" * (1 + i % 4)) for i in range(7)]
    examples, over_long = tokenise_cached(many, tokenizer, 8, tmp_path)
    # "p" renders to 4 tokens; with the end of turn, 4 characters make 9
    assert over_long == ("e3",)
    assert [(e.example_id, e.position, len(e.input_ids)) for e in examples] == [
        (f"e{i}", i, 5 + 1 + i % 4) for i in range(7) if i != 3
    ]
