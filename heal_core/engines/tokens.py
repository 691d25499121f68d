"""A model's side that is made of tokens: prompts, ends of a turn, what fits. The weights may be anywhere.

transformers is imported inside functions. What does not belong here: the model itself (`loading`, `remote`),
and characters (`detokenize`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from heal_core.chat import end_of_turn_id, render_prompt_ids
from heal_core.engines.base import EngineConfig, EngineDescription
from heal_core.errors import ModelError, RequestError


@dataclass(frozen=True)
class ModelTokens:
    """The tokenizer that speaks for a model.

    Attributes:
        tokenizer: Of transformers.
        description: What the engine says of the model.
        eos_ids: Tokens that end a turn, at least one.
    """

    tokenizer: Any
    description: EngineDescription
    eos_ids: frozenset[int]

    def prompt_ids(self, prompt: str) -> list[int]:
        """Return the tokens of one user turn, up to where the answer begins. Source: definition D2.

        Raises:
            RequestError: If the chat template refuses a single user turn.
        """
        try:
            return render_prompt_ids(self.tokenizer, prompt)
        except TemplateError as error:
            raise RequestError(
                f"{self.description.model_name_or_path}: its chat template refuses a user turn alone: {error}"
            ) from error

    def check_length(self, row_id: str, ids: Sequence[int], num_more_tokens: int, remedy: str) -> None:
        """Check that a row fits the model.

        Raises:
            RequestError: If it is longer than the context, or holds a token that the vocabulary lacks.
        """
        name, context = self.description.model_name_or_path, self.description.context_tokens
        excess = len(ids) + num_more_tokens - context
        if excess > 0:
            raise RequestError(
                f"{name}: {row_id} needs {len(ids)} + {num_more_tokens} tokens, {excess} more than "
                f"the context of {context}; {remedy}"
            )
        if not ids or max(ids) >= self.description.vocabulary_size or min(ids) < 0:
            raise RequestError(
                f"{name}: {row_id} expected tokens 0..{self.description.vocabulary_size - 1}, found "
                f"{f'{min(ids)}..{max(ids)}' if ids else 'none'}; token ids must come from this model"
            )


def load_tokenizer(config: EngineConfig, folder: Path) -> Any:
    """Return the tokenizer in a model's folder.

    Raises:
        ModelError: If there is none, or it cannot be loaded.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=config.trust_remote_code, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        raise ModelError(f"{config.model_name_or_path}: its tokenizer cannot be loaded: {first_line(error)}") from error


def end_ids(tokenizer: Any, *told: int | list[int] | None) -> frozenset[int]:
    """Return every token that ends an answer: those of the model's files and that of the chat template.

    Args:
        tokenizer: The model's.
        told: `eos_token_id` of its config and generation config, each a number, a list or None.

    Raises:
        ModelError: If nothing ends a turn, or the chat template cannot be used.
    """
    found: set[int] = set()
    for value in (*told, tokenizer.eos_token_id):
        found.update(value if isinstance(value, list) else [] if value is None else [value])
    if tokenizer.chat_template is not None or not found:
        try:
            found.add(end_of_turn_id(tokenizer))
        except TemplateError as error:
            raise ModelError(f"{tokenizer.name_or_path}: its chat template cannot be used: {error}") from error
    return frozenset(found)


def template_digest(template: str | dict[str, str] | None) -> str:
    """Return the SHA-256 of a chat template, "none" without one."""
    return "none" if template is None else hashlib.sha256(json.dumps(template).encode()).hexdigest()


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message that says something."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
