"""The task that takes problems in and opens the run they make."""

from __future__ import annotations

import os
import subprocess
from datetime import UTC, datetime

from heal_core import __version__
from heal_core.engines.identity import check_context, has_chat_template, identify_model
from heal_core.errors import InputError
from heal_core.keys import STAGE_VERSIONS, content_key
from heal_core.problems import LoadedProblems, load_problems
from heal_core.prompts import prompt_templates
from heal_core.records import Problem
from heal_core.store.reads import next_chunk_index, read_known
from heal_core.verify.grade import verifier_identities
from tasks.policy import decision_task
from tasks.session import Session, logger


@decision_task("load problems")
def take_in_problems(session: Session) -> str:
    """Return the run's id, after storing its problems and what had to be put in quarantine.

    The same config on the same problems is the same run: a killed one goes on.

    Raises:
        InputError: If there is nothing to train on or to evaluate on.
        ModelError: If a model folder cannot be used.
    """
    config = session.config
    models = [identify_model(model) for model in (session.teacher, session.scorer, config.student)]
    for model in (session.teacher, config.student):
        check_context(model, config.rollouts.sampling.max_tokens, "rollouts.sampling.max_tokens")
    check_context(session.teacher, config.hints.sampling.max_tokens, "hints.sampling.max_tokens")
    for model in {
        session.teacher.model_name_or_path: session.teacher,
        config.student.model_name_or_path: config.student,
    }.values():
        if not has_chat_template(model):
            logger.warning(
                "%s has no chat template: it is prompted with plain text (Problem: ... Solution:). "
                "For a chat model add its chat_template.jinja to the folder.",
                model.model_name_or_path,
            )
    loaded = load_problems(config.problems)
    for split in ("train", "held_out"):
        if not any(problem.split == split for problem in loaded.problems):
            raise InputError(
                f"{config.problems.path}: no problem fell into the split {split!r} of {len(loaded.problems)}. "
                "Give more problems, another problems.held_out_fraction, or a problems.evaluation_path."
            )
    _store_problems(session, loaded.problems)
    digest = content_key(sorted([p.problem_id, p.split, p.cluster_id] for p in loaded.problems))
    made_of = [
        __version__,
        STAGE_VERSIONS,
        prompt_templates(),
        config.identity(),
        models,
        verifier_identities(),
        digest,
    ]
    session.run_id = content_key("run", *made_of)[:12]
    _store_run(session, loaded, digest)
    train = sum(problem.split == "train" for problem in loaded.problems)
    logger.info(
        "%d problems (%d train, %d held out), %d rows in quarantine",
        len(loaded.problems), train, len(loaded.problems) - train, len(loaded.quarantined),
    )  # fmt: skip
    return session.run_id


def _store_problems(session: Session, problems: tuple[Problem, ...]) -> None:
    """Store the problems that are new; they get the chunks after those in use, for ever."""
    known = read_known(session.store, "problems", "problem_id", [p.problem_id for p in problems])
    first_chunk = next_chunk_index(session.store)
    fresh = [problem for problem in problems if problem.problem_id not in known]
    session.store.append(
        "problems",
        [
            {
                "problem_id": problem.problem_id,
                "question": problem.question,
                "answer": problem.answer,
                "source": problem.source,
                "uuid": problem.uuid,
                "problem_type": problem.problem_type,
                "chunk_index": first_chunk + position // session.config.chunk_problems,
            }
            for position, problem in enumerate(fresh)
        ],
    )


def _store_run(session: Session, loaded: LoadedProblems, digest: str) -> None:
    run_id = session.run_id
    config = session.config
    run = {
        "run_id": run_id,
        "config": config.model_dump_json(),
        "problems_digest": digest,
        "seed": config.seed,
        "heal_version": __version__,
        "git_revision": _git_revision(),
        "started_at": datetime.now(UTC),
    }
    session.store.append("runs", [run])
    session.store.append(
        "run_problems",
        [
            {
                "run_problem_id": content_key("run_problem", run_id, problem.problem_id),
                "run_id": run_id,
                "problem_id": problem.problem_id,
                "split": problem.split,
                "cluster_id": problem.cluster_id,
            }
            for problem in loaded.problems
        ],
    )
    session.store.append(
        "quarantine",
        [
            {
                "quarantine_id": content_key("quarantine", run_id, row.source, row.line, row.reason),
                "run_id": run_id,
                "source": row.source,
                "line": row.line,
                "reason": row.reason,
                "raw": row.raw,
            }
            for row in loaded.quarantined
        ],
    )


def _git_revision() -> str | None:
    """Return the commit of the working tree, None outside one or without git."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C"}
        )
    except FileNotFoundError:
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
