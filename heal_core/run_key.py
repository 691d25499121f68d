"""What makes a run this run: its id before attempts are counted.

What does not belong here: which attempt a start goes on with (`tasks.problems`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from heal_core import __version__
from heal_core.config import RunConfig
from heal_core.gate_rules import shipped_rules
from heal_core.keys import STAGE_VERSIONS, content_key
from heal_core.prompts import prompt_templates, rationale_prompt
from heal_core.pure import AUTO
from heal_core.records import Problem
from heal_core.validity.config import VALIDITY_VERSION
from heal_core.verify.grade import verifier_identity


def problems_digest(problems: Iterable[Problem]) -> str:
    """Return the content key of problems with their sides and clusters."""
    return content_key(sorted([p.problem_id, p.split, p.cluster_id] for p in problems))


def basis_key(
    config: RunConfig,
    models: Sequence[Mapping[str, Any]],
    problems: Sequence[Problem],
    imported_row_ids: Sequence[str] = (),
    evaluated: Sequence[Any] = (),
    harness: Mapping[str, Any] | None = None,
) -> str:
    """Return the id that all attempts of a run share, 12 hexadecimal digits.

    Args:
        models: What teacher, scorer and student are (`identify_model`).
        imported_row_ids: The imported rollouts that it uses, sorted.
        evaluated: Only for a run that evaluates: its purpose, and the promoted student or what the given one is.
        harness: Only with `evaluation.lm_eval`: what `identify_harness` says.
    """
    made_of: list[Any] = [
        __version__,
        STAGE_VERSIONS,
        prompt_templates(),
        shipped_rules().model_dump(),
        config.identity(),
        list(models),
        [verifier_identity(kind, config.verify) for kind in sorted({problem.problem_type for problem in problems})],
        problems_digest(problems),
    ]
    if evaluated:
        made_of.append(list(evaluated))
    if harness:
        made_of.append(["lm_eval", dict(harness)])
    if config.pure.score == AUTO:
        made_of.append(["validity", VALIDITY_VERSION, rationale_prompt("", "")])
    if imported_row_ids:
        made_of.append(["imported", list(imported_row_ids)])
    return content_key("run", *made_of)[:12]
