"""How a user turn becomes token ids: the one rendering that training and engines share.

Prompt texts are written in `prompts`; this module only puts one into the model's
own chat template, so that a student is trained on exactly what it is asked later.
Tokenizers are passed in: nothing here loads a model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from heal_core.errors import ModelError, RequestError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PLAIN_TEMPLATE = "Problem:\n{x}\n\nSolution:\n"
"""The prompt of a tokenizer without a chat template. Source: definition D2 (docs/method.md)."""

THINK, END_THINK = "<think>", "</think>"
_ANSWER_PROBE = "hello"
_PROMPT_PROBE = "What is 7351?"


def render_prompt_ids(tokenizer: PreTrainedTokenizerBase, prompt: str) -> list[int]:
    """Return the token ids after which the model's answer begins.

    With a chat template, `prompt` is its one user turn and the answer's opening is
    included (an opened `<think>` too); without one, `PLAIN_TEMPLATE` is used.

    Raises:
        RequestError: If the chat template refuses a single user turn.

    Source: definition D2 (docs/method.md).
    """
    if tokenizer.chat_template is None:
        token_ids = list(tokenizer.encode(PLAIN_TEMPLATE.format_map({"x": prompt})))
        # Some tokenizers append EOS to whatever they encode; the answer must follow the prompt.
        return token_ids[:-1] if token_ids and token_ids[-1] == tokenizer.eos_token_id else token_ids
    rendered = _render(tokenizer, [{"role": "user", "content": prompt}], add_generation_prompt=True)
    # The template writes its own special tokens, so that adding them here would double the BOS.
    return list(tokenizer.encode(rendered, add_special_tokens=False))


def check_template(tokenizer: PreTrainedTokenizerBase) -> None:
    """Check that a chat template, if there is one, keeps what the user says.

    Raises:
        RequestError: If it does not, so that a student would learn answers to nothing.
    """
    if tokenizer.chat_template is None:
        return
    rendered = _render(tokenizer, [{"role": "user", "content": _PROMPT_PROBE}], add_generation_prompt=True)
    if _PROMPT_PROBE not in rendered:
        raise RequestError(
            f"{tokenizer.name_or_path}: its chat template leaves out what the user says: of {_PROMPT_PROBE!r} it makes "
            f"{rendered[:200]!r}. Mend chat_template.jinja, or take another student"
        )


def _render(
    tokenizer: PreTrainedTokenizerBase, turns: list[dict[str, str]], *, add_generation_prompt: bool = False
) -> str:
    import jinja2  # heavy, and needed only where transformers is loaded already

    try:
        return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=add_generation_prompt))
    except jinja2.TemplateError as error:
        roles = " and ".join(turn["role"] for turn in turns)
        raise RequestError(
            f"{tokenizer.name_or_path}: its chat template refuses a turn of {roles} alone: {error}"
        ) from error


def strip_opening(prompt_end: str, answer: str) -> str:
    """Return an answer without the `<think>` that its prompt already ends in, as some templates have it.

    A text that a server or a data set gives may repeat it; the blank space that the prompt has after it goes too.

    Args:
        prompt_end: The end of the rendered prompt, as text.
        answer: A whole answer, as it was written down.
    """
    space = prompt_end.rpartition(THINK)[2]
    begun = answer.lstrip()
    if not opens_thinking(prompt_end) or not begun.startswith(THINK):
        return answer
    rest = begun.removeprefix(THINK)
    return rest.removeprefix(space) if rest.startswith(space) else rest.lstrip("\n")


def fit_opening(prompt_end: str, answer: str) -> str:
    """Return an answer that opens `<think>` exactly where its prompt does not: a student's template may differ.

    A teacher whose template opens it writes texts that only close it.

    Args:
        prompt_end: The end of the rendered prompt, as text.
        answer: A whole answer, as another model wrote it.
    """
    if opens_thinking(prompt_end):
        return strip_opening(prompt_end, answer)
    head, closed, _ = answer.partition(END_THINK)
    return f"{THINK}\n{answer.lstrip()}" if closed and THINK not in head else answer


def opens_thinking(prompt_end: str) -> bool:
    """Return whether a prompt ends in an opened `<think>`, as some templates have it."""
    _, think, space = prompt_end.rpartition(THINK)
    return bool(think) and not space.strip()


def encode_text(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Return the token ids of a piece of an answer, encoded alone and without special tokens."""
    return list(tokenizer.encode(text, add_special_tokens=False))


def end_of_turn_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the token that ends an answer: the first special one that the template puts after it, else EOS.

    They differ in base models that ship a chat template (`<|im_end|>` against `<|endoftext|>`).

    Raises:
        ModelError: If the template ends no turn and the tokenizer has no EOS token.
    """
    if tokenizer.chat_template is not None:
        turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": _ANSWER_PROBE}]
        rendered = _render(tokenizer, turns)
        after = encode_text(tokenizer, rendered.rpartition(_ANSWER_PROBE)[2])
        special = set(tokenizer.all_special_ids)
        for token_id in after:
            if token_id in special:
                return token_id
    if tokenizer.eos_token_id is None:
        raise ModelError(
            f"{tokenizer.name_or_path}: no token ends a turn (no EOS token, and the chat template adds "
            "none); set eos_token in tokenizer_config.json"
        )
    return int(tokenizer.eos_token_id)
