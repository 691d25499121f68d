"""The task that scores a chunk of gated repairs for PURE."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from heal_core.engines.base import EngineConfig
from heal_core.hints import clean_hint
from heal_core.keys import content_key
from heal_core.recipes import TEMPLATES
from heal_core.records import Kind
from heal_core.reference import Reference
from heal_core.repair import Hint, conditioned_prompt
from heal_core.scoring import ScoredText, TextToScore, score_texts
from heal_core.spend import Spend
from heal_core.store.reads import TokenRow, read_known, read_references, read_templates, read_tokens
from tasks.policy import cached_task
from tasks.profiles import rows_by_problem
from tasks.session import Session

WORK = "pure"


class ScoreWork:
    """The repairs of one chunk: rows of `read_run_trajectories`, and the recipe of the scorer."""

    work = WORK

    def __init__(
        self, chunks: str, rows: Sequence[Mapping[str, Any]], recipe_id: str, model: EngineConfig, epoch: str
    ) -> None:
        self.recipe_id = recipe_id
        self.model = model
        self.rows = {self.score_id(row, recipe_id): row for row in rows}
        self.label = f"{self.work} {chunks}"
        self.cache_key = content_key("score", sorted(self.rows), epoch)
        self._of = (chunks, rows, epoch)

    @staticmethod
    def score_id(row: Mapping[str, Any], recipe_id: str) -> str:
        """Return the content key of a row's score; a text that was sampled under a hint is read under that one."""
        return content_key("score", row["trajectory_id"], recipe_id)

    def by_problem(self) -> dict[str, ScoreWork]:
        """Return the same work, cut into one per problem."""
        chunks, rows, epoch = self._of
        return {
            problem_id: type(self)(chunks, own, self.recipe_id, self.model, epoch)
            for problem_id, own in rows_by_problem(rows).items()
        }


@cached_task("score")
def score_chunk(session: Session, work: ScoreWork) -> list[str]:
    """Return the ids of the repairs' scores; score what has none."""
    known = read_known(session.store, "scores", "score_id", list(work.rows))
    missing = {score_id: row for score_id, row in work.rows.items() if score_id not in known}
    if not missing:
        return sorted(work.rows)
    texts = _texts(session, list(missing.values()))
    with session.engine_lock:
        engine = session.engine(work.model)
        started = time.monotonic()
        scored = score_texts(engine, texts, session.config.steps, session.config.pure)
        seconds = time.monotonic() - started
    num_tokens = sum(score.num_scored_tokens for score in scored.values())
    session.spend(Spend(prompt_tokens=num_tokens, engine_seconds=seconds), work.model.price)
    rows = [
        {
            "score_id": score_id,
            "trajectory_id": row["trajectory_id"],
            "recipe_id": work.recipe_id,
            **_columns(scored[row["trajectory_id"]]),
            "seconds": seconds * scored[row["trajectory_id"]].num_scored_tokens / max(1, num_tokens),
        }
        for score_id, row in sorted(missing.items())
    ]
    session.store.append("scores", rows)
    session.count("scores", len(rows))
    session.progress.advance(0, len(rows))
    return sorted(work.rows)


def _texts(session: Session, rows: Sequence[Mapping[str, Any]]) -> list[TextToScore]:
    """Return the whole responses: the kept tokens of the wrong rollout, then the repair's own."""
    ids = {row[column] for row in rows for column in ("trajectory_id", "parent_id", "hint_id")} - {None}
    tokens = read_tokens(session.store, list(ids))
    references = read_references(session.store, (row["problem_id"] for row in rows))
    templates = read_templates(session.store, (row["recipe_id"] for row in rows))
    return [_text(row, references[row["problem_id"]], tokens, templates[row["recipe_id"]]) for row in rows]


def _text(row: Mapping[str, Any], reference: Reference, tokens: dict[str, TokenRow], template: str) -> TextToScore:
    own, parent = tokens[row["trajectory_id"]], tokens[row["parent_id"]]
    kept = row["num_prefix_tokens"]
    hint = _hint(row, reference, tokens, template)
    return TextToScore(
        row_id=row["trajectory_id"],
        question=row["question"],
        reference=reference,
        conditioned_prompt=conditioned_prompt(row["question"], hint, reference) if hint else None,
        text=own.prefix + own.text,
        token_ids=np.concatenate([parent.token_ids[:kept], own.token_ids]),
        token_starts=np.concatenate([parent.token_starts[:kept], own.token_starts + len(own.prefix)]),
        num_prefix_tokens=kept,
        num_prefix_chars=len(own.prefix),
    )


def _hint(row: Mapping[str, Any], reference: Reference, tokens: dict[str, TokenRow], template: str) -> Hint | None:
    """Return what a repair was written under; None where that was neither a hint nor the answer."""
    if row["hint_id"] is not None:
        return Hint(row["hint_id"], clean_hint(tokens[row["hint_id"]].text))
    return Hint(None, reference.told) if template == TEMPLATES[Kind.GUIDED] else None


def _columns(scored: ScoredText) -> dict[str, Any]:
    score = scored.score
    return {
        "ratio": score.ratio,
        "jump": score.jump,
        "reliance": score.reliance,
        "step_perplexities": score.step_perplexities.tolist(),
        "answer_uncertainties": score.answer_uncertainties.tolist(),
        "span_start": score.span_start,
        "span_end": score.span_end,
        "reject_reason": score.reject_reason,
        "num_scored_tokens": scored.num_scored_tokens,
    }
