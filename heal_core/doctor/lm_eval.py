"""Whether lm-evaluation-harness is there and knows the tasks that a config names."""

from __future__ import annotations

from heal_core.doctor.finding import Finding
from heal_core.errors import ConfigError
from heal_core.lm_eval.config import LmEvalConfig
from heal_core.lm_eval.harness import check_tasks, identify_harness


def check_lm_eval(config: LmEvalConfig) -> Finding:
    """Ask the harness for its version and its tasks, in a child of some seconds."""
    try:
        versions = identify_harness(config)
        check_tasks(config)
    except ConfigError as error:
        return Finding("lm-eval", "fail", str(error), "correct evaluation.lm_eval, or leave it out: no run needs it")
    return Finding("lm-eval", "ok", f"lm-eval {versions['lm_eval']} knows {', '.join(config.tasks)}")
