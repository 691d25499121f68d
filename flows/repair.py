"""Phase: GEAR. Wrong paths of extremely hard problems get a hint at their breakpoint and are continued;
hard problems get samples with the answer in sight."""

from __future__ import annotations

from typing import Any

from flows.rollouts import sample_and_verify
from heal_core.gates import check_hint
from heal_core.hints import clean_hint
from heal_core.plan import Slot
from heal_core.prompts import guided_prompt, hint_prompt, hinted_prompt
from heal_core.records import Band, Kind, VerdictLabel
from heal_core.repair import WrongPath, choose_paths, continuation_limit, kept_prefix
from heal_core.store.reads import (
    TokenRow,
    read_bands,
    read_profiles,
    read_run_problems,
    read_run_trajectories,
    read_tokens,
    steps_of,
)
from tasks.profiles import profile_key
from tasks.session import Session, logger


class BrokenPath:
    """A wrong rollout cut at its breakpoint: what is kept, what failed, and its problem."""

    def __init__(self, row: dict[str, Any], profile: dict[str, Any], tokens: TokenRow) -> None:
        steps = steps_of(profile, len(tokens.text), len(tokens.token_ids))
        num_chars, num_tokens = kept_prefix(steps, profile["breakpoint_step"])
        failed = steps[profile["breakpoint_step"]]
        self.row = row
        self.prefix = tokens.text[:num_chars]
        self.prefix_token_ids = tuple(tokens.token_ids[:num_tokens].tolist())
        self.failed_step = tokens.text[failed.start_char : failed.end_char]
        self.hint = ""
        self.hint_id: str | None = None


def repair_and_guide(session: Session) -> None:
    """Repair the extremely hard problems of the train split, and guide the hard ones."""
    repair_paths(session, write_hints(session))
    sample_guided(session)


def write_hints(session: Session) -> list[BrokenPath]:
    """Return the paths that got a hint; the teacher tries up to three times, every try is kept.

    A path without a breakpoint, or whose tries all leak, is dropped with the reason.
    """
    paths = _broken_paths(session)
    config = session.config.hints
    recipe_id = session.recipe(Kind.HINT, session.teacher, config.sampling, hint_prompt("{}", "{}", "{}", "{}"))
    waiting, last_refusal = list(paths), {}
    used: dict[str, tuple[str, bool]] = {}
    decisions: list[tuple[str, str, str, str | None, float | None]] = []
    for try_index in range(config.max_tries):
        slots = [
            (path.row["chunk_index"], _hint_slot(path, recipe_id, try_index, config.sampling.max_tokens))
            for path in waiting
        ]
        rows = sample_and_verify(session, "hints", slots, session.teacher, config.sampling, verify=False)
        used |= rows
        texts = read_tokens(session.store, [row_id for row_id, _ in rows.values()])
        refused = []
        for path, (_, slot) in zip(waiting, slots, strict=True):
            row_id = rows[slot.slot_id][0]
            hint = clean_hint(texts[row_id].text)
            result = check_hint(hint, path.row["answer"], path.row["question"])
            word = "kept" if result.passed else "dropped"
            decisions.append((row_id, path.row["problem_id"], word, result.gate, None))
            if result.passed:
                path.hint, path.hint_id = hint, row_id
            else:
                last_refusal[path.row["trajectory_id"]] = f"hint_{result.gate}"
                refused.append(path)
        waiting = refused
    session.close_phase("hints", "", Kind.HINT, dict(used.values()))
    session.record_decisions("hint_gate", decisions)
    session.record_decisions(
        "path",
        [
            (
                path.row["trajectory_id"],
                path.row["problem_id"],
                "kept" if path.hint_id else "dropped",
                None if path.hint_id else last_refusal[path.row["trajectory_id"]],
                None,
            )
            for path in paths
        ],
    )
    hinted = [path for path in paths if path.hint_id]
    logger.info("hints: %d of %d paths got one, in %d tries", len(hinted), len(paths), len(decisions))
    return hinted


def repair_paths(session: Session, paths: list[BrokenPath]) -> None:
    """Continue every hinted path several times from before its breakpoint, and grade the whole responses."""
    sampling = session.config.rollouts.sampling
    recipe_id = session.recipe(Kind.REPAIR, session.teacher, sampling, hinted_prompt("{}", "{}"))
    slots = [
        (path.row["chunk_index"], _repair_slot(session, path, recipe_id, index))
        for path in paths
        for index in range(session.config.repair.num_generations)
    ]
    used = sample_and_verify(session, "repairs", slots, session.teacher, sampling)
    session.close_phase("repairs", "", Kind.REPAIR, dict(used.values()))


def sample_guided(session: Session) -> None:
    """Sample solutions of the hard band with the answer in sight, and grade them."""
    config = session.config
    sampling = config.rollouts.sampling
    bands = read_bands(session.store, session.run_id, "train")
    recipe_id = session.recipe(Kind.GUIDED, session.teacher, sampling, guided_prompt("{}", "{}"))
    slots = [
        (
            problem["chunk_index"],
            Slot(
                Kind.GUIDED,
                problem["problem_id"],
                recipe_id,
                index,
                guided_prompt(problem["question"], problem["answer"]),
                sampling.max_tokens,
            ),
        )
        for problem in read_run_problems(session.store, session.run_id, "train")
        if bands[problem["problem_id"]] == Band.HARD
        for index in range(config.guided.num_generations)
    ]
    used = sample_and_verify(session, "guided", slots, session.teacher, sampling)
    session.close_phase("guided", "", Kind.GUIDED, dict(used.values()))


def _broken_paths(session: Session) -> list[BrokenPath]:
    """Return the paths to repair; those without a breakpoint are recorded as dropped."""
    rows = _wrong_rows(session)
    profiles = {
        profile["trajectory_id"]: profile
        for profile in read_profiles(session.store, [profile_key(session.config, row_id) for row_id in rows])
    }
    tokens = read_tokens(session.store, list(rows))
    broken = {row_id: row for row_id, row in rows.items() if profiles[row_id]["breakpoint_step"] is not None}
    session.record_decisions(
        "path",
        [
            (row_id, row["problem_id"], "dropped", "no_breakpoint", None)
            for row_id, row in rows.items()
            if row_id not in broken
        ],
    )
    return [BrokenPath(row, profiles[row_id], tokens[row_id]) for row_id, row in broken.items()]


def _wrong_rows(session: Session) -> dict[str, dict[str, Any]]:
    """Return the wrong rollouts to repair, by id: up to `max_paths` of each extremely hard training problem."""
    bands = read_bands(session.store, session.run_id, "train")
    rows = {
        row["trajectory_id"]: row
        for row in read_run_trajectories(session.store, session.run_id, "rollouts").iter_rows(named=True)
        if bands.get(row["problem_id"]) == Band.EXTREMELY_HARD and row["label"] == VerdictLabel.WRONG
    }
    by_problem: dict[str, list[WrongPath]] = {}
    for row_id, row in rows.items():
        path = WrongPath(row_id, row["problem_id"], row["sample_index"], row["cut"])
        by_problem.setdefault(row["problem_id"], []).append(path)
    chosen = [path for paths in by_problem.values() for path in choose_paths(paths, session.config.repair.max_paths)]
    return {path.trajectory_id: rows[path.trajectory_id] for path in chosen}


def _hint_slot(path: BrokenPath, recipe_id: str, try_index: int, limit_tokens: int) -> Slot:
    row = path.row
    return Slot(
        Kind.HINT,
        row["problem_id"],
        recipe_id,
        try_index,
        hint_prompt(row["question"], path.prefix, path.failed_step, row["answer"]),
        limit_tokens,
        parent_id=row["trajectory_id"],
        cut_tokens=len(path.prefix_token_ids),
    )


def _repair_slot(session: Session, path: BrokenPath, recipe_id: str, index: int) -> Slot:
    row = path.row
    return Slot(
        Kind.REPAIR,
        row["problem_id"],
        recipe_id,
        index,
        hinted_prompt(row["question"], path.hint),
        continuation_limit(session.config.rollouts.sampling, len(path.prefix_token_ids)),
        parent_id=row["trajectory_id"],
        hint_id=path.hint_id,
        prefix_token_ids=path.prefix_token_ids,
        prefix=path.prefix,
        cut_tokens=len(path.prefix_token_ids),
    )
