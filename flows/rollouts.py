"""Phase: the teacher attempts every problem, and the attempts are graded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any, TypeVar

from heal_core.engines.base import EngineConfig, SamplingConfig
from heal_core.plan import Slot, UsedRow
from heal_core.recipes import TEMPLATES
from heal_core.records import Kind
from heal_core.slots import rollout_slot
from heal_core.split import TRAIN
from tasks.imports import choose_imports
from tasks.policy import retried
from tasks.samples import SampleWork, VerifyWork, sample_chunk, verify_chunk
from tasks.session import Session, logger
from tasks.shards import run_shard

Item = TypeVar("Item")


def sample_rollouts(session: Session) -> None:
    """Take the imported rollouts of the training problems, sample from the teacher what lacks to N, and grade all."""
    config = session.config.rollouts
    recipe_id = session.recipe(Kind.ROLLOUT, session.teacher, config.sampling, TEMPLATES[Kind.ROLLOUT])
    problems = session.read_problems()
    imported = use_imported(session, problems)
    slots = [
        slot
        for problem in problems
        for slot in rollout_slots(
            [problem],
            recipe_id,
            range(len(imported.get(problem["problem_id"], ())), config.num_generations),
            config.sampling,
        )
    ]
    used = sample_and_verify(session, "rollouts", slots, session.teacher, config.sampling)
    rows = {row.row_id: row.cut for rows in imported.values() for row in rows}
    session.close_phase("rollouts", "", Kind.ROLLOUT, rows | dict(used.values()))


def use_imported(session: Session, problems: Sequence[dict[str, Any]]) -> dict[str, list[UsedRow]]:
    """Return the imported rollouts that the run uses, by training problem, graded."""
    chosen = choose_imports(session, [problem for problem in problems if problem["split"] == TRAIN])
    chunk_of = {problem["problem_id"]: problem["chunk_index"] for problem in problems}
    if chosen.num_read_otherwise:
        logger.warning(
            "%d imported rollouts of these problems are not used: another teacher, or another version of it, has read "
            "them. `heal import` with this config brings them again",
            chosen.num_read_otherwise,
        )
    items = [(chunk_of[problem_id], row) for problem_id, rows in chosen.by_problem.items() for row in rows]
    if items:
        logger.info("%d imported rollouts of %d problems are used", len(items), len(chosen.by_problem))
    grade = retried(verify_chunk, session.config.failures)
    for chunks, shard in into_shards(session, items, lambda item: item[0]):
        row_ids = [row.row_id for _, row in shard]
        grade(session, VerifyWork("imported rollouts", chunks, row_ids, session.config.verify, session.store.epoch))
    return chosen.by_problem


def rollout_slots(
    problems: Iterable[dict[str, Any]], recipe_id: str, sample_indices: Iterable[int], sampling: SamplingConfig
) -> list[tuple[int, Slot]]:
    """Return the slots of plain attempts, each with its problem's chunk."""
    indices = list(sample_indices)
    return [
        (problem["chunk_index"], rollout_slot(problem, recipe_id, index, sampling))
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
    turn: str = "",
) -> dict[str, tuple[str, bool]]:
    """Return, by slot, the row used and whether it is cut; grading overlaps with sampling the next shard.

    Problems in quarantine have no rows; `turn` tells apart several such works of a phase.
    """
    used: dict[str, tuple[str, bool]] = {}
    verdicts = []
    num_done = 0
    epoch = session.store.epoch
    work = f"{phase} {turn}".strip()
    session.enter_work(work)
    slots = [(chunk, slot) for chunk, slot in slots if slot.problem_id not in session.quarantine]
    session.progress.begin(session.run_id, session.phase_name, work, "samples", len(slots))
    try:
        for chunks, group in into_shards(session, slots, lambda item: item[0]):
            shard = SampleWork(phase, chunks, [slot for _, slot in group], model, sampling, epoch, turn)
            rows: dict[str, tuple[str, bool]] = {}
            for sampled in run_shard(session, sample_chunk, shard):
                rows |= {slot_id: (row_id, cut) for slot_id, (row_id, cut) in sampled.items()}
            num_done += len(shard.slots)
            session.progress.reach(num_done)
            used |= rows
            if verify:
                ids = [row_id for row_id, _ in rows.values()]
                grade = retried(verify_chunk, session.config.failures)
                verdicts.append(grade.submit(session, VerifyWork(work, chunks, ids, session.config.verify, epoch)))
    finally:
        for future in verdicts:  # they write to the store, which must not be closed before
            future.wait()
    for future in verdicts:
        future.result()
    session.finish_work()
    return used


def into_shards(
    session: Session, items: Iterable[Item], chunk_of: Callable[[Item], int]
) -> Iterator[tuple[str, list[Item]]]:
    """Yield items by whole chunks of problems, with the chunks' name: as many chunks together as make one shard.

    A shard has at least as many items as a chunk has rollouts, so that work with few items per
    problem makes few tasks, and full batches.
    """
    min_items = session.config.chunk_problems * session.config.rollouts.num_generations
    shard: list[Item] = []
    first = last = 0
    for chunk_index, chunk in groupby(sorted(items, key=chunk_of), key=chunk_of):
        first, last = (chunk_index if not shard else first), chunk_index
        shard += chunk
        if len(shard) >= min_items:
            yield _name(first, last), shard
            shard = []
    if shard:
        yield _name(first, last), shard


def _name(first: int, last: int) -> str:
    return f"chunk {first}" if first == last else f"chunks {first} to {last}"
