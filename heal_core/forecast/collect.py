"""What is known of a run before it goes on: its problems, what is stored of what it wants, and what to learn from.

Reads the sources of problems and the published store, and nothing else: no model is loaded, no server or hub is asked,
nothing is written, and a run may be going on. What does not belong here: the sums (`sums`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from heal_core.config import RunConfig
from heal_core.doctor.sizes import model_size, stages_bytes
from heal_core.engines.base import EngineConfig
from heal_core.engines.identity import check_context, find_folder, identify_model
from heal_core.errors import ModelError
from heal_core.forecast.bands import Graded, Shares, band_chances, expected_bands, mean_shares
from heal_core.forecast.estimate import Estimate
from heal_core.forecast.expectations import ASSUMED_QUESTION_TOKENS, CHARS_PER_TOKEN, Sources, expectations
from heal_core.forecast.stored import count_answers, count_later, count_rollouts
from heal_core.forecast.sums import (
    CEILING,
    CONTROL_HINTS,
    CONTROL_PURE,
    CONTROL_REPAIRS,
    EQUAL_TOKENS,
    EVALUATION,
    GUIDED,
    HINTS,
    PROMOTION,
    PURE,
    REPAIRS,
    ROLLOUTS,
    TRAINING,
    VALIDITY,
    VALIDITY_SCORES,
    Count,
    Demand,
    Work,
    forecast,
)
from heal_core.gradable import find_new_ungradable, find_ungradable
from heal_core.lm_eval.harness import identify_harness
from heal_core.problems import LoadedProblems, check_sides, load_problems
from heal_core.recipes import TEMPLATES, make_recipe, repair_template
from heal_core.records import DISTILLATION, Band, Kind, Problem
from heal_core.roles import check_roles
from heal_core.run_key import basis_key
from heal_core.sandbox.probe import require_sandbox
from heal_core.split import TRAIN
from heal_core.store import experience
from heal_core.store.reading import PublishedStore, open_published
from heal_core.store.reads import read_attempts_of, read_best_students, read_closed_phases
from heal_core.store.workspace import Workspace
from heal_core.verify.pool import VerifierPool

_ASSUMED_SHARES: Shares = {Band.EASY: 0.5, Band.HARD: 0.25, Band.EXTREMELY_HARD: 0.25, Band.UNGRADED: 0.0}
_MIN_OWN_PROBLEMS = 8
"""Problems with graded rollouts, from which the shares of the bands are taken rather than from another run."""


@dataclass(frozen=True)
class Plan:
    """What a run will do.

    Attributes:
        run_id: The run that it goes on with; None where it is a new one, or where that is not known.
        is_complete: Whether that run came to its end.
        num_quarantined: Rows of the sources that are refused.
        cleaned: What cleaning took out, in words.
        bands: Training problems by band, expected; `bands_basis` says on what.
        works: What is done, in order.
        unknown: What could not be known, in words.
    """

    run_id: str | None
    is_complete: bool
    num_train: int
    num_held_out: int
    num_quarantined: int
    cleaned: str
    bands: Shares
    bands_basis: str
    works: list[Work]
    unknown: list[str]


def make_plan(config: RunConfig, num_problems: int | None = None, probed: int = 0) -> Plan:
    """Return what a run of the config would do now.

    Args:
        num_problems: Assume that many problems instead of reading the sources.
        probed: Rollouts that were just sampled to learn from.

    Raises:
        HealError: What `heal run` would refuse, as far as it can be known without a model or a server.
    """
    check_roles(config)
    workspace = Workspace(config.workspace)
    unknown: list[str] = []
    models = {role: _identify(role, model, config, unknown) for role, model in config.models.items()}
    with open_published(workspace) as store:
        loaded = _load(config, store) if num_problems is None else None
        problems = [asdict(problem) for problem in loaded.problems] if loaded else []
        recipes = _recipes(config, models["teacher"])
        counts, graded, paths, more = count_rollouts(config, store, problems, models["teacher"], recipes)
        num_train, num_held_out = _sides(config, loaded, num_problems)
        if loaded is None:
            counts = {ROLLOUTS: Count((num_train + num_held_out) * config.rollouts.num_generations, 0)}
        run_id, is_complete, closed, used = _find_run(config, store, loaded, models, more.imported)
        similar = _find_similar(config, store, recipes.get(Kind.ROLLOUT))
        bands, basis = _bands(config, graded, num_train, similar)
        question = _question_tokens(problems)
        expected = expectations(config, Sources(store, workspace, recipes, question, probed), similar)
        demand = Demand(
            num_train=num_train,
            num_held_out=num_held_out,
            counts=_counted(counts, closed, used),
            bands=bands,
            num_repairable=paths,
            closed=frozenset(closed),
            has_best_student=bool(store and read_best_students(store)),
            **count_later(config, store, problems, models["scorer"], recipes, more),
        )
        demand = count_answers(config, store, problems, models["student"], demand)
        size = _stage_bytes(config, models["student"])
        works = forecast(config, demand, expected, size)
    num_rollouts = config.rollouts.num_generations
    if 0 < config.controls.ceiling_samples <= num_rollouts:
        unknown.append(f"the ceiling: its controls.ceiling_samples are not above the run's {num_rollouts} rollouts")
    if size is None:
        unknown.append("the size of the student, and so the room of the trained stages")
    return Plan(
        run_id, is_complete, num_train, num_held_out, len(loaded.quarantined) if loaded else 0,
        loaded.cleaned.describe() if loaded else "", bands, basis, works, unknown,
    )  # fmt: skip


# ---- problems and models


def _load(config: RunConfig, store: PublishedStore | None) -> LoadedProblems:
    """Return the problems as a run takes them in.

    Raises:
        InputError: If there are none to train or to evaluate on.
        SandboxError: If they want programs, which cannot be shut in here.
    """
    with VerifierPool(config.verify) as pool:

        def find(problems: Sequence[Problem]) -> dict[str, str]:
            return find_ungradable(problems, pool) if store is None else find_new_ungradable(store, problems, pool)

        loaded = load_problems(config.problems, find)
    if any(problem.problem_type == "code" for problem in loaded.problems):
        require_sandbox(config.verify.sandbox)
    check_sides(config.problems, loaded)
    return loaded


def _identify(role: str, model: EngineConfig, config: RunConfig, unknown: list[str]) -> dict[str, Any] | None:
    """Return what a model is, None where its files are not on this machine; no hub and no server is asked.

    Raises:
        ModelError: If it cannot be used, or is a path without a folder.
    """
    if role == "scorer" and config.scorer is None:
        role = "teacher"
    is_chat = model.server is not None and model.server.api == "chat"
    folder = None if is_chat else find_folder(model)
    if folder is None and not is_chat:
        what = f"the {role} {model.model_name_or_path} is not on this machine: what is stored of its texts"
        if what not in unknown:
            unknown.append(what)
        return None
    local = model if folder is None else model.model_copy(update={"model_name_or_path": str(folder)})
    if folder is not None and role != "scorer":
        check_context(local, config.rollouts.sampling.max_tokens, "rollouts.sampling.max_tokens")
        if role == "teacher":
            check_context(local, config.hints.sampling.max_tokens, "hints.sampling.max_tokens")
    try:
        return identify_model(local)
    except ModelError:
        if folder is None or folder == Path(model.model_name_or_path).expanduser():
            raise
        unknown.append(f"the {role} {model.model_name_or_path} is not whole on this machine: what is stored of it")
        return None


def _recipes(config: RunConfig, teacher: Mapping[str, Any] | None) -> dict[Kind, str]:
    """Return the ids of the teacher's recipes by kind, none where its files are not here."""
    if teacher is None:
        return {}
    samplings = {kind: config.hints.sampling if kind is Kind.HINT else config.rollouts.sampling for kind in TEMPLATES}
    return {
        kind: make_recipe(kind, config.teacher, samplings[kind], config.seed, template, teacher).recipe_id
        for kind, template in {**TEMPLATES, Kind.REPAIR: repair_template(config.hints)}.items()
    }


def _sides(config: RunConfig, loaded: LoadedProblems | None, num_problems: int | None) -> tuple[int, int]:
    if loaded is not None:
        num_train = sum(problem.split == TRAIN for problem in loaded.problems)
        return num_train, len(loaded.problems) - num_train
    assert num_problems is not None
    num_held_out = round(num_problems * config.problems.held_out_fraction)
    return num_problems - num_held_out, num_held_out


def _question_tokens(problems: Sequence[Mapping[str, Any]]) -> Estimate:
    if not problems:
        return Estimate(ASSUMED_QUESTION_TOKENS, f"assumed {ASSUMED_QUESTION_TOKENS} tokens of a question")
    chars = sum(len(problem["question"]) for problem in problems) / len(problems)
    return Estimate(chars / CHARS_PER_TOKEN, f"questions, at {CHARS_PER_TOKEN:.0f} characters per token")


def _stage_bytes(config: RunConfig, student: Mapping[str, Any] | None) -> float | None:
    folder = find_folder(config.student) if student is not None else None
    if folder is None:
        return None
    try:
        return float(stages_bytes(config, model_size(config.student, folder, config.rollouts.sampling.max_tokens)))
    except ModelError:
        return None


# ---- the run, if there is one, and what to learn from


def _find_run(
    config: RunConfig,
    store: PublishedStore | None,
    loaded: LoadedProblems | None,
    models: Mapping[str, Mapping[str, Any] | None],
    imported: tuple[str, ...],
) -> tuple[str | None, bool, set[str], dict[tuple[str, str], int]]:
    """Return the run that a start would go on with, whether it is complete, its closed phases, and the rows it uses."""
    known = [models[role] for role in ("teacher", "scorer", "student")]
    if store is None or loaded is None or any(model is None for model in known):
        return None, False, set(), {}
    harness = identify_harness(config.evaluation.lm_eval) if config.evaluation.lm_eval else None
    models_known = [model for model in known if model is not None]
    basis_id = basis_key(config, models_known, loaded.problems, imported, (), harness)
    attempts = read_attempts_of(store, basis_id, DISTILLATION)
    if not attempts:
        return None, False, set(), {}
    run_id = str(attempts[-1]["run_id"])
    closed = read_closed_phases(store, run_id)
    return run_id, bool(attempts[-1]["completed"]), closed, experience.count_used(store, run_id)


def _find_similar(
    config: RunConfig, store: PublishedStore | None, recipe_id: str | None
) -> tuple[experience.RunYields, bool] | None:
    if store is None:
        return None
    found = experience.find_similar_run(store, recipe_id, config.teacher.model_name_or_path)
    return (experience.run_yields(store, found[0]), found[1]) if found else None


def _bands(
    config: RunConfig,
    graded: Mapping[str, Graded],
    num_train: int,
    similar: tuple[experience.RunYields, bool] | None,
) -> tuple[Shares, str]:
    """Return how many training problems are expected in each band, and what that rests on."""
    num = config.rollouts.num_generations
    chances = [band_chances(one, num, config.bands) for one in graded.values() if one.num_present]
    num_left = num_train - len(chances)
    bands = expected_bands(chances)
    if not num_left:
        is_certain = all(one.num_present == num for one in graded.values())
        return bands, "counted" if is_certain else f"the rollouts that are graded of {len(chances):,} problems"
    if len(chances) >= _MIN_OWN_PROBLEMS:
        shares, basis = mean_shares(chances), f"the rollouts that are graded of {len(chances):,} problems"
    elif similar is not None and similar[0].num_problems:
        run, is_same = similar
        counts = {
            Band.EASY: run.num_easy, Band.HARD: run.num_hard, Band.EXTREMELY_HARD: run.num_extremely_hard,
            Band.UNGRADED: run.num_ungraded,
        }  # fmt: skip
        shares = {band: count / run.num_problems for band, count in counts.items()}
        basis = f"{run.num_problems:,} problems of run {run.run_id}" + ("" if is_same else ", of other settings")
    elif chances:
        shares, basis = mean_shares(chances), f"the rollouts that are graded of {len(chances):,} problems"
    else:
        shares, basis = _ASSUMED_SHARES, "assumed"
    return {band: bands[band] + num_left * shares.get(band, 0.0) for band in Band}, basis


def _counted(counts: Mapping[str, Count], closed: set[str], used: Mapping[tuple[str, str], int]) -> dict[str, Count]:
    """Return what is counted: what the run has closed is there, whatever is wanted."""

    def rows(phase: str) -> int:
        return sum(num for (name, _), num in used.items() if name == phase)

    found = dict(counts)
    for phase, names in (
        ("rollouts", (ROLLOUTS,)),
        ("repairs", (HINTS, REPAIRS, GUIDED)),
        ("selection", (PURE,)),
        ("equal_tokens", (EQUAL_TOKENS,)),
        ("controls", (CONTROL_HINTS, CONTROL_REPAIRS, CONTROL_PURE, CEILING)),
        ("evaluation", (EVALUATION,)),
        ("promotion", (PROMOTION,)),
    ):
        if phase in closed:
            found |= {name: Count(rows(name), rows(name)) for name in names}
    if "selection" in closed:
        num = rows("validity_natural") + rows("validity_rationales")
        found |= {VALIDITY: Count(num, num), VALIDITY_SCORES: Count(rows(VALIDITY_SCORES), rows(VALIDITY_SCORES))}
    if TRAINING in closed:
        num = sum(num for (phase, _), num in used.items() if phase == TRAINING)
        found[TRAINING] = Count(num, num)
    return found
