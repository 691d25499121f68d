"""Storing problems: each gets the chunk that it is worked on in, for ever."""

from __future__ import annotations

from collections.abc import Sequence

from heal_core.records import Problem
from heal_core.store.reads import next_chunk_index, read_known
from heal_core.store.store import Store


def store_problems(store: Store, problems: Sequence[Problem], chunk_problems: int) -> None:
    """Store the problems that are new; they get the chunks after those in use, `chunk_problems` in each."""
    known = read_known(store, "problems", "problem_id", [p.problem_id for p in problems])
    first_chunk = next_chunk_index(store)
    fresh = [problem for problem in problems if problem.problem_id not in known]
    store.append(
        "problems",
        [
            {
                "problem_id": problem.problem_id,
                "question": problem.question,
                "answer": problem.answer,
                "source": problem.source,
                "uuid": problem.uuid,
                "problem_type": problem.problem_type,
                "spec": problem.spec or None,
                "chunk_index": first_chunk + position // chunk_problems,
            }
            for position, problem in enumerate(fresh)
        ],
    )
