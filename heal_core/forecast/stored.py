"""What is stored of what a run wants, by the same slots that the run would fill.

What does not belong here: what is expected where nothing can be counted (`expectations`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from heal_core.config import RunConfig
from heal_core.forecast.bands import Graded, band_chances
from heal_core.forecast.sums import EVALUATION, ROLLOUTS, Count, Demand
from heal_core.grading import choose_verdicts
from heal_core.imports.identity import template_of
from heal_core.imports.use import choose_imported
from heal_core.plan import Slot, choose_row, find_missing
from heal_core.recipes import TEMPLATES, make_recipe, score_template
from heal_core.records import Band, Kind, VerdictLabel
from heal_core.reference import reference_of
from heal_core.repair import WrongPath, choose_paths
from heal_core.slots import guided_slot, rollout_slot
from heal_core.split import HELD_OUT, TRAIN
from heal_core.store import experience
from heal_core.store.reading import PublishedStore
from heal_core.store.reads import read_attempts


@dataclass(frozen=True)
class Found:
    """What the counting of rollouts found out besides.

    Attributes:
        imported: The imported rollouts that the run uses.
        extremely_hard: Training problems that are so for certain; then those that are hard.
        num_beyond: Rollouts beyond the first N that are stored of training problems.
    """

    imported: tuple[str, ...] = ()
    extremely_hard: tuple[str, ...] = ()
    hard: tuple[str, ...] = ()
    num_beyond: int = 0


def count_rollouts(
    config: RunConfig,
    store: PublishedStore | None,
    problems: Sequence[Mapping[str, Any]],
    teacher: Mapping[str, Any] | None,
    recipes: Mapping[Kind, str],
) -> tuple[dict[str, Count], dict[str, Graded], int | None, Found]:
    """Return the rollouts wanted and stored, what is graded of each training problem, and wrong paths if all are there.

    Only problems of which a row is stored have their slots built: of a fresh workspace there are none.
    """
    num, sampling = config.rollouts.num_generations, config.rollouts.sampling
    wanted = num * len(problems)
    if store is None or teacher is None:
        return {ROLLOUTS: Count(wanted, 0)}, {}, None, Found()
    train = [problem for problem in problems if problem["split"] == TRAIN]
    templates = {problem["problem_id"]: template_of(reference_of(problem)) for problem in train}
    imported = (
        choose_imported(store, teacher, templates, num, sampling.max_tokens).by_problem
        if config.rollouts.use_imported
        else {}
    )
    recipe_id = recipes[Kind.ROLLOUT]
    begun = experience.started_problems(store, recipe_id) | imported.keys()
    slots: list[Slot] = []
    rows: dict[str, list[tuple[str, bool, int]]] = {}
    num_stored = 0
    for problem in (problem for problem in problems if problem["problem_id"] in begun):
        own = imported.get(problem["problem_id"], [])
        rows[problem["problem_id"]] = [(row.row_id, row.cut, index) for index, row in enumerate(own)]
        slots += [rollout_slot(problem, recipe_id, index, sampling) for index in range(len(own), num)]
        num_stored += len(own)
    attempts = read_attempts(store, slots)
    missing = {slot.slot_id for slot in find_missing(slots, attempts)}
    for slot in slots:
        if slot.slot_id not in missing:
            row = choose_row(attempts[slot.slot_id], slot.limit_tokens)
            rows[slot.problem_id].append((row.row_id, row.cut, slot.sample_index))
    num_stored += len(slots) - len(missing)
    labels = _labels(config, store, [row_id for found in rows.values() for row_id, _, _ in found])
    graded = {
        problem["problem_id"]: _graded([labels.get(row_id) for row_id, _, _ in rows[problem["problem_id"]]])
        for problem in train
        if problem["problem_id"] in rows
    }
    certain = {
        problem_id: max(band_chances(one, num, config.bands).items(), key=lambda item: item[1])[0]
        for problem_id, one in graded.items()
        if one.num_present == num
    }
    extremely_hard = tuple(problem_id for problem_id, band in certain.items() if band is Band.EXTREMELY_HARD)
    is_whole = len(certain) == len(train)
    train_begun = [problem["problem_id"] for problem in train if problem["problem_id"] in begun]
    num_beyond = experience.count_slots(store, recipe_id, train_begun, from_index=num)
    paths = sum(
        len(
            choose_paths(
                [
                    WrongPath(row_id, problem_id, index, cut)
                    for row_id, cut, index in rows[problem_id]
                    if labels.get(row_id) == VerdictLabel.WRONG
                ],
                config.repair.max_paths,
            )
        )
        for problem_id in extremely_hard
    )
    hard = tuple(problem_id for problem_id, band in certain.items() if band is Band.HARD)
    row_ids = tuple(sorted(row.row_id for found in imported.values() for row in found))
    more = Found(row_ids, extremely_hard, hard, num_beyond)
    return {ROLLOUTS: Count(wanted, num_stored)}, graded, paths if is_whole else None, more


def _labels(config: RunConfig, store: PublishedStore, row_ids: list[str]) -> dict[str, str]:
    """Return the labels of rows that today's verifiers have graded."""
    chosen = {
        row_id: verdict_id
        for row_id, verdict_id in choose_verdicts(store, row_ids, config.verify).items()
        if verdict_id is not None
    }
    labels = experience.read_labels(store, sorted(set(chosen.values())))
    return {row_id: labels[verdict_id] for row_id, verdict_id in chosen.items()}


def _graded(labels: Sequence[str | None]) -> Graded:
    known = [label for label in labels if label is not None]
    num_graded = sum(label != VerdictLabel.UNVERIFIABLE for label in known)
    return Graded(len(known), num_graded, known.count(VerdictLabel.CORRECT))


def count_later(
    config: RunConfig,
    store: PublishedStore | None,
    problems: Sequence[Mapping[str, Any]],
    scorer: Mapping[str, Any] | None,
    recipes: Mapping[Kind, str],
    found: Found,
) -> dict[str, int]:
    """Return what is stored of the works that follow from the bands, of problems whose band is certain."""
    if store is None or not recipes:
        return {}
    ids = list(found.extremely_hard)
    template = score_template(config.pure, config.steps)
    scores = make_recipe("score", config.models["scorer"], None, config.seed, template, scorer) if scorer else None
    return {
        "stored_hints": experience.count_slots(store, recipes[Kind.HINT], ids),
        "stored_repairs": experience.count_slots(store, recipes[Kind.REPAIR], ids),
        "stored_guided": _count_guided(config, store, problems, recipes[Kind.GUIDED], found.hard),
        "stored_scores": experience.count_scores(store, scores.recipe_id, ids) if scores else 0,
        "stored_equal_tokens": found.num_beyond,
    }


def _count_guided(
    config: RunConfig,
    store: PublishedStore,
    problems: Sequence[Mapping[str, Any]],
    recipe_id: str,
    hard: tuple[str, ...],
) -> int:
    """Return how many guided samples are stored of the problems that are known to be hard."""
    ids = set(hard)
    slots = [
        guided_slot(problem, recipe_id, index, config.rollouts.sampling)
        for problem in problems
        if problem["problem_id"] in ids
        for index in range(config.guided.num_generations)
    ]
    return len(slots) - len(find_missing(slots, read_attempts(store, slots)))


def count_answers(
    config: RunConfig,
    store: PublishedStore | None,
    problems: Sequence[Mapping[str, Any]],
    student: Mapping[str, Any] | None,
    demand: Demand,
) -> Demand:
    """Return the demand with the answers of students, of which those of the untrained one may be stored."""
    if EVALUATION in demand.counts:
        return demand
    num_arms = len(config.controls.arms)
    k = config.evaluation.num_generations
    wanted = (1 + num_arms) * demand.num_held_out * k
    stored = 0
    if store is not None and student is not None:
        recipe = make_recipe(
            Kind.ROLLOUT, config.student, config.rollouts.sampling, config.seed, TEMPLATES[Kind.ROLLOUT], student
        )
        slots = [
            rollout_slot(problem, recipe.recipe_id, index, config.rollouts.sampling)
            for problem in problems
            if problem["split"] == HELD_OUT
            for index in range(k)
        ]
        stored = len(slots) - len(find_missing(slots, read_attempts(store, slots)))
    return replace(demand, counts={**demand.counts, EVALUATION: Count(wanted, stored)})
