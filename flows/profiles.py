"""Phase: rollouts are cut into steps to find where each breaks, and the problems are sorted into bands."""

from __future__ import annotations

from flows.rollouts import into_shards
from heal_core.rescoring import find_rescorer
from heal_core.store.reads import read_run_trajectories
from tasks.decisions import assign_bands
from tasks.profiles import WORK, ProfileWork, profile_chunk
from tasks.rescoring import WORK as RESCORING
from tasks.rescoring import RescoreWork, note_breakpoints, open_rows, rescore_chunk
from tasks.session import Session, logger
from tasks.shards import run_shard


def profile_and_band(session: Session) -> None:
    """Cut the rollouts into steps, find where each breaks, and sort the problems into bands by pass rate."""
    session.enter_work(WORK)
    rows = read_run_trajectories(session.store, session.run_id, "rollouts").to_dicts()
    rows = [row for row in rows if row["problem_id"] not in session.quarantine]
    session.progress.begin(session.run_id, session.phase_name, WORK, "rollouts", len(rows))
    for chunks, shard in into_shards(session, rows, lambda row: int(row["chunk_index"])):
        for num_new in run_shard(
            session, profile_chunk, ProfileWork(session.config, chunks, shard, session.store.epoch)
        ):
            session.progress.advance(0, num_new)
        session.progress.advance(len(shard))
    session.finish_work()
    counts = assign_bands(session)
    logger.info("bands (train): %s", ", ".join(f"{band} {num}" for band, num in counts.items()))
    rescore(session)


def rescore(session: Session) -> None:
    """Read the rollouts again whose breakpoint the engine's entropies leave open, and note what each rests on."""
    session.enter_work(RESCORING)
    model = find_rescorer(session.config)
    rows = open_rows(session) if model is not None else []
    if model is not None and rows:
        session.progress.begin(session.run_id, session.phase_name, RESCORING, "rollouts", len(rows))
        for chunks, shard in into_shards(session, rows, lambda row: int(row["chunk_index"])):
            work = RescoreWork(session.config, chunks, shard, model, session.store.epoch)
            for _ in run_shard(session, rescore_chunk, work):
                pass
            session.progress.advance(len(shard))
        session.finish_work()
    counts = note_breakpoints(session, rows)
    if counts:
        logger.info(
            "breakpoints of rollouts without exact entropies: %s",
            ", ".join(f"{num} {outcome}" for outcome, num in counts.items()),
        )
