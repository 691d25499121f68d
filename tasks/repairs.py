"""The set-level tasks of GEAR: which wrong paths are repaired, and which hints are accepted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from heal_core.gates import examine_hint
from heal_core.grading import choose_verdicts
from heal_core.hints import clean_hint
from heal_core.quotas import count_skipped, find_satisfied
from heal_core.records import VerdictLabel
from heal_core.reference import Reference
from heal_core.repair import BrokenPath, Hint, kept_prefix
from heal_core.store.reads import TokenRow, read_labels, read_references, read_tokens, steps_of
from tasks.paths import choose_wrong_rows
from tasks.policy import decision_task
from tasks.rescoring import read_used_profiles
from tasks.session import Session


@decision_task("cut wrong paths")
def cut_paths(session: Session) -> list[tuple[int, BrokenPath]]:
    """Return the paths to repair with their chunks, cut; one without a breakpoint is recorded as dropped."""
    rows = choose_wrong_rows(session)
    paths = break_paths(session, rows, lambda profile: profile["breakpoint_step"])
    broken = {path.trajectory_id for _, path in paths}
    unbroken = [(row_id, row["problem_id"]) for row_id, row in rows.items() if row_id not in broken]
    session.record_decisions("path", [(*ids, "dropped", "no_breakpoint", None) for ids in unbroken])
    return paths


def break_paths(
    session: Session, rows: Mapping[str, dict[str, Any]], choose_step: Callable[[dict[str, Any]], int | None]
) -> list[tuple[int, BrokenPath]]:
    """Return wrong rollouts with their chunks, each cut before the step that is chosen by its profile, if there is one.

    Args:
        rows: Of `choose_wrong_rows`, by id.
    """
    profiles = read_used_profiles(session, rows)
    steps = {row_id: choose_step(profiles[row_id]) for row_id in rows}
    tokens = read_tokens(session.store, list(rows))
    references = read_references(session.store, (row["problem_id"] for row in rows.values()))
    return [
        (row["chunk_index"], _cut(row, references[row["problem_id"]], profiles[row_id], tokens[row_id], step))
        for row_id, row in rows.items()
        if (step := steps[row_id]) is not None
    ]


@decision_task("judge hints")
def judge_hints(session: Session, tries: Sequence[tuple[BrokenPath, str]], arm: str = "") -> dict[str, Hint]:
    """Return the accepted hints by path; each try (path, row id) is recorded with what the leak gate said."""
    texts = read_tokens(session.store, [row_id for _, row_id in tries])
    accepted: dict[str, Hint] = {}
    decisions, results = [], []
    for path, row_id in tries:
        hint = clean_hint(texts[row_id].text)
        findings = examine_hint(hint, path.reference, path.question)
        refusal = next((finding.gate for finding in findings if finding.refused), None)
        results.append((row_id, path.problem_id, findings))
        decisions.append((row_id, path.problem_id, "dropped" if refusal else "kept", refusal, None))
        if refusal is None:
            accepted[path.trajectory_id] = Hint(row_id, hint)
    session.record_decisions("control_hint_gate" if arm else "hint_gate", decisions, arm or None)
    session.record_gate_results("control_hints" if arm else "hints", results, arm or None)
    return accepted


@decision_task("record hinted paths")
def record_paths(session: Session, paths: Sequence[BrokenPath], hints: Mapping[str, Hint]) -> int:
    """Return how many paths got a hint; of the others every try leaked or was empty, or their problem failed."""
    session.record_decisions(
        "path",
        [
            (path.trajectory_id, path.problem_id, "kept", None, None)
            if path.trajectory_id in hints
            else (path.trajectory_id, path.problem_id, "dropped", _why_unhinted(session, path), None)
            for path in paths
        ],
    )
    return len(hints)


@decision_task("apply quota")
def find_satisfied_problems(session: Session, rows: Mapping[str, Mapping[str, bool]]) -> frozenset[str]:
    """Return the problems that have enough verified repairs, none without a quota.

    Args:
        rows: Their graded repairs so far, by problem and row id, and whether each is cut.
    """
    quota = session.config.repair.quota
    if quota is None:
        return frozenset()
    whole = {row_id: problem_id for problem_id, own in rows.items() for row_id, cut in own.items() if not cut}
    verdict_ids = choose_verdicts(session.store, list(whole), session.config.verify)
    labels = read_labels(session.store, [verdict_id for verdict_id in verdict_ids.values() if verdict_id is not None])
    verified = (row_id for row_id, verdict_id in verdict_ids.items() if labels.get(verdict_id) == VerdictLabel.CORRECT)
    return find_satisfied(Counter(whole[row_id] for row_id in verified), quota)


@decision_task("record quota")
def record_quota(
    session: Session, paths: Sequence[BrokenPath], rows: Mapping[str, Mapping[str, bool]], satisfied: frozenset[str]
) -> int:
    """Return how many continuations of the hinted `paths` were not sampled, recorded per problem; 0 without a quota."""
    config = session.config.repair
    if config.quota is None:
        return 0
    num_paths = Counter(path.problem_id for path in paths if path.problem_id not in session.quarantine)
    num_sampled = {problem_id: len(own) for problem_id, own in rows.items()}
    skipped = count_skipped(num_paths, num_sampled, config.num_generations)
    session.record_decisions(
        "quota",
        [
            (problem_id, problem_id, "met" if problem_id in satisfied else "not_met", None, float(num))
            for problem_id, num in skipped.items()
        ],
    )
    return sum(skipped.values())


def _why_unhinted(session: Session, path: BrokenPath) -> str:
    return "quarantined" if path.problem_id in session.quarantine else "no_acceptable_hint"


def _cut(row: dict[str, Any], reference: Reference, profile: dict[str, Any], tokens: TokenRow, step: int) -> BrokenPath:
    steps = steps_of(profile, len(tokens.text), len(tokens.token_ids))
    num_chars, num_tokens = kept_prefix(steps, step)
    failed = steps[step]
    return BrokenPath(
        trajectory_id=row["trajectory_id"],
        problem_id=row["problem_id"],
        question=row["question"],
        reference=reference,
        prefix=tokens.text[:num_chars],
        prefix_token_ids=tuple(tokens.token_ids[:num_tokens].tolist()),
        failed_step=tokens.text[failed.start_char : failed.end_char],
    )
