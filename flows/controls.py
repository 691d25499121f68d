"""Phase: the controls B3 to B8, and the ceiling: how much of what is extremely hard plain sampling solves after all.

A control differs from HEAL in one thing. B4, B5, B8 and the arm `answer` of hints continue HEAL's wrong paths in their
own way, and what comes of it goes through the same gates, PURE and cap; B3, B6 and B7 choose or order anew.
"""

from __future__ import annotations

from collections.abc import Callable

from flows.repair import write_control_hints
from flows.rollouts import rollout_slots, sample_and_verify
from flows.selection import score_repairs
from heal_core.arms import (
    ANSWER_TOLD,
    MISMATCHED_HINT,
    RANDOM_BREAKPOINT,
    RANDOM_DROP,
    SHUFFLED,
    UNHINTED,
    WITHOUT_REPAIRS,
)
from heal_core.plan import Slot
from heal_core.recipes import TEMPLATES, repair_template
from heal_core.records import Band, Kind
from heal_core.repair import BrokenPath, Hint, plain_slot, repair_slot, tell_answers
from tasks.controls import (
    CONTROL_SCORE,
    ChunkedPaths,
    build_control_stages,
    cut_hinted_paths,
    cut_paths_at_random,
    gate_control,
    give_other_hints,
    record_control_paths,
    select_at_random,
    select_control,
)
from tasks.session import Session, logger


def run_controls(session: Session) -> None:
    """Make the examples of the controls that the config switches on, and sample the ceiling."""
    config = session.config.controls
    sample_ceiling(session)
    ways = {
        UNHINTED: continue_unhinted,
        RANDOM_BREAKPOINT: continue_from_random,
        MISMATCHED_HINT: continue_mismatched,
        ANSWER_TOLD: continue_told,
    }
    for arm in config.continued:
        ways[arm](session)
        _finish(session, arm, _select(session, arm))
    if config.without_repairs:
        _finish(session, WITHOUT_REPAIRS, ())
    if config.random_drop:
        _finish(session, RANDOM_DROP, select_at_random(session))
    if config.shuffled:
        _finish(session, SHUFFLED, ())


def sample_ceiling(session: Session) -> None:
    """Sample plain rollouts of the extremely hard training problems until each has `controls.ceiling_samples`."""
    num = session.config.controls.ceiling_samples
    first = session.config.rollouts.num_generations
    if num <= first:
        return
    sampling = session.config.rollouts.sampling
    recipe_id = session.recipe(Kind.ROLLOUT, session.teacher, sampling, TEMPLATES[Kind.ROLLOUT])
    bands = session.read_bands("train")
    problems = [row for row in session.read_problems("train") if bands.get(row["problem_id"]) == Band.EXTREMELY_HARD]
    slots = rollout_slots(problems, recipe_id, range(first, num), sampling)
    used = sample_and_verify(session, "ceiling", slots, session.teacher, sampling)
    session.close_phase("ceiling", "", Kind.ROLLOUT, dict(used.values()))


def continue_unhinted(session: Session) -> None:
    """B4: the same prefixes, as many continuations, no hint."""
    sampling = session.config.rollouts.sampling
    recipe_id = session.recipe(Kind.REPAIR, session.teacher, sampling, TEMPLATES[Kind.ROLLOUT])
    paths = cut_hinted_paths(session)
    _continue(session, UNHINTED, paths, lambda path, index: plain_slot(path, recipe_id, index, sampling))
    broken = [path for _, path in paths]
    record_control_paths(session, UNHINTED, broken, {path.trajectory_id for path in broken})


def continue_from_random(session: Session) -> None:
    """B5: the wrong paths cut at a random step of the same window, with hints written for that place."""
    paths, small_windows = cut_paths_at_random(session)
    hints = write_control_hints(session, RANDOM_BREAKPOINT, paths)
    _continue_hinted(session, RANDOM_BREAKPOINT, paths, hints, repair_template(session.config.hints))
    broken = [path for _, path in paths]
    record_control_paths(session, RANDOM_BREAKPOINT, broken, hints, "no_acceptable_hint", small_windows)


def continue_mismatched(session: Session) -> None:
    """B8: the same prefixes, under the hint that was written for another problem."""
    paths = cut_hinted_paths(session)
    broken = [path for _, path in paths]
    hints = give_other_hints(session, broken)
    _continue_hinted(session, MISMATCHED_HINT, paths, hints, TEMPLATES[Kind.REPAIR])
    record_control_paths(session, MISMATCHED_HINT, broken, hints, "no_other_hint")


def continue_told(session: Session) -> None:
    """The arm of hints `answer`: the same prefixes, with the answer in sight."""
    paths = cut_hinted_paths(session)
    broken = [path for _, path in paths]
    _continue_hinted(session, ANSWER_TOLD, paths, tell_answers(broken), TEMPLATES[Kind.GUIDED])
    record_control_paths(session, ANSWER_TOLD, broken, {path.trajectory_id for path in broken})


def _continue_hinted(session: Session, arm: str, paths: ChunkedPaths, hints: dict[str, Hint], template: str) -> None:
    sampling = session.config.rollouts.sampling
    recipe_id = session.recipe(Kind.REPAIR, session.teacher, sampling, template)
    hinted = [(chunk, path) for chunk, path in paths if path.trajectory_id in hints]
    _continue(
        session,
        arm,
        hinted,
        lambda path, index: repair_slot(path, hints[path.trajectory_id], recipe_id, index, sampling),
    )


def _continue(session: Session, arm: str, paths: ChunkedPaths, make_slot: Callable[[BrokenPath, int], Slot]) -> None:
    """Sample as many continuations of each path as HEAL does, and grade them."""
    slots = [
        (chunk, make_slot(path, index))
        for chunk, path in paths
        for index in range(session.config.repair.num_generations)
    ]
    sampling = session.config.rollouts.sampling
    used = sample_and_verify(session, "control_repairs", slots, session.teacher, sampling, turn=arm)
    session.close_phase("control_repairs", arm, Kind.REPAIR, dict(used.values()))


def _select(session: Session, arm: str) -> tuple[str, ...]:
    """Return the repairs of a control that become examples."""
    used = score_repairs(session, gate_control(session, arm), "control_repairs", arm)
    session.close_phase("control_pure", arm, CONTROL_SCORE, used)
    kept: tuple[str, ...] = select_control(session, arm)
    return kept


def _finish(session: Session, arm: str, repairs: tuple[str, ...]) -> None:
    num = build_control_stages(session, arm, repairs)
    logger.info("%s: %d repairs kept, %d examples in the last stage", arm, len(repairs), num)
