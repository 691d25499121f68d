"""HEAL beside its controls, over several seeds: a run per seed in one workspace, and the tables of all of them.

The runs share what they can: rows of the store, by their keys. Killed or stopped, the same command goes on. What does
not belong here: what a control does (`controls`), and how arms are compared (`heal_core.ablation`).
"""

from __future__ import annotations

from typing import Any

from prefect import flow

from flows.heal import TASK_RUNNER, distil, sample_arms
from heal_core.ablation import AblationConfig
from heal_core.config import RunConfig, parse_config
from heal_core.controls import ControlsConfig
from heal_core.deadline import Deadline
from tasks.ablation import compare_seeds
from tasks.session import Session, logger


@flow(name="ablate", task_runner=TASK_RUNNER, validate_parameters=False)
def ablate(
    config: RunConfig, settings: AblationConfig, until: Deadline | None = None, max_tokens: int | None = None
) -> dict[str, Any]:
    """Return an ablation's summary with its `state`: completed, or stopped at `until` or at a run's token budget.

    Raises:
        HealError: If a run failed; what is finished is stored.
    """
    runs: list[tuple[int, str]] = []
    for seed in settings.seeds:
        logger.info("seed %d, %d of %d", seed, len(runs) + 1, len(settings.seeds))
        run = distil if settings.students else sample_arms
        outcome = run(seed_config(config, settings, seed), until, max_tokens=max_tokens)
        if outcome["state"] == "stopped":
            return outcome | {"seed": seed}
        runs.append((seed, outcome["run_id"]))
    with Session.open(seed_config(config, settings, settings.seeds[0]), until) as session:
        summary: dict[str, Any] = compare_seeds(session, settings, runs)
    return summary | {"state": "completed"}


def seed_config(config: RunConfig, settings: AblationConfig, seed: int) -> RunConfig:
    """Return the config of a seed's run. It promotes no student: it is about a method, not about a model to use.

    Raises:
        ConfigError: If a control does not go with the config.
    """
    controls = ControlsConfig(
        **{arm: arm in settings.arms for arm in ("rejection_sampling", "equal_tokens")},
        **dict.fromkeys((arm for arm in settings.arms if arm not in ("rejection_sampling", "equal_tokens")), True),
        ceiling_samples=settings.ceiling_samples,
    )
    reseeded: dict[str, Any] = (
        {"seed": seed} if settings.reseed == "all" else {"sft": config.sft.model_copy(update={"seed": seed})}
    )
    promotion = config.promotion.model_copy(update={"enabled": False})
    # parsed again: a copy would not be checked, and what does not go together would fail after the sampling
    return parse_config({**dict(config), "controls": controls, "promotion": promotion, **reseeded}, "heal ablate")
