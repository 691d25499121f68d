"""Which imported rollouts the run of a session uses. Taking them in is `heal import`, without tasks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from heal_core.engines.identity import identify_model
from heal_core.imports.identity import template_of
from heal_core.imports.use import ChosenImports, choose_imported
from heal_core.reference import reference_of
from tasks.session import Session


def choose_imports(session: Session, problems: Iterable[Mapping[str, Any]]) -> ChosenImports:
    """Return the imported rollouts of training problems that the run uses; none where its settings say so.

    Args:
        problems: Rows of the table problems.
    """
    config = session.config.rollouts
    if not config.use_imported:
        return ChosenImports({}, 0)
    teacher = identify_model(session.teacher)
    templates = {problem["problem_id"]: template_of(reference_of(problem)) for problem in problems}
    return choose_imported(session.store, teacher, templates, config.num_generations, config.sampling.max_tokens)
