"""The tasks of PURE's validity test: prefixes, hints, building shortcuts, and what the scores say of all texts.

What does not belong here: how a shortcut is made and what the numbers mean (`heal_core/validity`), the order
(`flows/validity`).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from heal_core.engines.base import EngineConfig, GivenText, ScoreRequest, ScoreResult, UnreadableText
from heal_core.errors import ModelError
from heal_core.fill import trajectory_row
from heal_core.gates import check_hint
from heal_core.hints import clean_hint
from heal_core.keys import content_key, row_key
from heal_core.plan import Slot
from heal_core.prompts import student_prompt
from heal_core.records import Band, Completion, FinishReason, Kind, VerdictLabel
from heal_core.repair import BrokenPath, Hint
from heal_core.spend import Spend
from heal_core.store.reads import TokenRow, read_known, read_run_trajectories, read_tokens
from heal_core.validity.config import VALIDITY_VERSION
from heal_core.validity.shortcuts import (
    Continuation,
    Shortcut,
    TextKind,
    borrow_reasoning,
    choose_prefixes,
    paste_answer,
    rationalise,
)
from heal_core.validity.tokens import Tokens, find_line_break
from tasks.paths import choose_wrong_rows
from tasks.policy import cached_task, decision_task
from tasks.repairs import break_paths
from tasks.session import Session

NATURAL, RATIONALES, BUILT = "validity_natural", "validity_rationales", "validity_built"
WORK = "validity"
_UNBUILT_LIMIT = 0
"""`limit_tokens` of a text that was not sampled."""


@dataclass(frozen=True)
class Prefix:
    """A wrong rollout of a hard problem, cut before its breakpoint, with the hint that all its texts are read under."""

    chunk_index: int
    path: BrokenPath
    hint: Hint


@dataclass(frozen=True)
class Unbuilt:
    """A shortcut that could not be built beside a natural text, with the reason."""

    kind: TextKind
    donor: Continuation
    index: int
    reason: str


@dataclass(frozen=True)
class Texts:
    """All texts of a test: natural ones, and the shortcuts with what could not be built."""

    natural: tuple[Continuation, ...]
    shortcuts: tuple[Shortcut, ...]
    unbuilt: tuple[Unbuilt, ...]


def validity_id_of(session: Session) -> str:
    """Return the id of the test that the settings ask for in this run, 12 hexadecimal digits."""
    settings = session.config.pure.validity.model_dump(mode="json")
    return content_key("validity", VALIDITY_VERSION, session.run_id, settings)[:12]


@decision_task("cut prefixes of hard problems")
def cut_hard_paths(session: Session) -> list[tuple[int, BrokenPath]]:
    """Return wrong rollouts of hard training problems with their chunks, cut as GEAR cuts."""
    config = session.config.pure.validity
    rows = choose_wrong_rows(session, Band.HARD, config.max_paths)
    chunks = {path.trajectory_id: (chunk, path) for chunk, path in break_paths(session, rows, _breakpoint)}
    chosen = choose_prefixes([path for _, path in chunks.values()], config.max_prefixes, session.config.seed)
    return [chunks[path.trajectory_id] for path in chosen]


@decision_task("judge hints of the validity test")
def accept_hints(session: Session, tries: Sequence[tuple[BrokenPath, str]]) -> dict[str, Hint]:
    """Return the hints by path that do not leak, as GEAR's gate has it."""
    texts = read_tokens(session.store, [row_id for _, row_id in tries])
    hints = {path.trajectory_id: Hint(row_id, clean_hint(texts[row_id].text)) for path, row_id in tries}
    return {
        path.trajectory_id: hints[path.trajectory_id]
        for path, _ in tries
        if check_hint(hints[path.trajectory_id].text, path.reference, path.question).passed
    }


@decision_task("choose natural texts")
def choose_natural(session: Session, validity_id: str, prefixes: Sequence[Prefix]) -> list[Continuation]:
    """Return the verified continuations to test on: the first of each path, each text once.

    Wrong paths of a problem may share their prefix, token by token; what one of them has had, the next has not again.
    """
    rows = read_run_trajectories(session.store, session.run_id, NATURAL, validity_id).iter_rows(named=True)
    verified: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if row["label"] == VerdictLabel.CORRECT and row["num_tokens"]:
            verified.setdefault(row["parent_id"], []).append(row)
    chosen: dict[str, BrokenPath] = {}
    seen: set[tuple[str, tuple[int, ...], str]] = set()
    for prefix in prefixes:
        path, num_chosen = prefix.path, 0
        for row in verified.get(path.trajectory_id, []):
            text = (path.problem_id, path.prefix_token_ids, row["text"])
            if text not in seen and num_chosen < session.config.pure.validity.max_per_prefix:
                chosen[row["trajectory_id"]] = path
                num_chosen += 1
                seen.add(text)
    tokens = read_tokens(session.store, list(chosen))
    steps = session.config.steps
    return [Continuation(row_id, path, _tokens(tokens[row_id]), steps) for row_id, path in chosen.items()]


@decision_task("build shortcuts")
def build_shortcuts(
    session: Session, natural: Sequence[Continuation], rationales: Mapping[str, str], line_break: Tokens
) -> Texts:
    """Return the natural texts with a shortcut of each kind beside each of them, where it can be built.

    Args:
        rationales: The row that justifies the answer, by the natural text whose words state it.
        line_break: From `find_teachers_break`.
    """
    seed = session.config.seed
    sampled = read_tokens(session.store, list(rationales.values()))
    shortcuts: list[Shortcut] = []
    unbuilt: list[Unbuilt] = []
    numbers: dict[str, int] = {}
    for donor in natural:
        index = numbers.setdefault(donor.path.trajectory_id, 0)
        numbers[donor.path.trajectory_id] += 1
        built = {
            TextKind.PASTED: paste_answer(donor, index, seed, line_break),
            TextKind.BORROWED: borrow_reasoning(donor, natural, index, seed, line_break),
        }
        if donor.row_id in rationales:
            row_id = rationales[donor.row_id]
            built[TextKind.RATIONALISED] = rationalise(donor, row_id, _tokens(sampled[row_id]), index, line_break)
        for kind, shortcut in built.items():
            if shortcut is None:
                reason = "no_other_problem" if donor.reasoning_ends else "no_reasoning"
                unbuilt.append(Unbuilt(kind, donor, index, reason))
            else:
                shortcuts.append(shortcut)
    return Texts(tuple(natural), tuple(shortcuts), tuple(unbuilt))


def find_teachers_break(session: Session, natural: Sequence[Continuation]) -> Tokens:
    """Return a line break of the teacher's: from its own texts, else as its tokenizer has it; none without texts.

    Where every step ends in one token of full stop and break, no text has a break by itself.

    Raises:
        ModelError: If the teacher cannot write one: without it rationalisations would go on within the answer's line.
    """
    found = find_line_break([text.tokens for text in natural])
    if natural and not found.text:
        given = GivenText("line break", student_prompt(natural[0].path.question), "\n\n", FinishReason.LENGTH)
        with session.engine_lock:
            (read,) = session.engine(session.teacher).read([given])
        if isinstance(read, UnreadableText):
            raise ModelError(
                f"{session.teacher.model_name_or_path}: its tokenizer has no line break to set an answer apart with "
                f"({read.reason}), which the validity test needs; set pure.score to ratio, jump or reliance"
            )
        return Tokens(read.text, read.token_ids, read.token_starts)
    return found


class BuildWork:
    """The built shortcuts of one chunk, to be read by the teacher and stored."""

    work = WORK

    def __init__(
        self, chunks: str, shortcuts: Sequence[Shortcut], recipe_id: str, model: EngineConfig, epoch: str
    ) -> None:
        self.recipe_id = recipe_id
        self.model = model
        self.shortcuts = {row_key(s.slot_id(recipe_id), _UNBUILT_LIMIT): s for s in shortcuts}
        self.label = f"{self.work} {chunks}"
        self.cache_key = content_key("build", sorted(self.shortcuts), epoch)
        self._of = (chunks, epoch)

    def by_problem(self) -> dict[str, BuildWork]:
        """Return the same work, cut into one per problem."""
        chunks, epoch = self._of
        groups: dict[str, list[Shortcut]] = {}
        for shortcut in self.shortcuts.values():
            groups.setdefault(shortcut.path.problem_id, []).append(shortcut)
        return {
            problem_id: BuildWork(chunks, own, self.recipe_id, self.model, epoch) for problem_id, own in groups.items()
        }


@cached_task("build")
def build_chunk(session: Session, work: BuildWork) -> list[str]:
    """Return the ids of the shortcuts' rows; what is not stored is read by the teacher as if it had been sampled."""
    known = read_known(session.store, "trajectories", "trajectory_id", list(work.shortcuts))
    missing = {row_id: shortcut for row_id, shortcut in work.shortcuts.items() if row_id not in known}
    if missing:
        started = time.monotonic()
        requests = [_request(row_id, shortcut) for row_id, shortcut in missing.items()]
        with session.engine_lock:
            engine = session.engine(work.model)
            results = {result.request_id: result for result in engine.score(requests)}
            num_prompt_tokens = engine.count_prompt_tokens([request.prompt for request in requests])
        seconds = (time.monotonic() - started) / len(requests)
        prompts = dict(zip(missing, num_prompt_tokens, strict=True))
        rows = [
            _built_row(shortcut, work.recipe_id, results[row_id], prompts[row_id], seconds)
            for row_id, shortcut in sorted(missing.items())
        ]
        read = sum(prompts.values()) + sum(len(r.context_token_ids) + len(r.token_ids) for r in requests)
        session.spend(Spend(prompt_tokens=read, engine_seconds=seconds * len(requests)), work.model.price)
        session.store.append("trajectories", rows)
        session.count(WORK, len(rows))
    return sorted(work.shortcuts)


def row_id_of(shortcut: Shortcut, recipe_id: str) -> str:
    """Return the row of a built shortcut."""
    return row_key(shortcut.slot_id(recipe_id), _UNBUILT_LIMIT)


def _breakpoint(profile: Mapping[str, Any]) -> int | None:
    step: int | None = profile["breakpoint_step"]
    return step


def _tokens(row: TokenRow) -> Tokens:
    return Tokens(row.text, row.token_ids, row.token_starts)


def _request(row_id: str, shortcut: Shortcut) -> ScoreRequest:
    path = shortcut.path
    return ScoreRequest(
        row_id,
        student_prompt(path.question, path.reference.wording),
        path.prefix_token_ids,
        token_ids=tuple(shortcut.tokens.token_ids.tolist()),
    )


def _built_row(
    shortcut: Shortcut, recipe_id: str, result: ScoreResult, num_prompt_tokens: int, seconds: float
) -> dict[str, Any]:
    """Return the stored form of a built text, with what the teacher makes of its tokens."""
    path = shortcut.path
    slot = Slot(
        Kind.SHORTCUT, path.problem_id, recipe_id, shortcut.index, "", _UNBUILT_LIMIT,
        parent_id=path.trajectory_id, prefix_token_ids=path.prefix_token_ids, prefix=path.prefix,
    )  # fmt: skip
    num_tokens = len(shortcut.tokens.token_ids)
    # a server may not tell the entropies of given tokens: those of a built text decide nothing
    entropies = np.full(num_tokens, np.nan) if result.entropies is None else result.entropies
    completion = Completion(
        slot_id=shortcut.slot_id(recipe_id),
        token_ids=shortcut.tokens.token_ids,
        logprobs=result.logprobs,
        entropies=entropies,
        token_starts=shortcut.tokens.token_starts,
        text=shortcut.tokens.text,
        finish_reason=FinishReason.STOP,
        num_prompt_tokens=num_prompt_tokens + len(path.prefix_token_ids),
        seconds=seconds,
        entropy_radii=result.entropy_radii,
        entropy_source=result.entropy_source if result.entropies is not None else "untold",
    )
    row_id = row_id_of(shortcut, recipe_id)
    return trajectory_row(slot, completion) | {"trajectory_id": row_id, "slot_id": completion.slot_id}
