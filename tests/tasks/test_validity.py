"""A teacher that cannot write a line break is told of, before malformed texts are built from its answers."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest

from heal_core.engines.base import UnreadableText
from heal_core.errors import ModelError
from heal_core.reference import Reference
from heal_core.repair import BrokenPath
from heal_core.steps import StepsConfig
from heal_core.validity.shortcuts import Continuation
from heal_core.validity.tokens import Tokens
from tasks.validity import find_teachers_break


def continuation(*words: str) -> Continuation:
    starts = np.cumsum([0, *(len(word) for word in words[:-1])])
    tokens = Tokens("".join(words), np.arange(len(words)), starts)
    return Continuation("t", BrokenPath("w", "p", "How many?", Reference("7"), "", (), "?"), tokens, StepsConfig())


def session(*answers: UnreadableText) -> SimpleNamespace:
    """Return what the function uses of a session; without answers the engine must not be asked."""
    teacher = SimpleNamespace(model_name_or_path="teacher")
    engine = SimpleNamespace(read=lambda given: iter(answers))
    return SimpleNamespace(teacher=teacher, engine=lambda model: engine, engine_lock=nullcontext())


def test_a_break_in_a_text_of_the_teacher_is_taken() -> None:
    found = find_teachers_break(session(), [continuation("3 + 4", " =", " 7.", "\n\n", "Done.")])  # type: ignore[arg-type]
    assert (found.text, found.token_ids.tolist()) == ("\n\n", [3])


def test_a_teacher_without_one_is_refused() -> None:
    unreadable = UnreadableText("line break", "no_tokens")
    with pytest.raises(ModelError, match=r"teacher: its tokenizer has no line break .*no_tokens.* set pure.score to"):
        find_teachers_break(session(unreadable), [continuation("3 + 4", " = 7.\n\n", "Done.")])  # type: ignore[arg-type]


def test_without_natural_texts_nothing_is_needed() -> None:
    assert find_teachers_break(session(), []).text == ""  # type: ignore[arg-type]
