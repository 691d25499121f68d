"""The recipes of a run: how each kind of text is made, with its id, known before anything is loaded.

What does not belong here: how ids are made (`keys`), what a model's files say of it (`engines.identity`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from heal_core.engines.base import EngineConfig, SamplingConfig
from heal_core.engines.identity import identify_model
from heal_core.hints import HintConfig
from heal_core.keys import STAGE_VERSIONS, recipe_key
from heal_core.prompts import BOXED, guided_prompt, hint_prompt, hinted_prompt, student_prompt
from heal_core.pure import PureConfig
from heal_core.records import Kind
from heal_core.steps import StepsConfig

TEMPLATES: Mapping[Kind, str] = {
    Kind.ROLLOUT: student_prompt("{}"),
    Kind.HINT: hint_prompt("{}", "{}", "{}", "{}"),
    Kind.REPAIR: hinted_prompt("{}", "{}"),
    Kind.GUIDED: guided_prompt("{}", "{}"),
}
"""The prompt of each kind with empty slots, as it stands in the recipe."""


def repair_template(hints: HintConfig) -> str:
    """Return the template of repairs: a continuation with the answer in sight is asked as a guided sample."""
    return TEMPLATES[Kind.GUIDED if hints.arm == "answer" else Kind.REPAIR]


def score_template(pure: PureConfig, steps: StepsConfig) -> str:
    """Return what stands in place of a template in the recipe of PURE's scores: all that shapes them but the scorer."""
    settings = [pure.epsilon, pure.min_prompt_uncertainty, steps.model_dump(mode="json")]
    return json.dumps([STAGE_VERSIONS["score"], BOXED.cue, settings])


@dataclass(frozen=True)
class Recipe:
    """A way to make texts or scores; `settings` is all that its id is made of."""

    recipe_id: str
    kind: str
    model_name_or_path: str
    settings: Mapping[str, Any]

    def row(self) -> dict[str, Any]:
        """Return its stored form."""
        return {
            "recipe_id": self.recipe_id,
            "kind": self.kind,
            "model_name_or_path": self.model_name_or_path,
            "settings": json.dumps(dict(self.settings), sort_keys=True),
        }


def make_recipe(
    kind: Kind | str,
    model: EngineConfig,
    sampling: SamplingConfig | None,
    seed: int,
    template: str,
    identity: Mapping[str, Any] | None = None,
) -> Recipe:
    """Return a recipe.

    Args:
        sampling: None where nothing is drawn.
        identity: Replaces reading the model's files, for a checkpoint that HEAL made.

    Raises:
        ModelError: If the model's files cannot be read.
    """
    settings: dict[str, Any] = {
        "model": dict(identity or identify_model(model)),
        "sampling": sampling.identity() if sampling else {},
        "seed": seed,
        "template": template,
    }
    recipe_id = recipe_key(kind, settings["model"], settings["sampling"], seed, template)
    return Recipe(recipe_id, str(kind), model.model_name_or_path, settings)
