import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from heal_core.engines.detokenize import detokenize


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token per byte, so that every character beyond ASCII is split."""
    vocabulary = {char: index for index, char in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>")
    fast.add_special_tokens({"additional_special_tokens": ["<think>"]})
    return fast


def metaspace_tokenizer() -> PreTrainedTokenizerFast:
    """Words with a space mark, as SentencePiece models have; decoding drops the first space."""
    vocabulary = {"<unk>": 0, "▁the": 1, "▁sum": 2, "▁is": 3, "s": 4}
    tokenizer = Tokenizer(models.WordLevel(vocab=vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


BYTES = byte_tokenizer()
SPACES = metaspace_tokenizer()


def encode(text: str) -> list[int]:
    return list(BYTES(text, add_special_tokens=False).input_ids)


def test_a_character_split_over_tokens_begins_at_its_first() -> None:
    # a = 1 byte at 0; the emoji = 4 bytes, all at 1; é = 2 bytes at 2; b = 1 byte at 3
    text, starts = detokenize(BYTES, encode("a😀éb"))
    assert text == "a😀éb"
    assert starts.tolist() == [0, 1, 1, 1, 1, 2, 2, 3]


def test_no_tokens_no_text() -> None:
    text, starts = detokenize(BYTES, [], encode("prefix"))
    assert (text, starts.shape) == ("", (0,))


def test_a_real_replacement_character_is_a_character() -> None:
    # written by the model, not by a decoder that met half a character: x stands behind it, not at it
    text, starts = detokenize(BYTES, encode("\ufffdx"))
    assert text == "\ufffdx"
    assert (starts[0], starts[3]) == (0, 1)


def test_an_unfinished_character_stays_visible() -> None:
    text, starts = detokenize(BYTES, encode("ab😀")[:-2])
    assert text == "ab\ufffd"
    assert starts.tolist() == [0, 1, 2, 2]


def test_special_tokens_stay_in_the_text() -> None:
    ids = [*encode("a"), BYTES.convert_tokens_to_ids("<think>"), *encode("b")]
    text, starts = detokenize(BYTES, ids)
    assert text == "a<think>b"
    assert starts.tolist() == [0, 1, 8]


@pytest.mark.parametrize(("context", "expected"), [([], "the sum"), ([3], " the sum")])
def test_a_continuation_keeps_its_leading_space(context: list[int], expected: str) -> None:
    text, starts = detokenize(SPACES, [1, 2], context)
    assert text == expected
    assert starts.tolist() == [0, len(expected) - len(" sum")]


@settings(deadline=None, max_examples=60)
@given(st.text(st.characters(codec="utf-8", exclude_characters="\ufffd"), max_size=60), st.text(max_size=20))
def test_tokens_account_for_every_character(text: str, context: str) -> None:
    ids = encode(text)
    decoded, starts = detokenize(BYTES, ids, encode(context))
    assert decoded == text
    # independent of the code: the character that holds the byte at which a token begins
    char_of_byte = [index for index, char in enumerate(text) for _ in char.encode()]
    assert starts.tolist() == char_of_byte


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 255), max_size=60))
def test_bytes_that_are_no_text_are_decoded_as_the_tokenizer_does(ids: list[int]) -> None:
    text, starts = detokenize(BYTES, ids)
    assert text == BYTES.decode(ids)
    assert starts.shape == (len(ids),)
    assert (np.diff(starts) >= 0).all()
    assert all(0 <= start <= len(text) for start in starts)
