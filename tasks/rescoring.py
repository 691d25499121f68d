"""The tasks that read rollouts again where their breakpoint is open, and note what each breakpoint rests on."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from heal_core.config import RunConfig
from heal_core.engines.base import EngineConfig
from heal_core.engines.identity import identify_model
from heal_core.keys import content_key
from heal_core.profiles import profile_entropy
from heal_core.prompts import student_prompt
from heal_core.records import EXACT, RESCORED
from heal_core.rescoring import GivenTokens, find_rescorer, read_again
from heal_core.spend import Spend
from heal_core.store.reads import (
    TokenRow,
    read_known,
    read_profiles,
    read_references,
    read_run_trajectories,
    read_tokens,
)
from tasks.paths import choose_wrong_rows
from tasks.policy import cached_task, decision_task
from tasks.profiles import profile_key, profile_row, rows_by_problem
from tasks.session import Session

WORK = "rescoring"
Row = Mapping[str, Any]


def rescored_key(config: RunConfig, row_id: str, model: Mapping[str, Any]) -> str:
    """Return the id of a rollout's profile from the entropies that a model (`identify_model`) has of it."""
    return content_key("rescored", profile_key(config, row_id), dict(model))


class RescoreWork:
    """Rollouts of one chunk whose breakpoint is open: rows of `read_run_trajectories`."""

    work = WORK

    def __init__(self, config: RunConfig, chunks: str, rows: Sequence[Row], model: EngineConfig, epoch: str) -> None:
        self.model = model
        identity = identify_model(model)
        self.rows = {rescored_key(config, row["trajectory_id"], identity): row for row in rows}
        self.label = f"{self.work} {chunks}"
        self.cache_key = content_key("rescore", sorted(self.rows), epoch)
        self._of = (config, chunks, epoch)

    def by_problem(self) -> dict[str, RescoreWork]:
        """Return the same work, cut into one per problem."""
        config, chunks, epoch = self._of
        return {
            problem_id: RescoreWork(config, chunks, own, self.model, epoch)
            for problem_id, own in rows_by_problem(self.rows.values()).items()
        }


@cached_task("rescore")
def rescore_chunk(session: Session, work: RescoreWork) -> int:
    """Return how many rollouts were newly read again; one with tokens that no engine can read stays as it is."""
    known = read_known(session.store, "profiles", "profile_id", list(work.rows))
    missing = {profile_id: row for profile_id, row in work.rows.items() if profile_id not in known}
    if not missing:
        return 0
    tokens = read_tokens(session.store, [row["trajectory_id"] for row in missing.values()])
    texts = [text for text in _texts(session, list(missing.values()), tokens) if text.is_readable]
    with session.engine_lock:
        entropies = _read_again(session, work.model, texts) if texts else {}
    rows = []
    for profile_id, row in sorted(missing.items()):
        row_id = row["trajectory_id"]
        if row_id not in entropies:
            continue
        text = tokens[row_id]
        config = session.config
        profile = profile_entropy(text.text, text.token_starts, entropies[row_id], config.steps, config.breakpoints)
        rows.append(profile_row(profile_id, row_id, profile, RESCORED))
    session.store.append("profiles", rows)
    session.count("rescored", len(rows))
    session.progress.advance(0, len(rows), sum(len(values) for values in entropies.values()))
    return len(rows)


def _read_again(session: Session, model: EngineConfig, texts: Sequence[GivenTokens]) -> dict[str, np.ndarray]:
    """Return the exact entropies of texts, by trajectory; what reading them took is noted as spent."""
    engine = session.engine(model)
    started = time.monotonic()
    entropies = read_again(engine, texts)
    num_tokens = sum(engine.count_prompt_tokens([text.prompt for text in texts])) + sum(map(len, entropies.values()))
    session.spend(Spend(prompt_tokens=num_tokens, engine_seconds=time.monotonic() - started), model.price)
    return entropies


def open_rows(session: Session) -> list[dict[str, Any]]:
    """Return the rollouts to read again: those whose breakpoint is not certain, as far as `rescore` wants them."""
    rows = _rows(session)
    if session.config.breakpoints.rescore == "repaired":
        wanted = choose_wrong_rows(session)
        rows = [row for row in rows if row["trajectory_id"] in wanted]
    profiles = _first_profiles(session, [row["trajectory_id"] for row in rows])
    return [row for row in rows if profiles[row["trajectory_id"]]["is_certain"] is False]


def read_used_profiles(session: Session, row_ids: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return the profile that the run goes by, by rollout: the one that was read again where there is one."""
    profiles = _first_profiles(session, row_ids)
    model = find_rescorer(session.config)
    doubtful = [row_id for row_id, profile in profiles.items() if profile["is_certain"] is False]
    if model is not None and doubtful:
        identity = identify_model(model)
        keys = [rescored_key(session.config, row_id, identity) for row_id in doubtful]
        profiles |= {profile["trajectory_id"]: profile for profile in read_profiles(session.store, keys)}
    return profiles


@decision_task("note breakpoints")
def note_breakpoints(session: Session, reread: Sequence[Row]) -> dict[str, int]:
    """Return how many breakpoints are certain, rescored and uncertain, of rollouts whose entropies are not exact.

    Args:
        reread: What `open_rows` returned, if there was a model to read it again.
    """
    rows = {row["trajectory_id"]: row for row in _rows(session)}
    first = _first_profiles(session, rows)
    used = read_used_profiles(session, {row["trajectory_id"] for row in reread} & rows.keys())
    decisions = [
        (row_id, rows[row_id]["problem_id"], *_what_it_rests_on(profile, used.get(row_id, profile)), None)
        for row_id, profile in first.items()
    ]
    session.record_decisions("breakpoint", decisions)
    kinds = [decision for _, _, decision, _, _ in decisions]
    return {kind: kinds.count(kind) for kind in ("certain", "rescored", "uncertain") if kind in kinds}


def _what_it_rests_on(first: Row, used: Row) -> tuple[str, str | None]:
    if used["entropy_source"] == RESCORED:
        return "rescored", "same_step" if used["breakpoint_step"] == first["breakpoint_step"] else "moved"
    return ("certain" if first["is_certain"] else "uncertain"), None


def _rows(session: Session) -> list[dict[str, Any]]:
    """Return the run's rollouts whose entropies are not exact."""
    rows = read_run_trajectories(session.store, session.run_id, "rollouts")
    rows = rows.filter(pl.col("entropy_source").fill_null(EXACT) != EXACT)
    return [row for row in rows.to_dicts() if row["problem_id"] not in session.quarantine]


def _first_profiles(session: Session, row_ids: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return the profiles from the entropies that rollouts are stored with."""
    profiles = read_profiles(session.store, [profile_key(session.config, row_id) for row_id in row_ids])
    return {profile["trajectory_id"]: profile for profile in profiles}


def _texts(session: Session, rows: Sequence[Row], tokens: Mapping[str, TokenRow]) -> list[GivenTokens]:
    references = read_references(session.store, (row["problem_id"] for row in rows))
    return [
        GivenTokens(
            row["trajectory_id"],
            student_prompt(row["question"], references[row["problem_id"]].wording),
            tokens[row["trajectory_id"]].token_ids,
        )
        for row in rows
    ]
