"""The order of the checks: those of the environment, and those of a run with its config.

Nothing is changed or fetched, and no model loaded unless that is asked for. The checks of the
environment import nothing that may be broken; those of a run are imported when it is checked.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from heal_core.doctor.environment import (
    check_clock,
    check_platform,
    check_python,
    check_sandbox,
    check_versions,
)
from heal_core.doctor.finding import Finding
from heal_core.doctor.memory import check_gpus, check_memory
from heal_core.doctor.workspace import (
    check_disk,
    check_file_system,
    check_latest_student,
    check_lock,
    check_store,
)
from heal_core.store.workspace import Workspace

if TYPE_CHECKING:
    from heal_core.config import RunConfig


def check_environment() -> Iterator[Finding]:
    """Yield what can be said without a config."""
    yield check_python()
    yield check_platform()
    yield from check_versions()
    yield check_gpus()
    yield check_sandbox()
    yield check_clock()


def check_folder(folder: Path) -> Iterator[Finding]:
    """Yield what a run without further settings would have in a folder."""
    yield check_disk(folder)
    yield from check_memory()


def check_run(config: RunConfig, try_engine: bool = False) -> Iterator[Finding]:
    """Yield what a run with this config would meet; `try_engine` loads the teacher for real."""
    from heal_core.doctor.engine import check_engine
    from heal_core.doctor.lm_eval import check_lm_eval
    from heal_core.doctor.models import check_models
    from heal_core.doctor.notify import check_notify
    from heal_core.doctor.problems import check_problems, check_verifier
    from heal_core.doctor.sizes import list_demands, stages_bytes

    workspace = Workspace(config.workspace)
    models, sizes = check_models(config)
    yield check_file_system(workspace.root)
    yield check_disk(workspace.root, stages_bytes(config, sizes.get("student")))
    lock = check_lock(workspace)
    is_busy = lock.state != "ok"
    yield lock
    yield check_store(workspace, is_busy)
    if config.student_start == "latest":
        yield check_latest_student(workspace)
    yield from models
    yield from check_memory(list_demands(config, sizes), is_busy)
    yield check_problems(config.problems, config.verify)
    yield check_verifier(config.verify)
    if config.evaluation.lm_eval is not None:
        yield check_lm_eval(config.evaluation.lm_eval)
    yield check_notify(config.notify)
    if try_engine:
        yield check_engine(config.teacher, is_busy)
