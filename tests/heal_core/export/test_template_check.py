"""Real templates of reasoning models over the lab's tokenizer: what each does to a response, and whether it is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from heal_core.export.examples import TracedExample
from heal_core.export.template_check import REASONING_LOST, REFUSED, TEXT_CHANGED, TOKENS_DIFFER, TemplateCheck

MakeExample = Callable[..., TracedExample]

THOUGHT = "1 and 1 are 2.\n</think>\n\nSo \\boxed{2}"


def check_one(tokenizer: Any, example: TracedExample, layout: str = "messages") -> TemplateCheck:
    check = TemplateCheck(tokenizer, "student", layout)  # type: ignore[arg-type]
    check.note(example)
    return check


def test_a_template_that_says_what_it_is_given_gives_the_tokens_back(
    new_tokenizer: Callable[..., Any], make_example: MakeExample
) -> None:
    tokenizer = new_tokenizer()
    report = check_one(tokenizer, make_example("  So \\boxed{2}\n")).report
    assert (report.num_same, dict(report.faults), report.opening) == (1, {}, "")
    trained = "<|user|>1 + 1?<|end|><|assistant|>  So \\boxed{2}\n<|end|>"
    assert report.longest_tokens == len(tokenizer(trained)["input_ids"])


def test_deepseek_r1_drops_the_reasoning_and_its_prompt_opens_it(
    published: Callable[[str], Any], make_example: MakeExample
) -> None:
    tokenizer, example = published("deepseek_r1_distill"), make_example(THOUGHT)
    check = check_one(tokenizer, example)
    assert check.report.opening == "<think>\n"
    assert dict(check.report.faults) == {REASONING_LOST: 1}
    assert (check.report.num_losing, check.report.named) == (1, {REASONING_LOST: ["t0"]})
    assert check.complete(example).response == "<think>\n" + THOUGHT
    # TRL's own variant of it, which it takes with assistant_only_loss, keeps the reasoning
    training = published("deepseek_r1_distill_training")
    assert check_one(training, example).report.num_same == 1


def test_qwen3_writes_an_empty_thought_where_there_was_none(
    published: Callable[[str], Any], make_example: MakeExample
) -> None:
    tokenizer = published("qwen3")
    assert check_one(tokenizer, make_example("So \\boxed{2}")).report.faults == {TEXT_CHANGED: 1}
    thought = make_example("<think>\n1 and 1 are 2.\n</think>\n\nSo \\boxed{2}")
    assert check_one(tokenizer, thought).report.num_same == 1
    blanks = make_example("<think>1 and 1 are 2.</think>So \\boxed{2}")  # it sets its own line breaks
    assert check_one(tokenizer, blanks).report.faults == {TEXT_CHANGED: 1}


def test_a_template_that_trims_is_told(new_tokenizer: Callable[..., Any], make_example: MakeExample) -> None:
    template = new_tokenizer().chat_template.replace("message['content']", "message['content'] | trim")
    assert check_one(new_tokenizer(template), make_example("So \\boxed{2}\n")).report.faults == {TEXT_CHANGED: 1}
    assert check_one(new_tokenizer(template), make_example("So \\boxed{2}")).report.num_same == 1


def test_tokens_that_meet_otherwise_are_not_called_lost(
    new_tokenizer: Callable[..., Any], make_example: MakeExample
) -> None:
    tokenizer = new_tokenizer()
    template = tokenizer.chat_template.replace("<|assistant|>", "<|assistant|>\n")
    report = check_one(new_tokenizer(template), make_example("\nSo \\boxed{2}")).report
    separate = len(tokenizer("\n")["input_ids"]) * 2
    assert len(tokenizer("\n\n")["input_ids"]) < separate, "the tokenizer joins two line breaks"
    assert dict(report.faults) == {TOKENS_DIFFER: 1}
    assert report.num_losing == 0


def test_without_a_template_only_text_can_be_exported(
    new_tokenizer: Callable[..., Any], make_example: MakeExample
) -> None:
    tokenizer, example = new_tokenizer(None), make_example()
    assert check_one(tokenizer, example).report.faults == {REFUSED: 1}
    check = check_one(tokenizer, example, "text")
    assert check.report.num_same == 1
    row = check.as_text(example)
    assert row["prompt"] == "Problem:\n1 + 1?\n\nSolution:\n"
    assert row["completion"] == "So it is \\boxed{2}<|end|>"


@pytest.mark.parametrize("name", ["deepseek_r1_distill", "qwen3", "llama3"])
def test_text_is_what_heal_trains_on_under_any_template(
    published: Callable[[str], Any], make_example: MakeExample, name: str
) -> None:
    tokenizer = published(name)
    for response in (THOUGHT, "<think>1 and 1</think>So \\boxed{2}", " So \\boxed{2} "):
        example = make_example(response)
        check = check_one(tokenizer, example, "text")
        assert check.report.num_same == 1, (response, check.report)
        row = check.as_text(example)
        # one opening of the reasoning is enough, in the prompt or here
        assert response.removeprefix("<think>") in row["completion"] and "1 + 1?" in row["prompt"]


def test_a_begin_token_is_not_written_twice(new_tokenizer: Callable[..., Any], make_example: MakeExample) -> None:
    from tokenizers.processors import TemplateProcessing

    tokenizer = new_tokenizer("<|user|>" + new_tokenizer().chat_template)
    tokenizer.bos_token = "<|user|>"
    begin = [("<|user|>", tokenizer.bos_token_id)]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<|user|> $A", special_tokens=begin)
    check = check_one(tokenizer, make_example(), "text")
    assert check.report.num_same == 1
    assert check.as_text(make_example())["prompt"].count("<|user|>") == 1  # the template has two
