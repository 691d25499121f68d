"""The task that takes problems in and opens the run they make."""

from __future__ import annotations

import os
import subprocess
from collections import Counter
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from heal_core import __version__
from heal_core.engines.identity import check_context, has_chat_template, identify_model
from heal_core.errors import ConfigError, InputError, StoreError
from heal_core.gradable import find_new_ungradable
from heal_core.keys import content_key
from heal_core.lm_eval.harness import check_tasks, identify_harness
from heal_core.problems import LoadedProblems, check_sides, load_problems
from heal_core.records import DISTILLATION, EVALUATION, QuarantinedRow
from heal_core.roles import check_roles
from heal_core.run_key import basis_key, problems_digest
from heal_core.sandbox.probe import require_sandbox
from heal_core.split import HELD_OUT, TRAIN
from heal_core.store.problems import store_problems
from heal_core.store.reads import is_complete, read_attempts_of, read_promoted
from tasks.imports import choose_imports
from tasks.policy import decision_task
from tasks.session import Session, logger


@dataclass(frozen=True)
class _Attempt:
    """Which run of those that only differ in attempt: its id, its number, where its students start."""

    run_id: str
    basis_id: str
    number: int
    start_checkpoint_id: str | None


@decision_task("load problems")
def take_in_problems(session: Session, purpose: str = DISTILLATION, retry: str | bool = False) -> str:
    """Return the run's id, after storing its problems and what had to be put in quarantine.

    The same config on the same problems is the same run: a killed one goes on. What failed
    problem by problem is tried again by a further attempt, which is a run of its own: `retry`
    asks for it once the run is complete, and one that lost too many is followed by it in any case.

    Args:
        session: The session, which then knows its run.
        purpose: `distillation`, or `evaluation`, which has the held-out problems only: of the student that
            `evaluation.student` names, else of the promoted one.
        retry: Try the problems again that the last attempt has in quarantine. The id of a run: only if the
            config and the files still make that run or an attempt of it.

    Raises:
        InputError: If there is nothing to train on or to evaluate on, or it would be another run than was meant.
        ConfigError: If an engine cannot do what is asked of it.
        ModelError: If a model folder cannot be used.
        SandboxError: If problems want programs, which cannot be shut in here.
    """
    config = session.config
    given = config.given_student
    if purpose != EVALUATION and given is not None:
        raise ConfigError(
            f"evaluation.student ({given.model_name_or_path}) is the student that `heal eval` evaluates, and this "
            "would train one. Leave it out, or start `heal eval`."
        )
    promoted = _promoted(session) if given is None else None
    if purpose == EVALUATION and given is None and promoted is None:
        raise InputError(
            f"no student has been promoted in {session.workspace.root} so far. Run `heal run` first, and see why with: "
            'heal sql "SELECT run_id, decision, reason, low, margin FROM promotions"; or name a student with --student.'
        )
    check_roles(config)
    harness = identify_harness(config.evaluation.lm_eval) if config.evaluation.lm_eval else None
    models = [identify_model(model) for model in (session.teacher, session.scorer, config.student)]
    for model in filter(None, (session.teacher, config.student, given)):
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
    loaded = load_problems(
        config.problems, lambda problems: find_new_ungradable(session.store, problems, session.verifiers)
    )
    if any(problem.problem_type == "code" for problem in loaded.problems):
        require_sandbox(config.verify.sandbox)
        if config.verify.sandbox.kind == "none":
            logger.warning(
                "programs written by models run without a sandbox, as this user, with this user's files and network "
                "(verify.sandbox.kind=none, --unsafe-no-sandbox)"
            )
    check_sides(config.problems, loaded, (HELD_OUT,) if purpose == EVALUATION else (TRAIN, HELD_OUT))
    if purpose == EVALUATION:
        loaded = replace(loaded, problems=tuple(p for p in loaded.problems if p.split == HELD_OUT))
    store_problems(session.store, loaded.problems, config.chunk_problems)
    digest = problems_digest(loaded.problems)
    imported = choose_imports(session, [asdict(p) for p in loaded.problems if p.split == TRAIN])
    evaluated = (EVALUATION, identify_model(given) if given else promoted) if purpose == EVALUATION else ()
    basis_id = basis_key(config, models, loaded.problems, imported.row_ids, evaluated, harness)
    if isinstance(retry, str):
        _check_same(session, retry, basis_id, digest)
    if config.evaluation.lm_eval and not is_complete(session.store, basis_id):
        check_tasks(config.evaluation.lm_eval)
    attempt = _choose_attempt(session, basis_id, purpose, len(loaded.problems), bool(retry))
    _store_run(session, loaded, digest, attempt, purpose)
    session.begin(attempt.run_id, attempt.start_checkpoint_id)
    train = sum(problem.split == "train" for problem in loaded.problems)
    logger.info(
        "%d problems (%d train, %d held out), %d rows in quarantine",
        len(loaded.problems), train, len(loaded.problems) - train, len(loaded.quarantined),
    )  # fmt: skip
    if config.problems.sources is not None:
        for counts in loaded.counts:
            logger.info("  %s", counts.describe())
    logger.info("  %s", loaded.cleaned.describe())
    if loaded.quarantined:
        logger.info(
            "  in quarantine: %s; heal sql \"SELECT source, line, reason FROM quarantine WHERE run_id = '%s'\" -w %s",
            loaded.describe_quarantine(), attempt.run_id, session.workspace.root,
        )  # fmt: skip
    return session.run_id


def _choose_attempt(session: Session, basis_id: str, purpose: str, num_problems: int, retry: bool) -> _Attempt:
    """Return the last attempt, or the next one where the last has problems to be tried again."""
    earlier = read_attempts_of(session.store, basis_id, purpose)
    if earlier:
        last = earlier[-1]
        most = session.config.failures.max_quarantined(num_problems)
        lost_too_many = last["num_failed"] > most and not last["completed"]
        # one that broke off for another reason goes on first: with other problems it would train anew
        if not lost_too_many and not (retry and last["completed"] and last["num_failed"]):
            return _Attempt(last["run_id"], basis_id, last["attempt"], last["start_checkpoint_id"])
        number, start = last["attempt"] + 1, last["start_checkpoint_id"]
    else:
        # decided once for all attempts: a night with nothing new would train its own student further otherwise
        number, start = 0, _promoted(session) if session.config.student_start == "latest" else None
    run_id = basis_id if not number and start is None else content_key("run", basis_id, number, start)[:12]
    return _Attempt(run_id, basis_id, number, start)


def _check_same(session: Session, run_id: str, basis_id: str, digest: str) -> None:
    """Check that what would run now is the run that was meant, and not one over other problems or models."""
    (run,) = session.store.rows("SELECT * FROM runs WHERE run_id = ?", [run_id])
    if (run["basis_id"] or run_id) == basis_id:
        return
    changed = [
        name
        for name, has_changed in (
            ("the problems", run["problems_digest"] != digest),
            (f"HEAL ({run['heal_version']} then)", run["heal_version"] != __version__),
        )
        if has_changed
    ]
    what = " and ".join(changed) or "its models, versions, prompts or imported rollouts"
    raise InputError(
        f"run {run_id} cannot be gone on with: {what} "
        "changed since. Start `heal run CONFIG` instead: it is another run, which reuses every row that still fits."
    )


def _promoted(session: Session) -> str | None:
    """Return the latest promoted student, None where there is none.

    Raises:
        StoreError: If its folder is gone.
    """
    promoted = read_promoted(session.store)
    if promoted is None:
        return None
    checkpoint_id = str(promoted["checkpoint_id"])
    if not (session.workspace.checkpoints / checkpoint_id).is_dir():
        raise StoreError(
            f"the latest promoted student {checkpoint_id} is gone from {session.workspace.checkpoints}. Restore it "
            f"from a backup, or train it again: heal retry {promoted['run_id']}"
        )
    return checkpoint_id


def _store_run(session: Session, loaded: LoadedProblems, digest: str, attempt: _Attempt, purpose: str) -> None:
    run_id = attempt.run_id
    config = session.config
    run = {
        "run_id": run_id,
        "config": config.model_dump_json(),
        "problems_digest": digest,
        "seed": config.seed,
        "heal_version": __version__,
        "git_revision": git_revision(),
        "started_at": datetime.now(UTC),
        "basis_id": attempt.basis_id,
        "attempt": attempt.number,
        "start_checkpoint_id": attempt.start_checkpoint_id,
        "purpose": purpose,
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
                "benchmark": loaded.benchmarks[problem.problem_id],
            }
            for problem in loaded.problems
        ],
    )
    session.store.append(
        "run_sources",
        [
            {
                "run_source_id": content_key("run_source", run_id, position),
                "run_id": run_id,
                "position": position,
                **asdict(counts),
            }
            for position, counts in enumerate(loaded.counts)
        ],
    )
    session.store.append(
        "run_evaluation_sets",
        [
            {
                "run_evaluation_set_id": content_key("run_evaluation_set", run_id, position),
                "run_id": run_id,
                "position": position,
                **asdict(counts),
            }
            for position, counts in enumerate(loaded.cleaned.sets)
        ],
    )
    session.store.append(
        "contamination",
        [
            {
                "contamination_id": content_key("contamination", run_id, *asdict(match).values()),
                "run_id": run_id,
                **asdict(match),
            }
            for match in loaded.cleaned.matches
        ],
    )
    met: Counter[tuple[Any, ...]] = Counter()
    session.store.append(
        "quarantine",
        [
            {
                "quarantine_id": _quarantine_key(run_id, row, met),
                "run_id": run_id,
                "source": row.source,
                "line": row.line,
                "reason": row.reason,
                "raw": row.raw,
                "problem_id": None,
                "phase": None,
                "work": None,
                "quarantined_at": None,
            }
            for row in loaded.quarantined
        ],
    )


def _quarantine_key(run_id: str, row: QuarantinedRow, met: Counter[tuple[Any, ...]]) -> str:
    """Return the row's id; `met` counts those before it, since two sources may read the same file."""
    where = (row.source, row.line, row.reason)
    met[where] += 1
    again = [met[where]] if met[where] > 1 else []
    return content_key("quarantine", run_id, *where, *again)


def git_revision() -> str | None:
    """Return the commit of the working tree, None outside one or without git."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C"}
        )
    except FileNotFoundError:
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
