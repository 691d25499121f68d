from __future__ import annotations

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from heal_core.chat import encode_text, end_of_turn_id, render_prompt_ids, strip_opening
from heal_core.errors import ModelError

TEMPLATE = (
    "<s>{% for message in messages %}[{{ message['role'] }}]{{ message['content'] }}<end>{% endfor %}"
    "{% if add_generation_prompt %}[assistant]<think>{% endif %}"
)


def word_tokenizer(template: str | None, eos: str | None = "<eos>") -> PreTrainedTokenizerFast:
    specials = ["<s>", "<end>", "<eos>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    vocabulary = {token: i for i, token in enumerate([*specials, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    result = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token=eos, chat_template=template)
    result.add_special_tokens({"additional_special_tokens": ["<end>"]})
    return result


def test_prompt_is_one_user_turn_that_opens_the_answer() -> None:
    tokenizer = word_tokenizer(TEMPLATE)
    rendered = tokenizer.decode(render_prompt_ids(tokenizer, "2+2?"))
    # one <s>, written by the template; the opened <think> belongs to the prompt
    assert rendered == "<s>[user]2+2?<end>[assistant]<think>"


def test_prompt_without_a_template_is_the_plain_one() -> None:
    tokenizer = word_tokenizer(None)
    assert tokenizer.decode(render_prompt_ids(tokenizer, "{2}+2?")) == "Problem:\n{2}+2?\n\nSolution:\n"


def test_a_template_that_wants_a_system_turn_is_refused() -> None:
    template = "{% if messages[0]['role'] != 'system' %}{{ raise_exception('system first') }}{% endif %}"
    with pytest.raises(ModelError, match="system first"):
        render_prompt_ids(word_tokenizer(template), "2+2?")


def test_end_of_turn_is_what_the_template_writes_and_else_eos() -> None:
    assert end_of_turn_id(word_tokenizer(TEMPLATE)) == 1  # <end>, though EOS is <eos> = 2
    assert end_of_turn_id(word_tokenizer(None)) == 2
    no_end = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    assert end_of_turn_id(word_tokenizer(no_end)) == 2


def test_a_tokenizer_that_can_end_no_turn_is_refused() -> None:
    with pytest.raises(ModelError, match="eos_token"):
        end_of_turn_id(word_tokenizer(None, eos=None))


def test_encode_text_adds_no_special_token() -> None:
    tokenizer = word_tokenizer(TEMPLATE)
    assert len(encode_text(tokenizer, "ab")) == 2


@pytest.mark.parametrize(
    ("prompt_end", "answer", "left"),
    [
        ("[assistant]<think>\n", "<think>\nOkay</think>", "Okay</think>"),  # the space of the prompt goes too
        ("[assistant]<think>", "<think>\nOkay</think>", "\nOkay</think>"),  # here the model writes it
        ("[assistant]<think>\n", "<think>Okay</think>", "Okay</think>"),
        ("[assistant]<think>\n", "Okay</think>", "Okay</think>"),  # as vLLM gives it
        ("[assistant]", "<think>\nOkay</think>", "<think>\nOkay</think>"),  # the model opens it itself
        ("[user]what is <think> for?[assistant]", "<think>Okay", "<think>Okay"),
    ],
)
def test_an_opened_think_is_not_read_twice(prompt_end: str, answer: str, left: str) -> None:
    assert strip_opening(prompt_end, answer) == left
