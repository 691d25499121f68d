"""The reference a* of a problem, by its type: how it may be written, where a text states it, how it is told.

The one place where hints, gates and scores learn what a problem is compared with. What does not belong
here: whether a whole text is right (`verify`), the texts of prompts (`prompts`).
Source: METHOD section 9 (docs/method.md).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from heal_core.answers import MAX_FORMS, find_assertions, find_leak, surface_forms
from heal_core.prompts import BOXED, CHOICE, OUTPUTS, PROGRAM, Wording
from heal_core.specs import AnswerSpec, ChoiceSpec, read_spec

LEAK_WORDS = 8
"""So many consecutive words or signs of a program in a hint give a part of it away."""

_MAX_UNIT_CHARS = 80
"""So long may the rest of the sentence be behind a boxed answer: its unit, or what it is a number of."""

_FENCE = re.compile(r"^[ \t]*```.*$", re.MULTILINE)
_CODE_WORD = re.compile(r"\w+|[^\w\s]")
_BOX = re.compile(r"\\f?boxed\s*\{(?!\s*\})")  # "within \boxed{}" is the instruction, not an answer


@dataclass(frozen=True)
class Reference:
    """What is compared is a value that stands in a box: the types math, numeric, exact, choice and reasoning_gym.

    Attributes:
        answer: a* as it is stored.
        problem_type: One of `verify.grade.PROBLEM_TYPES`.
        spec: What the type needs beyond it (`specs`).
    """

    answer: str
    problem_type: str = "math"
    spec: str = ""

    @property
    def wording(self) -> Wording:
        """What the prompts say."""
        return CHOICE if self.problem_type == "choice" else BOXED

    @property
    def forms(self) -> tuple[str, ...]:
        """Up to three ways to write it, the stored one first; of a choice its letter and the option's text."""
        return self.all_forms[:MAX_FORMS]

    @cached_property
    def all_forms(self) -> tuple[str, ...]:
        """All ways by which a text would state it: every other accepted answer too."""
        if self.problem_type == "choice":
            option = read_spec(ChoiceSpec, self.spec).options[self.answer]
            return tuple(dict.fromkeys([self.answer, f"({self.answer})", option]))
        if self.problem_type in ("math", "numeric", "exact") and self.spec:
            others = read_spec(AnswerSpec, self.spec).accepted
            forms = [self.answer.strip(), *map(str.strip, others), *surface_forms(self.answer)]
            return tuple(dict.fromkeys(form for form in forms if form))
        return surface_forms(self.answer)

    @property
    def told(self) -> str:
        """It, as the writer of a hint or of a guided solution is told."""
        return self.forms[0] if self.problem_type != "choice" else f"{self.forms[0]} ({self.forms[-1]})"

    def find_assertions(self, text: str) -> tuple[int, ...]:
        """Return the character offsets at which the text asserts it, ascending. Source: gates G1, G3, definition D7."""
        return find_assertions(text, self.all_forms)

    def find_leak(self, hint: str, question: str) -> int | None:
        """Return where a hint first gives it away, None where it does not. Source: gate G1."""
        return find_leak(hint, self.all_forms)

    @property
    def statement(self) -> str | None:
        """The shortest text that gives it as its answer; None where no text could be right for certain."""
        return f"\\boxed{{{self.answer}}}"

    def find_open_end(self, text: str) -> str | None:
        """Return why the answer part of a text does not end in the one statement of an answer. Source: gate G10."""
        boxes = list(_BOX.finditer(text))
        if len(boxes) != 1:
            return f"{len(boxes)} boxed answers after the reasoning, expected 1"
        end = _closing_brace(text, boxes[0].end())
        if end is None:
            return "the boxed answer is not closed"
        sentence, *more = re.split(r"(?<=[.!?])\s+|\n", text[end + 1 :].strip(), maxsplit=1)
        if len(sentence) > _MAX_UNIT_CHARS or re.search(r"[0-9=]", sentence):
            more = [sentence, *more]
        if any(character.isalnum() for part in more for character in part):
            return f"goes on after the boxed answer: {' '.join(text[end + 1 :][:50].split())!r}"
        return None


@dataclass(frozen=True)
class CodeReference(Reference):
    """What is compared is a program: a* is the reference solution, or where there is none what its tests expect."""

    problem_type: str = "code"

    @cached_property
    def is_solution(self) -> bool:
        """Whether a* is a program; `reference` in the spec says so."""
        return bool((json.loads(self.spec) if self.spec else {}).get("reference", "solution") == "solution")

    @property
    def wording(self) -> Wording:
        return PROGRAM if self.is_solution else OUTPUTS

    @cached_property
    def all_forms(self) -> tuple[str, ...]:
        return (self.answer.strip(),)

    def find_assertions(self, text: str) -> tuple[int, ...]:
        """Return where the text opens code blocks: the first one is where it asserts a program."""
        return tuple(fence.start() for fence in list(_FENCE.finditer(text))[::2])

    def find_leak(self, hint: str, question: str) -> int | None:
        """Return where a hint has eight words or signs in a row that the reference has and the question has not.

        A solution of fewer is given away as a whole.
        """
        num_words = min(LEAK_WORDS, len(_CODE_WORD.findall(self.answer))) if self.is_solution else LEAK_WORDS
        reveals = _grams(self.answer, num_words) - _grams(question, num_words)
        words = list(_CODE_WORD.finditer(hint))
        for first in range(len(words) - num_words + 1):
            if tuple(word[0] for word in words[first : first + num_words]) in reveals:
                return words[first].start()
        return None

    @property
    def statement(self) -> str | None:
        return f"```python\n{self.answer}\n```" if self.is_solution else None

    def find_open_end(self, text: str) -> str | None:
        """Return why the text does not hold one closed code block; what explains it may follow."""
        fences = len(_FENCE.findall(text))
        if fences % 2:
            return "the code block is not closed"
        return None if fences == 2 else f"{fences // 2} code blocks after the reasoning, expected 1"


def make_reference(answer: str, problem_type: str, spec: str) -> Reference:
    """Return the reference of a problem of this type."""
    kind = CodeReference if problem_type == "code" else Reference
    return kind(answer, problem_type, spec)


def reference_of(row: Mapping[str, Any]) -> Reference:
    """Return the reference of a row of the table problems, or of one that is joined with it."""
    return make_reference(row["answer"], row["problem_type"], row["spec"] or "")


def _grams(text: str, num_words: int) -> set[tuple[str, ...]]:
    """Return all runs of so many words and signs."""
    words = _CODE_WORD.findall(text)
    return {tuple(words[n : n + num_words]) for n in range(len(words) - num_words + 1)}


def _closing_brace(text: str, start: int) -> int | None:
    """Return the offset of the brace that closes the group opened just before `start`."""
    depth = 1
    for match in re.compile(r"\\.|[{}]", re.DOTALL).finditer(text, start):
        depth += {"{": 1, "}": -1}.get(match.group(), 0)  # an escaped brace opens and closes nothing
        if depth == 0:
            return match.start()
    return None
