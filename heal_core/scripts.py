"""Letters of another language (gate G7): those of a script that neither the problem nor its answer has.

Latin and Greek letters are never foreign: formulas and LaTeX are written in them in every language, and so is the
instruction of every prompt. Mathematical letters (the set R, an italic x) and marks belong to no script. So the gate
sees a text that drifts from English into Chinese, or from Chinese into Russian; it does not tell languages of one
script apart.
Source: METHOD section 4, gate G7 (docs/method.md).
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import regex

_LETTER = regex.compile(r"\p{L}")
_OF_ANOTHER_SCRIPT = regex.compile(r"[^\P{L}\p{Latin}\p{Greek}\p{Common}\p{Inherited}]")
"""A letter (not a non-letter) that no formula in Latin or Greek letters has."""


@dataclass(frozen=True)
class ForeignLetters:
    """How many letters a text has, and those of other scripts in their order."""

    num_letters: int
    letters: str

    @property
    def share(self) -> float:
        """Their share of all letters, in [0, 1]; 0 in a text without letters."""
        return len(self.letters) / self.num_letters if self.num_letters else 0.0

    @property
    def scripts(self) -> tuple[str, ...]:
        """Their scripts, the most frequent first."""
        return tuple(name for name, _ in Counter(map(_script, self.letters)).most_common())


def find_foreign(text: str, native: Iterable[str]) -> ForeignLetters:
    """Return the letters of `text` whose script none of the `native` texts has."""
    known = {_script(letter) for own in native for letter in _OF_ANOTHER_SCRIPT.findall(own)}
    found = "".join(letter for letter in _OF_ANOTHER_SCRIPT.findall(text) if _script(letter) not in known)
    return ForeignLetters(len(_LETTER.findall(text)), found)


def _script(letter: str) -> str:
    """Return the script of a letter: the first word of its name in Unicode, as CJK, HIRAGANA, CYRILLIC."""
    return unicodedata.name(letter, "UNKNOWN").split()[0].split("-")[0]
