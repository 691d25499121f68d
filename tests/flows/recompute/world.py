"""The rules of a small world: its problems, and what its scripted models answer.

Every text follows from what shapes it (`Asked`) and from nothing else, as an engine's does.
Rates of success depend on a problem's level and the sample's index, so that every band,
break, gate and limit has its cases whatever the content keys are.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from heal_core.engines.base import GenerationRequest
from heal_core.engines.early_stop import EarlyStopConfig
from heal_core.records import Completion, FinishReason, Kind

N = 16
TOWER = "\\boxed{9^{9^{9^{9}}}}"  # a number on which math-verify hangs until it is killed
WORDS = ("amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heath", "inlet", "jetty", "knoll", "larch")

TRAIN_LEVELS = ("easy", "easy", "slow", "hard", "hard", "never", "long", "rare")
HELD_OUT_LEVELS = ("easy", "hard", "never")
"""`never` is not solved, `long` neither and mostly cut, `rare` once in the first 16 and twice in the first 30."""

SETTINGS: dict[str, Any] = {
    "chunk_problems": 32,
    "teacher": {"dtype": "float32"},
    "student": {"dtype": "float32"},
    "problems": {"duplicate_jaccard": 1.0},
    "rollouts": {"num_generations": N, "sampling": {"temperature": 1.0, "top_p": 1.0, "max_tokens": 60}},
    "verify": {"timeout_seconds": 1.5, "num_workers": 1},
    "hints": {"max_tries": 2, "sampling": {"temperature": 1.0, "top_p": 1.0, "max_tokens": 14}},
    "steps": {"min_step_tokens": 1},
    "repair": {"max_paths": 4, "num_generations": 5},
    "guided": {"num_generations": 2},
    "curriculum": {"max_per_problem": 2, "epochs": [1, 1, 1]},
    "sft": {"batch_size": 2},
    "evaluation": {"num_generations": 2},
    "controls": {"rejection_sampling": False, "equal_tokens": False},
}


@dataclass(frozen=True, repr=False)
class Asked:
    """What an engine is asked for: all that may shape the answer, and no content key of HEAL's.

    The parents of a hint or a repair are in it as texts, so that a parent which was cut and
    sampled anew is another parent. The limit on tokens is not in it: it only cuts.
    """

    kind: str
    stage_version: int
    weights: str
    temperature: float
    top_p: float
    early_stop: EarlyStopConfig | None
    seed: int
    prompt: str
    prefix_token_ids: tuple[int, ...]
    sample_index: int
    parent: str
    hint: str

    def __repr__(self) -> str:
        return self._text

    @cached_property
    def _text(self) -> str:
        """All of it in words, from which every token of the answer is drawn."""
        return f"Asked{tuple(getattr(self, part.name) for part in fields(self))}"


def draw(*parts: Any) -> int:
    """Return a number that follows from `parts`."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:6])


def write_problems(path: Path, levels: Sequence[str], first: int = 0) -> None:
    """Write a problem file; number and level of a problem say what the engine will answer."""
    lines = []
    for number, level in enumerate(levels, start=first):
        question = f"Shelf {number} ({level}) holds {11 + number} boxes of 7 pens and {3 + number} more. How many pens?"
        problem_type = "math" if is_math(level) else "numeric"
        lines.append({"problem": question, "answer": str(80 + 8 * number), "problem_type": problem_type})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def is_math(level: str) -> bool:
    """Return whether problems of a level are graded by math-verify; the others are compared as numbers."""
    return level in ("easy", "slow")


def level_of(asked: Asked) -> str:
    return _read_prompt(asked)[1]


def _read_prompt(asked: Asked) -> tuple[int, str]:
    match = re.match(r"Shelf (\d+) \((\w+)\)", asked.prompt)
    assert match is not None
    return int(match[1]), match[2]


def write(asked: Asked) -> list[str]:
    """Return the tokens of an answer or a hint, as long as it is without a limit."""
    number, level = _read_prompt(asked)
    words = (f"{WORDS[draw(asked, t) % len(WORDS)]} " for t in range(100))
    if asked.kind == Kind.HINT:
        return _write_hint(asked, number, words)
    if (asked.kind, level, asked.sample_index) == (Kind.ROLLOUT, "slow", 3):
        return ["So ", TOWER]
    is_conditioned = asked.kind != Kind.ROLLOUT
    is_right, num_more = _conditioned(asked) if is_conditioned else _plain(level, asked.sample_index)
    product, total = 7 * (11 + number), 80 + 8 * number + (not is_right)
    return [
        "As the hint says: " if is_conditioned and asked.sample_index == 1 else "We count: ",
        f"try {asked.sample_index} ", *(next(words) for _ in range(3)), ".\n\n",
        *(next(words) for _ in range(4)), ".\n\n",
        "Boxes ", f"{11 + number} ", "* ", "7 ", "= ", f"{product} ", next(words), ".\n\n",
        *(next(words) for _ in range(2)), ".\n\n",
        *(next(words) for _ in range(6 + num_more)), ".\n\n",
        "Adding ", f"{product} ", "+ ", f"{3 + number} ", "= ", f"{total} ", ".\n\n",
        "So ", "\\boxed{", f"{total}", "}", ".",
    ]  # fmt: skip


def _plain(level: str, index: int) -> tuple[bool, int]:
    """Return whether a plain attempt is right, and how many words it has beyond the shortest."""
    if level in ("easy", "slow"):
        return index % 8 != 7, 13 if index % 4 == 2 else 0
    if level == "hard":
        return index % 3 == 0, 40 if index % 8 == 1 else 0
    return level == "rare" and index in (9, 20), 40 if level == "long" and index else 0


def _conditioned(asked: Asked) -> tuple[bool, int]:
    """Return the same of a repair or a guided sample; number 1 is refused by gate G2."""
    is_long = asked.sample_index == (3 if asked.kind == Kind.REPAIR else 1)
    return asked.sample_index != 2, 40 if is_long else 0


def _write_hint(asked: Asked, number: int, words: Iterator[str]) -> list[str]:
    """Return a hint; on even paths the first tries state the answer, on every third it is long."""
    found = re.search(r"try (\d+) ", asked.parent)
    path = int(found[1]) if found else 0
    if (asked.sample_index == 0 and path % 2 == 0) or (asked.sample_index == 1 and path % 4 == 0):
        return ["The ", "answer ", "is ", f"{80 + 8 * number} ", "."]
    return ["Mind ", "all ", "boxes ", *(next(words) for _ in range(15 if path % 3 == 2 else 3)), "."]


def complete(request: GenerationRequest, asked: Asked) -> Completion:
    """Return the answer under the request's limit, of which the end of the turn takes a token too."""
    tokens = write(asked)
    kept = tokens[: request.max_tokens]
    return Completion(
        slot_id=request.slot_id,
        token_ids=np.array([draw(token) % 50_000 for token in kept]),
        logprobs=np.array([-(draw(asked, "logprob", t) % 300) / 100 for t in range(len(kept))]),
        entropies=np.array([(draw(asked, "entropy", t) % 200) / 100 for t in range(len(kept))]),
        token_starts=np.cumsum([0, *map(len, kept)])[:-1],
        text="".join(kept),
        finish_reason=FinishReason.STOP if is_finished(tokens, request.max_tokens) else FinishReason.LENGTH,
        num_prompt_tokens=len(request.prompt.split()) + len(request.prefix_token_ids),
        seconds=0.01,
    )


def is_finished(tokens: Sequence[str], limit_tokens: float) -> bool:
    return len(tokens) < limit_tokens
