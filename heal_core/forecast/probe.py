"""A few rollouts, sampled now with the real engine, to learn how long texts get and how often they are right.

They are the first rollouts of their problems, stored and graded as a run does, so that the run uses them. What does not
belong here: what is learnt from them (`expectations`).
"""

from __future__ import annotations

import logging

from heal_core.config import RunConfig
from heal_core.engines.start import start_engine
from heal_core.fill import fill_slots
from heal_core.gradable import find_new_ungradable
from heal_core.grading import grade_missing
from heal_core.keys import content_key
from heal_core.problems import check_sides, load_problems
from heal_core.recipes import TEMPLATES, make_recipe
from heal_core.records import Kind
from heal_core.roles import check_roles
from heal_core.sandbox.probe import require_sandbox
from heal_core.slots import rollout_slot
from heal_core.split import TRAIN
from heal_core.store.problems import store_problems
from heal_core.store.reads import read_known
from heal_core.store.store import Store
from heal_core.store.workspace import Workspace
from heal_core.verify.pool import VerifierPool

logger = logging.getLogger("heal")

NUM_GENERATIONS = 4
"""Rollouts per problem of a probe: enough to tell apart problems that are always solved and never."""


def sample_probe(config: RunConfig, num_problems: int) -> int:
    """Return how many rollouts the probe has, after storing and grading those that were not there.

    The problems are drawn from the training problems by a hash of their ids, so that a larger probe holds a smaller.

    Raises:
        WorkspaceBusyError: If a run holds the workspace.
        HealError: What `heal run` would refuse; or if the engine fails.
    """
    check_roles(config)
    workspace = Workspace(config.workspace)
    workspace.create()
    with workspace.lock(), Store(workspace) as store, VerifierPool(config.verify) as pool:
        loaded = load_problems(config.problems, lambda problems: find_new_ungradable(store, problems, pool))
        if any(problem.problem_type == "code" for problem in loaded.problems):
            require_sandbox(config.verify.sandbox)
        check_sides(config.problems, loaded)
        store_problems(store, loaded.problems, config.chunk_problems)
        sampling = config.rollouts.sampling
        recipe = make_recipe(Kind.ROLLOUT, config.teacher, sampling, config.seed, TEMPLATES[Kind.ROLLOUT])
        if not read_known(store, "recipes", "recipe_id", [recipe.recipe_id]):
            store.append("recipes", [recipe.row()])
        train = [problem for problem in loaded.problems if problem.split == TRAIN]
        drawn = sorted(train, key=lambda problem: content_key("probe", problem.problem_id))[:num_problems]
        slots = [
            rollout_slot(vars(problem), recipe.recipe_id, index, sampling)
            for problem in drawn
            for index in range(min(NUM_GENERATIONS, config.rollouts.num_generations))
        ]
        engine = start_engine(config.teacher, workspace.logs / "engine.log", _log_state)
        try:
            filled = fill_slots(store, lambda: engine, slots, sampling)
        finally:
            engine.close()
        grade_missing(store, pool, [row.row_id for row in filled.used.values()], config.verify)
    return len(slots)


def _log_state(state: str) -> None:
    if state:
        logger.warning("%s", state)
