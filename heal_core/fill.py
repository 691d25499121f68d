"""Fill slots from an engine, durably: find what is missing, sample it, store as it comes.

The one verb behind every sampled kind (rollouts, hints, guided samples, repairs, and the
students' answers in an evaluation). Running it again is the resume.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from heal_core.budget import TokenBudget
from heal_core.engines.base import Engine, SamplingConfig
from heal_core.plan import Slot, UsedRow, choose_row, find_missing
from heal_core.records import Completion
from heal_core.store.reads import read_attempts
from heal_core.store.store import Store

FLUSH_SECONDS = 30.0


@dataclass(frozen=True)
class Filled:
    """What a demand came to: the row each slot uses, and what was newly made for it."""

    used: dict[str, UsedRow]
    num_sampled: int
    num_sampled_tokens: int


def fill_slots(
    store: Store,
    start_engine: Callable[[], Engine],
    slots: Sequence[Slot],
    sampling: SamplingConfig,
    on_sampled: Callable[[Completion], None] = lambda completion: None,
    budget: TokenBudget | None = None,
) -> Filled:
    """Return the row that each slot uses, sampling those that no stored attempt answers.

    Finished rows are stored every 30 s, at the end, and when the engine fails; it is started
    only when something is missing. `on_sampled` is told each new completion.

    Raises:
        BudgetSpentError: If the budget is spent; finished rows are stored, and texts in flight are given up.
    """
    missing = {slot.slot_id: slot for slot in find_missing(slots, read_attempts(store, slots))}
    budget = budget or TokenBudget()
    waiting, lengths = list(missing.values()), list[int]()
    while waiting:
        count = budget.count_affordable([slot.limit_tokens for slot in waiting], lengths)
        wave, waiting = waiting[:count], waiting[count:]
        with closing(_sample(store, start_engine(), wave, sampling)) as sampled:
            for completion in sampled:
                lengths.append(len(completion.token_ids))
                on_sampled(completion)
                budget.spend(lengths[-1])
    attempts = read_attempts(store, slots)
    used = {slot.slot_id: choose_row(attempts[slot.slot_id], slot.limit_tokens) for slot in slots}
    return Filled(used, len(missing), sum(lengths))


def _sample(
    store: Store, engine: Engine, slots: Sequence[Slot], sampling: SamplingConfig
) -> Generator[Completion, None, None]:
    """Yield each completion as it comes; however it ends, what came is stored."""
    by_id = {slot.slot_id: slot for slot in slots}
    completions = engine.generate([slot.request() for slot in slots], sampling)
    rows: list[dict[str, Any]] = []
    flushed = time.monotonic()
    try:
        for completion in completions:
            rows.append(trajectory_row(by_id[completion.slot_id], completion))
            if time.monotonic() - flushed > FLUSH_SECONDS:
                store.append("trajectories", rows)
                rows, flushed = [], time.monotonic()
            yield completion
    finally:
        store.append("trajectories", rows)
        if isinstance(completions, Generator):
            completions.close()  # now, not when it is collected: it stops what is in flight


def trajectory_row(slot: Slot, completion: Completion) -> dict[str, Any]:
    """Return the stored form of a completion."""
    num_tokens = len(completion.token_ids)
    return {
        "trajectory_id": slot.row_id,
        "slot_id": slot.slot_id,
        "kind": str(slot.kind),
        "problem_id": slot.problem_id,
        "parent_id": slot.parent_id,
        "hint_id": slot.hint_id,
        "recipe_id": slot.recipe_id,
        "sample_index": slot.sample_index,
        "limit_tokens": slot.limit_tokens,
        "prefix": slot.prefix,
        "text": completion.text,
        "finish_reason": str(completion.finish_reason),
        "num_prefix_tokens": len(slot.prefix_token_ids),
        "num_tokens": num_tokens,
        "num_prompt_tokens": completion.num_prompt_tokens,
        "num_cached_tokens": completion.num_cached_tokens,
        "entropy_source": completion.entropy_source,
        "mean_entropy_nats": float(completion.entropies.mean()) if num_tokens else None,
        "mean_logprob_nats": float(completion.logprobs.mean()) if num_tokens else None,
        "seconds": completion.seconds,
        "created_at": datetime.now(UTC),
        # arrays of the stored types are taken as they are, which lists are not
        "token_ids": completion.token_ids.astype(np.int32),
        "logprobs": completion.logprobs.astype(np.float32),
        "entropies": completion.entropies.astype(np.float32),
        "token_starts": completion.token_starts.astype(np.int32),
        "entropy_radii": None if completion.entropy_radii is None else completion.entropy_radii.astype(np.float32),
    }
