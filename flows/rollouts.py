"""Phase: the teacher attempts every problem; attempts are graded, profiled, and the problems banded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any, TypeVar

from heal_core.engines.base import EngineConfig, SamplingConfig
from heal_core.plan import Slot
from heal_core.prompts import student_prompt
from heal_core.records import Kind
from heal_core.store.reads import read_run_problems, read_run_trajectories
from tasks.decisions import assign_bands
from tasks.profiles import ProfileWork, profile_chunk
from tasks.samples import SampleWork, VerifyWork, sample_chunk, verify_chunk
from tasks.session import Session, logger

Row = TypeVar("Row", bound=dict[str, Any])


def sample_rollouts(session: Session) -> None:
    """Sample N rollouts of every problem from the teacher, and grade them."""
    config = session.config.rollouts
    recipe_id = session.recipe(Kind.ROLLOUT, session.teacher, config.sampling, student_prompt("{}"))
    problems = read_run_problems(session.store, session.run_id)
    slots = rollout_slots(problems, recipe_id, range(config.num_generations), config.sampling)
    used = sample_and_verify(session, "rollouts", slots, session.teacher, config.sampling)
    session.close_phase("rollouts", "", Kind.ROLLOUT, dict(used.values()))


def profile_and_band(session: Session) -> None:
    """Cut the rollouts into steps, find where each breaks, and sort the problems into bands by pass rate."""
    rows = read_run_trajectories(session.store, session.run_id, "rollouts").to_dicts()
    for chunk_index, chunk in by_chunk(rows):
        ids = [row["trajectory_id"] for row in chunk]
        profile_chunk(session, ProfileWork(session.config, chunk_index, ids, session.store.epoch))
    counts = assign_bands(session)
    logger.info("bands (train): %s", ", ".join(f"{band} {num}" for band, num in counts.items()))


def rollout_slots(
    problems: Iterable[dict[str, Any]], recipe_id: str, sample_indices: Iterable[int], sampling: SamplingConfig
) -> list[tuple[int, Slot]]:
    """Return the slots of plain attempts, each with its problem's chunk."""
    indices = list(sample_indices)
    return [
        (
            problem["chunk_index"],
            Slot(
                Kind.ROLLOUT,
                problem["problem_id"],
                recipe_id,
                index,
                student_prompt(problem["question"]),
                sampling.max_tokens,
            ),
        )
        for problem in problems
        for index in indices
    ]


def sample_and_verify(
    session: Session,
    phase: str,
    slots: Sequence[tuple[int, Slot]],
    model: EngineConfig,
    sampling: SamplingConfig,
    verify: bool = True,
) -> dict[str, tuple[str, bool]]:
    """Return, by slot, the row used and whether it is cut; grading overlaps with sampling the next chunk."""
    used: dict[str, tuple[str, bool]] = {}
    verdicts = []
    epoch = session.store.epoch
    for chunk_index, group in groupby(sorted(slots, key=lambda item: item[0]), key=lambda item: item[0]):
        work = SampleWork(phase, chunk_index, [slot for _, slot in group], model, sampling, epoch)
        rows = {slot_id: (row_id, cut) for slot_id, (row_id, cut) in sample_chunk(session, work).items()}
        used |= rows
        if verify:
            ids = [row_id for row_id, _ in rows.values()]
            verdicts.append(
                verify_chunk.submit(session, VerifyWork(phase, chunk_index, ids, session.config.verify, epoch))
            )
    for future in verdicts:
        future.result()
    return used


def by_chunk(rows: Iterable[Row]) -> Iterator[tuple[int, list[Row]]]:
    """Yield the rows of each chunk of problems, by the rows' `chunk_index`."""
    ordered = sorted(rows, key=lambda row: row["chunk_index"])
    for chunk_index, chunk in groupby(ordered, key=lambda row: row["chunk_index"]):
        yield chunk_index, list(chunk)
