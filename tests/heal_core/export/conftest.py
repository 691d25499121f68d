"""The lab's tokenizer under any chat template, and examples as the store gives them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from heal_core.export.examples import TracedExample

STUDENT = Path(__file__).parents[3] / "deployments/lab/student"


@pytest.fixture(scope="session")
def new_tokenizer() -> Callable[..., Any]:
    """Return a function that loads the tokenizer, with another template if one is given."""
    from transformers import AutoTokenizer

    def load(*chat_template: str | None) -> Any:
        tokenizer = AutoTokenizer.from_pretrained(STUDENT, local_files_only=True)
        if chat_template:
            (tokenizer.chat_template,) = chat_template
        return tokenizer

    return load


SPECIAL_TOKENS = {
    "deepseek_r1_distill": ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", ["<｜User｜>", "<｜Assistant｜>"]),
    "qwen3": ("<|endoftext|>", "<|im_end|>", ["<|im_start|>"]),
    "llama3": ("<|begin_of_text|>", "<|eot_id|>", ["<|start_header_id|>", "<|end_header_id|>"]),
}
"""Of published models: what begins a text, what ends a turn, and what else its chat template writes."""


@pytest.fixture(scope="session")
def published(new_tokenizer: Callable[..., Any]) -> Callable[[str], Any]:
    """Return a function that gives the tokenizer a published model's chat template, of those that TRL ships."""
    import trl

    folder = Path(trl.__file__).parent / "chat_templates"

    def load(name: str) -> Any:
        begin, end, others = SPECIAL_TOKENS[name.removesuffix("_training")]
        tokenizer = new_tokenizer((folder / f"{name}.jinja").read_text(encoding="utf-8"))
        tokenizer.add_special_tokens({"bos_token": begin, "eos_token": end, "additional_special_tokens": others})
        return tokenizer

    return load


@pytest.fixture
def make_example() -> Callable[..., TracedExample]:
    def build(response: str = "So it is \\boxed{2}", prompt: str = "1 + 1?", name: str = "t0") -> TracedExample:
        return TracedExample(name, "p0", prompt, response, "heal", "III", "rollout", "easy")

    return build


@pytest.fixture
def lab_student() -> Path:
    return STUDENT
