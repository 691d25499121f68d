"""Which imported rollouts a run uses: of each training problem the first ones, as many as the run wants rollouts.

Held-out problems get none: what a run measures it has sampled itself, the teacher's row like the students'. What does
not belong here: taking them in (`take_in`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from heal_core.imports.identity import reading_key
from heal_core.plan import UsedRow, choose_row
from heal_core.store.imports import count_read_otherwise, read_imported
from heal_core.store.reading import Readable


@dataclass(frozen=True)
class ChosenImports:
    """What a run uses, by problem, and how many of its problems' imports it cannot use: another teacher read them."""

    by_problem: dict[str, list[UsedRow]]
    num_read_otherwise: int

    @property
    def row_ids(self) -> list[str]:
        """Return the rollouts, sorted."""
        return sorted(row.row_id for rows in self.by_problem.values() for row in rows)


def choose_imported(
    store: Readable, teacher: Mapping[str, Any], templates: Mapping[str, str], num_generations: int, max_tokens: int
) -> ChosenImports:
    """Return the imported rollouts that a run uses.

    Args:
        teacher: What the run's teacher is (`identify_model`): only what it has read is used.
        templates: The prompt of each of its training problems (`identity.template_of`), by problem id.
        num_generations: Rollouts wanted per problem, N.
        max_tokens: The run's limit: a text that is not shorter counts as cut, and so does one that was cut.
    """
    by_problem: dict[str, list[UsedRow]] = {}
    num_read_otherwise = 0
    for template in sorted(set(templates.values())):
        reading_id = reading_key(teacher, template)
        problem_ids = [problem_id for problem_id, its_own in templates.items() if its_own == template]
        for problem_id, attempts in read_imported(store, reading_id, problem_ids).items():
            by_problem[problem_id] = [choose_row([attempt], max_tokens) for attempt in attempts[:num_generations]]
        num_read_otherwise += count_read_otherwise(store, reading_id, problem_ids)
    return ChosenImports(by_problem, num_read_otherwise)
