"""Phase: GEAR. Wrong paths of extremely hard problems get a hint at their breakpoint and are continued;
hard problems get samples with the answer in sight."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

from flows.rollouts import sample_and_verify
from heal_core.quotas import candidate_waves
from heal_core.recipes import TEMPLATES, repair_template
from heal_core.records import Band, Kind
from heal_core.repair import BrokenPath, Hint, hint_slot, repair_slot, tell_answers
from heal_core.slots import guided_slot
from tasks.repairs import cut_paths, find_satisfied_problems, judge_hints, record_paths, record_quota
from tasks.session import Session, logger

ChunkedPaths = list[tuple[int, BrokenPath]]
Tries = list[tuple[BrokenPath, str]]
"""Paths with the row of a try at their hint."""


def repair_and_guide(session: Session) -> None:
    """Repair the extremely hard problems of the train split, and guide the hard ones."""
    paths: ChunkedPaths = cut_paths(session)
    repair_paths(session, paths, write_hints(session, paths))
    sample_guided(session)


def write_hints(session: Session, paths: ChunkedPaths) -> dict[str, Hint]:
    """Return what each path is continued under: its accepted hint, or in the arm `answer` the answer."""
    hints, used = try_hints(session, "hints", paths, lambda tries: judge_hints(session, tries))
    session.close_phase("hints", "", Kind.HINT, used)
    num_hinted = record_paths(session, [path for _, path in paths], hints)
    logger.info("hints: %d of %d paths got one, in %d tries", num_hinted, len(paths), len(used))
    return hints


def write_control_hints(session: Session, arm: str, paths: ChunkedPaths) -> dict[str, Hint]:
    """Return the same for a control that cuts paths elsewhere."""
    hints, used = try_hints(session, "control_hints", paths, lambda tries: judge_hints(session, tries, arm), arm)
    session.close_phase("control_hints", arm, Kind.HINT, used)
    return hints


def try_hints(
    session: Session, phase: str, paths: ChunkedPaths, judge: Callable[[Tries], dict[str, Hint]], turn: str = ""
) -> tuple[dict[str, Hint], dict[str, bool]]:
    """Return the accepted hints by path, and all tries; the teacher tries again for paths that have none.

    Args:
        judge: Returns which tries are accepted, by path.
        turn: Tells apart several such works of a phase.
    """
    if session.config.hints.arm == "answer":
        return tell_answers([path for _, path in paths if path.problem_id not in session.quarantine]), {}
    sampling = session.config.hints.sampling
    recipe_id = session.recipe(Kind.HINT, session.teacher, sampling, TEMPLATES[Kind.HINT])
    hints: dict[str, Hint] = {}
    used: dict[str, bool] = {}
    for try_index in range(session.config.hints.max_tries):
        waiting = [(chunk, path) for chunk, path in paths if path.trajectory_id not in hints]
        slots = [(chunk, hint_slot(path, recipe_id, try_index, sampling)) for chunk, path in waiting]
        name = f"{turn} try {try_index}".strip()
        rows = sample_and_verify(session, phase, slots, session.teacher, sampling, verify=False, turn=name)
        used |= dict(rows.values())
        tries = [
            (path, rows[slot.slot_id][0])
            for (_, path), (_, slot) in zip(waiting, slots, strict=True)
            if slot.slot_id in rows
        ]
        hints |= judge(tries)
    return hints, used


def repair_paths(session: Session, paths: ChunkedPaths, hints: dict[str, Hint]) -> None:
    """Continue every hinted path several times from before its breakpoint, and grade the whole responses.

    In waves where there is a quota: a problem that has enough verified repairs is not in the next one.
    """
    config, sampling = session.config.repair, session.config.rollouts.sampling
    recipe_id = session.recipe(Kind.REPAIR, session.teacher, sampling, repair_template(session.config.hints))
    hinted = [(chunk, path) for chunk, path in paths if path.trajectory_id in hints]
    rows: dict[str, dict[str, bool]] = defaultdict(dict)
    satisfied: frozenset[str] = frozenset()
    for wave, indices in enumerate(candidate_waves(config.num_generations, config.quota)):
        slots = [
            (chunk, repair_slot(path, hints[path.trajectory_id], recipe_id, index, sampling))
            for chunk, path in hinted
            if path.problem_id not in satisfied
            for index in indices
        ]
        turn = f"wave {wave}" if config.quota else ""
        used = sample_and_verify(session, "repairs", slots, session.teacher, sampling, turn=turn)
        for _, slot in slots:
            if slot.slot_id in used:
                row_id, cut = used[slot.slot_id]
                rows[slot.problem_id][row_id] = cut
        satisfied = find_satisfied_problems(session, rows)
    for problem_id in session.quarantine.problem_ids & rows.keys():  # it may have failed in a later wave
        del rows[problem_id]
    session.close_phase(
        "repairs", "", Kind.REPAIR, {row_id: cut for own in rows.values() for row_id, cut in own.items()}
    )
    if num_skipped := record_quota(session, [path for _, path in hinted], rows, satisfied):
        logger.info("quota: %d continuations were not needed", num_skipped)


def sample_guided(session: Session) -> None:
    """Sample solutions of the hard band with the answer in sight, and grade them."""
    sampling = session.config.rollouts.sampling
    bands = session.read_bands("train")
    recipe_id = session.recipe(Kind.GUIDED, session.teacher, sampling, TEMPLATES[Kind.GUIDED])
    slots = []
    for problem in session.read_problems("train"):
        if bands[problem["problem_id"]] != Band.HARD:
            continue
        slots += [
            (problem["chunk_index"], guided_slot(problem, recipe_id, index, sampling))
            for index in range(session.config.guided.num_generations)
        ]
    used = sample_and_verify(session, "guided", slots, session.teacher, sampling)
    session.close_phase("guided", "", Kind.GUIDED, dict(used.values()))
