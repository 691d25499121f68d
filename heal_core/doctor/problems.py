"""The sources of a run's problems, and the verifier that grades their answers."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from heal_core.doctor.environment import installed_version
from heal_core.doctor.finding import Finding
from heal_core.errors import HealError, InputError, SandboxError, TransientError
from heal_core.gradable import find_ungradable
from heal_core.problems import LoadedProblems, load_problems
from heal_core.records import VerdictLabel
from heal_core.reference import Reference
from heal_core.sandbox.probe import REMEDY, require_sandbox
from heal_core.sources.config import ProblemsConfig
from heal_core.split import HELD_OUT, TRAIN
from heal_core.verify.config import VerifyConfig
from heal_core.verify.pool import GradeItem, VerifierPool


def check_problems(config: ProblemsConfig, verify: VerifyConfig) -> Finding:
    """Read all sources of problems as a run would, and grade their references."""
    try:
        loaded = _load(config, verify)
    except InputError as error:
        remedy = (
            "set problems.path (problems.evaluation_path), or what a source of problems.sources names, to rows with a "
            "problem and its answer"
        )
        return Finding("problems", "fail", str(error), remedy)
    except SandboxError as error:
        return Finding("problems", "fail", str(error), REMEDY)
    num = {split: sum(problem.split == split for problem in loaded.problems) for split in (TRAIN, HELD_OUT)}
    found = f"{len(loaded.problems)} in all ({num[TRAIN]} train, {num[HELD_OUT]} held out)"
    if config.sources is not None:
        found += "".join(f"; {counts.describe()}" for counts in loaded.counts)
    found += f"; {loaded.cleaned.describe()}"
    if loaded.quarantined:
        first = loaded.quarantined[0]
        found += f"; to quarantine go {loaded.describe_quarantine()}; the first, {first.reason}"
    if not all(num.values()):
        remedy = (
            "give more problems, another problems.held_out_fraction, a problems.evaluation_path or a source's split"
        )
        return Finding("problems", "fail", f"{found}; both sides are needed", remedy)
    if verify.sandbox.kind == "none" and any(problem.problem_type == "code" for problem in loaded.problems):
        remedy = "set verify.sandbox.kind back to bubblewrap, unless this machine may be lost"
        return Finding("problems", "warn", f"{found}; programs written by models run without a sandbox", remedy)
    if loaded.quarantined:
        remedy = f"correct row {first.line} of {first.source}, or go on without"
        if Path(first.source).suffix == ".jsonl" and Path(first.source).is_file():
            remedy = f"`sed -n {first.line}p {first.source}` shows that row; correct it, or go on without"
        return Finding("problems", "warn", found, remedy)
    return Finding("problems", "ok", f"{found}, no row in quarantine")


def _load(config: ProblemsConfig, verify: VerifyConfig) -> LoadedProblems:
    try:
        with VerifierPool(verify) as pool:
            loaded = load_problems(config, lambda problems: find_ungradable(problems, pool))
    except TransientError:  # the check of the verifier tells it
        loaded = load_problems(config)
    if any(problem.problem_type == "code" for problem in loaded.problems):
        require_sandbox(verify.sandbox)
    return loaded


def check_verifier(config: VerifyConfig) -> Finding:
    """Grade one trivial answer in a real worker process."""
    started = time.monotonic()
    version = installed_version("math-verify")
    remedy = f"`{sys.executable} -m pip install --force-reinstall --no-deps math-verify=={version}`"
    try:
        with VerifierPool(config) as pool:
            ((_, verdict),) = pool.grade_all([GradeItem("doctor", r"It is \boxed{42}.", Reference("42"))])
    except HealError as error:
        return Finding("verifier", "fail", str(error), f"set verify.max_memory_gib higher; if that is not it, {remedy}")
    if verdict.label == VerdictLabel.CORRECT:
        return Finding("verifier", "ok", f"has graded an answer; {time.monotonic() - started:.1f} s with its start")
    return Finding("verifier", "fail", f"calls 42 for 42 {verdict.label} ({verdict.reason})", remedy)
