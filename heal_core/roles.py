"""What a run asks of each of its models, checked before anything is spent.

What does not belong here: what an engine can do (`engines.start`).
"""

from __future__ import annotations

from collections.abc import Iterator

from heal_core.config import RunConfig
from heal_core.engines.base import Capability, EngineConfig
from heal_core.engines.start import check_capability, declared_capabilities
from heal_core.errors import ConfigError
from heal_core.sft.config import check_loggers, find_launcher


def check_roles(config: RunConfig) -> None:
    """Check that the engines and lm-eval can do what the run's settings ask, and that what starts training is there.

    Raises:
        ConfigError: If one cannot, with the remedy.
    """
    for role, model, capability in _asked(config):
        check_capability(model, capability, role, declared_capabilities(model))
    server, samplings = config.teacher.server, (config.rollouts.sampling, config.hints.sampling)
    if server is not None and server.api == "chat" and any(sampling.early_stop for sampling in samplings):
        raise ConfigError(
            f"the teacher {config.teacher.model_name_or_path} is asked over the chat API, where no text is given up "
            "early: leave early_stop out, or use server.api: completions"
        )
    if config.student.server is not None:
        raise ConfigError(
            f"the student {config.student.model_name_or_path} has the engine openai, but its server cannot run what "
            "is trained here; use hf, or vllm, which HEAL starts with each checkpoint"
        )
    check_loggers(config.sft)
    find_launcher(config.sft.launcher)
    _check_adapters(config)


def _check_adapters(config: RunConfig) -> None:
    """Check that all that will load the students can load an adapter, where stages keep nothing else."""
    lora, lm_eval = config.sft.lora, config.evaluation.lm_eval
    if lora is None or lora.save != "adapter":
        return
    if lm_eval is not None and lm_eval.model == "vllm":
        raise ConfigError(
            "evaluation.lm_eval.model is vllm, onto which no adapter is loaded: set "
            "evaluation.lm_eval.model=hf, or sft.lora.save=merged"
        )
    if config.student.engine != "hf":
        raise ConfigError(
            f"the student has the engine {config.student.engine}, which loads no adapter onto it: set "
            "sft.lora.save=merged, or student.engine=hf"
        )


def check_found(config: RunConfig, model: EngineConfig, found: frozenset[Capability]) -> None:
    """Check that an engine that is ready can do what the run will ask of it later: a server may lack what others have.

    Args:
        config: The run.
        model: Whose engine it is.
        found: What it can do.

    Raises:
        ConfigError: If it cannot, with the remedy.
    """
    for role, asked, capability in _asked(config):
        if asked == model:
            check_capability(model, capability, role, found)


def _asked(config: RunConfig) -> Iterator[tuple[str, EngineConfig, Capability]]:
    """Yield who is asked for what: of a wrong text the kept tokens are continued, and of a right one all are read."""
    yield "teacher", config.teacher, Capability.GENERATE
    if config.repair.max_paths:
        yield "teacher", config.teacher, Capability.TOKEN_PREFIX
        yield "scorer" if config.scorer else "teacher", config.scorer or config.teacher, Capability.GIVEN_TOKEN_LOGPROBS
