"""The task that evaluates one student with lm-evaluation-harness, unless its results are stored."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from heal_core.engines.identity import identify_model, resolve_folder
from heal_core.keys import content_key
from heal_core.lm_eval.evaluate import run_harness
from heal_core.lm_eval.harness import identify_harness
from heal_core.logs import log_context
from heal_core.store.reads import read_known
from tasks.policy import decision_task
from tasks.session import Session, logger
from tasks.training import Checkpoint


@decision_task("lm-eval")
def evaluate_with_harness(session: Session, arm: str, student: Checkpoint | str | None) -> str:
    """Return the key of a student's evaluation, whose results are stored afterwards.

    Args:
        student: A stage, a folder or hub id, or None for the untrained student.
    """
    config = session.config.evaluation.lm_eval
    assert config is not None, "it is asked for where it is set"
    model = session.config.student
    if isinstance(student, str):
        model = model.model_copy(update={"model_name_or_path": student, "revision": None})
    identity = {"checkpoint": student.checkpoint_id} if isinstance(student, Checkpoint) else identify_model(model)
    settings = {
        "student": {**identity, "dtype": model.dtype},
        "lm_eval": config.identity(),
        "harness": identify_harness(config),
    }
    key = content_key("lm_eval", settings)
    if read_known(session.store, "lm_eval_results", "lm_eval_key", [key]):
        logger.info("lm-eval %s: stored already", arm)
    else:
        folder = student.folder if isinstance(student, Checkpoint) else resolve_folder(model)
        _evaluate(session, arm, key, settings, folder)
    return key


def use_evaluations(session: Session, keys: Mapping[str, str]) -> None:
    """Store which evaluations, by arm, the run uses."""
    rows = [
        {
            "run_lm_eval_id": content_key("run_lm_eval", session.run_id, arm),
            "run_id": session.run_id,
            "arm": arm,
            "lm_eval_key": key,
        }
        for arm, key in keys.items()
    ]
    session.store.append_decided("run_lm_evals", rows, {"run_id": session.run_id})


def _evaluate(session: Session, arm: str, key: str, settings: Mapping[str, Any], model: Path) -> None:
    config = session.config.evaluation.lm_eval
    assert config is not None
    folder = session.workspace.root / "lm_eval" / key
    if folder.exists():  # of a start that was ended in it
        shutil.rmtree(folder)
    logger.info("lm-eval %s: %s", arm, ", ".join(config.tasks))
    started = time.monotonic()
    with log_context(shard=f"lm-eval {arm}"):
        results = run_harness(config, session.config.student, model, folder, session.check_end)
    seconds, now = time.monotonic() - started, datetime.now(UTC)
    rows = [
        {
            "lm_eval_result_id": content_key("lm_eval_result", key, result.task, result.metric, result.filter),
            "lm_eval_key": key,
            **asdict(result),
            "settings": json.dumps(settings, sort_keys=True),
            "seconds": seconds,
            "evaluated_at": now,
        }
        for result in results
    ]
    session.store.append("lm_eval_results", rows)
    session.count("lm_evals", 1)
