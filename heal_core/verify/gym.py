r"""Answers graded by the scorers of reasoning-gym: right is what gets the full mark, 1.0.

They get what stands in the box, as it stands; then what it means where LaTeX writes it otherwise (`\text{..}`,
`\times`), since a scorer knows no LaTeX. What does not belong here: which answers are not even
shown to a scorer (`gym/rules`).
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import Any

from heal_core.errors import InputError
from heal_core.gym.entry import unpack
from heal_core.gym.library import make_generator
from heal_core.gym.rules import permits
from heal_core.records import VerdictLabel
from heal_core.specs import GymSpec

MAX_SCORED_CHARS = 20_000
FULL_MARK = 1.0

Outcome = tuple[VerdictLabel, str | None]

_CORRECT: Outcome = (VerdictLabel.CORRECT, None)
_DIFFERENT: Outcome = (VerdictLabel.WRONG, "different")

_WRAPPED = re.compile(r"\\(?:text|textbf|textit|texttt|mathrm|mathbf|mathtt|mbox)\s*\{(.*)\}", re.DOTALL)
_SIGNS = {
    r"\\": "\n",
    r"\newline": "\n",
    r"\_": "_",
    r"\{": "{",
    r"\}": "}",
    r"\%": "%",
    r"\$": "$",
    r"\#": "#",
    r"\&": "&",
    r"\ ": " ",
    r"\,": " ",
    r"\times": "×",
    r"\cdot": "×",
    r"\div": "/",
    r"\to": "→",
    r"\rightarrow": "→",
    r"\land": "∧",
    r"\wedge": "∧",
    r"\lor": "∨",
    r"\vee": "∨",
    r"\neg": "¬",
    r"\lnot": "¬",
    r"\left": "",
    r"\right": "",
}
_SIGN = re.compile(r"\\(?:[A-Za-z]+|.)", re.DOTALL)


def grade_gym(extracted: str | None, spec: GymSpec) -> Outcome:
    """Return the outcome for what stands in the box, by the scorer of its entry's generator. May hang.

    It is unverifiable, "bad_spec", where reasoning-gym has not or no longer the generator or its settings.
    """
    if extracted is None:
        return VerdictLabel.WRONG, "no_answer"
    if len(extracted) > MAX_SCORED_CHARS:
        return VerdictLabel.WRONG, "answer_too_long"
    try:
        scorer = _scorer(spec.generator, json.dumps(spec.config), json.dumps(spec.curriculum))
    except InputError:
        return VerdictLabel.UNVERIFIABLE, "bad_spec"
    outcome = _DIFFERENT
    for answer in _readings(extracted):
        try:
            entry = unpack(spec.entry)  # anew: a scorer may change it
            if not permits(spec.generator, answer, entry):
                continue
            mark = scorer.score_answer(answer, entry)
        except MemoryError:
            raise
        except Exception:  # noqa: BLE001  scorers that cannot read an answer or an entry raise anything
            outcome = VerdictLabel.WRONG, "unparsable_answer"
            continue
        if mark >= FULL_MARK:
            return _CORRECT
    return outcome


@lru_cache(maxsize=64)
def _scorer(generator: str, config: str, curriculum: str) -> Any:
    return make_generator(generator, json.loads(config), json.loads(curriculum))


def _readings(extracted: str) -> list[str]:
    """Return the ways in which an answer can be meant: as it stands first, then without LaTeX."""
    text = extracted
    while wrapped := _WRAPPED.fullmatch(text.strip()):
        text = wrapped[1]
    plain = _SIGN.sub(lambda sign: _SIGNS.get(sign[0], sign[0]), text).strip().strip("$").strip()
    return list(dict.fromkeys([extracted, text, plain, plain.replace("×", "*")]))
