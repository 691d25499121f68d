"""Tasks that sample texts and grade them, a chunk of problems at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from heal_core.engines.base import EngineConfig, SamplingConfig
from heal_core.fill import fill_slots
from heal_core.grading import grade_missing
from heal_core.keys import content_key
from heal_core.plan import Slot
from heal_core.records import Completion
from heal_core.spend import Spend
from heal_core.verify.config import VerifyConfig
from heal_core.verify.grade import verifier_identities
from tasks.policy import cached_task
from tasks.session import Session


class SampleWork:
    """The slots of one chunk, all of one kind and one model; `turn` tells apart several works of a phase."""

    def __init__(
        self,
        phase: str,
        chunks: str,
        slots: Sequence[Slot],
        model: EngineConfig,
        sampling: SamplingConfig,
        epoch: str,
        turn: str = "",
    ) -> None:
        self.phase = phase
        self.slots = slots
        self.model = model
        self.sampling = sampling
        self.work = f"{phase} {turn}".strip()
        self.label = f"{self.work} {chunks}"
        demand = sorted([slot.slot_id, slot.limit_tokens] for slot in slots)
        self.cache_key = content_key("sample", phase, demand, epoch)
        self._of = (chunks, epoch, turn)

    def by_problem(self) -> dict[str, SampleWork]:
        """Return the same work, cut into one per problem."""
        chunks, epoch, turn = self._of
        slots: dict[str, list[Slot]] = {}
        for slot in self.slots:
            slots.setdefault(slot.problem_id, []).append(slot)
        works = {
            problem_id: SampleWork(self.phase, chunks, own, self.model, self.sampling, epoch, turn)
            for problem_id, own in slots.items()
        }
        for problem_id, work in works.items():
            work.label += f" problem {problem_id}"
        return works


@cached_task("sample")
def sample_chunk(session: Session, work: SampleWork) -> dict[str, list[Any]]:
    """Return, by slot, the row id a run uses and whether it counts as cut; sample what is missing."""
    with session.engine_lock:
        filled = fill_slots(
            session.store,
            lambda: session.engine(work.model),
            work.slots,
            work.sampling,
            lambda completion: _count(session, work.model, completion),
            session.budget,
        )
    session.count(work.phase, filled.num_sampled)
    session.count("tokens", filled.num_sampled_tokens)
    return {slot_id: [row.row_id, row.cut] for slot_id, row in filled.used.items()}


def _count(session: Session, model: EngineConfig, completion: Completion) -> None:
    session.spend(Spend.of(completion), model.price)
    session.progress.advance(1, 1, len(completion.token_ids))


class VerifyWork:
    """Rows of one chunk that need a verdict within a time limit."""

    def __init__(self, work: str, chunks: str, row_ids: Sequence[str], config: VerifyConfig, epoch: str) -> None:
        self.row_ids = sorted(row_ids)
        self.config = config
        self.label = f"{work} {chunks}"
        self.cache_key = content_key("verify", verifier_identities(config), config.timeout_seconds, self.row_ids, epoch)


@cached_task("verify")
def verify_chunk(session: Session, work: VerifyWork) -> dict[str, int]:
    """Return how many verdicts were newly made, by label; grade what has none from this verifier."""
    counts = grade_missing(session.store, session.verifiers, work.row_ids, work.config)
    session.count("verdicts", sum(counts.values()))
    return counts
