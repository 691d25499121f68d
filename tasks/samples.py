"""Tasks that sample texts and grade them, a chunk of problems at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from heal_core.engines.base import EngineConfig, SamplingConfig
from heal_core.fill import fill_slots
from heal_core.keys import content_key
from heal_core.plan import Slot
from heal_core.records import VerdictLabel
from heal_core.store.reads import read_known, read_texts
from heal_core.verify.grade import PROBLEM_TYPES, verifier_identity
from heal_core.verify.pool import GradeItem
from tasks.policy import cached_task
from tasks.session import Session


class SampleWork:
    """The slots of one chunk, all of one kind and one model."""

    def __init__(
        self,
        phase: str,
        chunk_index: int,
        slots: Sequence[Slot],
        model: EngineConfig,
        sampling: SamplingConfig,
        epoch: str,
    ) -> None:
        self.phase = phase
        self.slots = slots
        self.model = model
        self.sampling = sampling
        self.label = f"{phase} chunk {chunk_index}"
        demand = sorted([slot.slot_id, slot.limit_tokens] for slot in slots)
        self.cache_key = content_key("sample", phase, demand, epoch)


@cached_task("sample")
def sample_chunk(session: Session, work: SampleWork) -> dict[str, list[Any]]:
    """Return, by slot, the row id a run uses and whether it counts as cut; sample what is missing."""
    with session.engine_lock:
        filled = fill_slots(session.store, lambda: session.engine(work.model), work.slots, work.sampling)
    session.made[work.phase] += filled.num_sampled
    session.made["tokens"] += filled.num_sampled_tokens
    return {slot_id: [row.row_id, row.cut] for slot_id, row in filled.used.items()}


class VerifyWork:
    """Rows of one chunk that need a verdict."""

    def __init__(self, phase: str, chunk_index: int, row_ids: Sequence[str], epoch: str) -> None:
        self.row_ids = sorted(row_ids)
        self.label = f"{phase} chunk {chunk_index}"
        verifiers = [verifier_identity(problem_type) for problem_type in PROBLEM_TYPES]
        self.cache_key = content_key("verify", verifiers, self.row_ids, epoch)


def verdict_key(item: GradeItem) -> str:
    """Return the id of a text's verdict by the verifier of its problem type."""
    return content_key("verdict", item.item_id, verifier_identity(item.problem_type))


@cached_task("verify")
def verify_chunk(session: Session, work: VerifyWork) -> dict[str, int]:
    """Return how many verdicts were newly made, by label; grade what has none from this verifier."""
    texts = read_texts(session.store, work.row_ids)
    items = {
        verdict_key(item): item
        for item in (
            GradeItem(row["trajectory_id"], row["response"], row["answer"], row["problem_type"]) for row in texts
        )
    }
    known = read_known(session.store, "verdicts", "verdict_id", list(items))
    missing = {item.item_id: key for key, item in items.items() if key not in known}
    counts = {str(label): 0 for label in VerdictLabel}
    rows = []
    for row_id, verdict in session.verifiers.grade_all([items[key] for key in missing.values()]):
        counts[verdict.label] += 1
        rows.append(
            {
                "verdict_id": missing[row_id],
                "trajectory_id": row_id,
                "label": str(verdict.label),
                "extracted": verdict.extracted,
                "reason": verdict.reason,
                "verifier": verdict.verifier,
                "verifier_version": verdict.verifier_version,
                "seconds": verdict.seconds,
            }
        )
    rows.sort(key=lambda row: str(row["verdict_id"]))
    session.store.append("verdicts", rows)
    return counts
