"""What the validity test of PURE comes to: a row per text, the AUROCs, and the verdict, stored.

What does not belong here: choosing, building and reading the texts (`validity`), and what the numbers mean
(`heal_core/validity/comparison`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from heal_core.keys import content_key
from heal_core.pure import SCORE_NAMES
from heal_core.records import VerdictLabel
from heal_core.repair import BrokenPath
from heal_core.store.reads import read_run_trajectories
from heal_core.store.validity import read_score_rows, read_test
from heal_core.validity.comparison import Discrimination, ScoredReading, Verdict, compare
from heal_core.validity.shortcuts import TextKind
from heal_core.validity.tokens import Tokens
from tasks.decisions import gate_rows, natural_lengths, verified_rows
from tasks.policy import decision_task
from tasks.scores import ScoreWork
from tasks.session import Session
from tasks.validity import BUILT, NATURAL, Prefix, Texts, row_id_of


class ValidityScoreWork(ScoreWork):
    """Texts of the test, each read under the hint of its path, which may not have been in its own prompt."""

    work = "validity scores"

    @staticmethod
    def score_id(row: Mapping[str, Any], recipe_id: str) -> str:
        """Return the content key of a row's score under a hint."""
        return content_key("score", row["trajectory_id"], recipe_id, "under", row["hint_id"])


@decision_task("compare scores")
def conclude(
    session: Session,
    validity_id: str,
    prefixes: tuple[int, Sequence[Prefix]],
    texts: Texts,
    recipe_ids: tuple[str, str],
) -> dict[str, Any]:
    """Return the test as `read_test` does, after storing every text, every AUROC and the verdict.

    Args:
        prefixes: How many there were, and those with a hint.
        recipe_ids: Of the built texts and of the scores.
    """
    num_prefixes, hinted = prefixes
    rows = _text_rows(session, validity_id, hinted, texts, recipe_ids)
    scored = [row for row in rows if row["outcome"] == "scored"]
    readings = [
        ScoredReading(TextKind(row["kind"]), row["problem_id"], {name: float(row[name]) for name in _MEASURES})
        for row in scored
    ]
    found, verdict = compare(readings, session.config.pure.validity.num_resamples, session.config.seed)
    scope = {"run_id": session.run_id, "validity_id": validity_id}
    session.store.append_decided("validity_texts", rows, scope)
    session.store.append_decided("validity_aurocs", [_auroc_row(scope, i, row) for i, row in enumerate(found)], scope)
    session.store.append_decided("validity_tests", [_test_row(session, scope, num_prefixes, hinted, verdict)], scope)
    session.store.publish(force=True)
    return read_test(session.store, session.run_id, validity_id)


@decision_task("choose PURE's score")
def record_chosen(session: Session, test: Mapping[str, Any]) -> None:
    """Freeze the score of a run with `pure.score: auto`, with what its choice rests on."""
    lows = [
        row["difference_low"] for row in test["aurocs"] if row["kind"] == "all" and row["measure"] == test["winner"]
    ]
    low = lows[0] if lows else None
    session.record_decisions("pure_score", [("score", "", test["verdict"], test["chosen"], low)])


_MEASURES = (*SCORE_NAMES, "length", "mean_perplexity", "final_uncertainty", "num_assertions")


def _text_rows(
    session: Session, validity_id: str, hinted: Sequence[Prefix], texts: Texts, recipe_ids: tuple[str, str]
) -> list[dict[str, Any]]:
    """Return a row per text, scored or not."""
    built_recipe, score_recipe = recipe_ids
    hint_of = {prefix.path.trajectory_id: prefix.hint.hint_id for prefix in hinted}
    entries: list[tuple[str, TextKind, BrokenPath, Tokens, tuple[str, ...]]] = [
        (text.row_id, TextKind.NATURAL, text.path, text.tokens, ()) for text in texts.natural
    ]
    entries += [(row_id_of(s, built_recipe), s.kind, s.path, s.tokens, s.sources) for s in texts.shortcuts]
    frames = [read_run_trajectories(session.store, session.run_id, phase, validity_id) for phase in (NATURAL, BUILT)]
    stored = {row["trajectory_id"]: row for frame in frames for row in frame.iter_rows(named=True)}
    refusals: dict[str, str | None] = {}
    wanted = [row_id for row_id, *_ in entries]
    bands = session.read_bands("train")
    natural = natural_lengths(verified_rows(session, "rollouts", bands), bands)
    for frame in frames:
        decisions = gate_rows(session, frame.filter(frame["trajectory_id"].is_in(wanted)), natural)
        refusals |= {row_id: gate for row_id, _, _, gate, _ in decisions}
    score_ids = {
        row_id: ValidityScoreWork.score_id(
            {"trajectory_id": row_id, "hint_id": hint_of[path.trajectory_id]}, score_recipe
        )
        for row_id, _, path, _, _ in entries
    }
    scores = read_score_rows(session.store, list(score_ids.values()))
    rows: dict[str, dict[str, Any]] = {}
    for row_id, kind, path, tokens, sources in entries:
        if row_id not in stored:  # its problem went to quarantine meanwhile
            continue
        row = _empty_row(session, validity_id, kind, path, hint_of[path.trajectory_id], sources, row_id)
        row |= {"trajectory_id": row_id, "gate": refusals[row_id], "length": len(tokens.token_ids)}
        row["num_assertions"] = _count_assertions(path, tokens.text)
        score = scores.get(score_ids[row_id])
        if stored[row_id]["label"] != VerdictLabel.CORRECT:
            row |= {"outcome": "not_verified", "reason": stored[row_id]["reason"]}
        elif score is not None:
            row |= _score_columns(score)
        else:
            continue
        rows[row["validity_text_id"]] = row
    for gap in texts.unbuilt:
        path = gap.donor.path
        row = _empty_row(
            session, validity_id, gap.kind, path, hint_of[path.trajectory_id], (gap.donor.row_id,), gap.reason
        )
        rows[row["validity_text_id"]] = row | {"outcome": "not_built", "reason": gap.reason}
    return list(rows.values())


def _empty_row(
    session: Session,
    validity_id: str,
    kind: TextKind,
    path: BrokenPath,
    hint_id: str | None,
    sources: Sequence[str],
    what: str,
) -> dict[str, Any]:
    """Return a row of validity_texts of which only the origin is known; `what` tells apart those of one origin."""
    scope = {"run_id": session.run_id, "validity_id": validity_id}
    made_of = [str(kind), path.trajectory_id, *sources, what]
    nothing = ("trajectory_id", "score_id", "reason", "gate", *_MEASURES)
    return {
        "validity_text_id": content_key("validity_text", *scope.values(), *made_of),
        **scope,
        "kind": str(kind),
        "problem_id": path.problem_id,
        "path_id": path.trajectory_id,
        "hint_id": hint_id,
        "sources": list(sources),
        "outcome": "",
        **dict.fromkeys(nothing),
    }


def _score_columns(score: Mapping[str, Any]) -> dict[str, Any]:
    reject_reason = score["reject_reason"]
    columns: dict[str, Any] = {
        "score_id": score["score_id"],
        "outcome": "scored" if reject_reason is None else "rejected",
        "reason": reject_reason,
        "final_uncertainty": score["answer_uncertainties"][-1],
    }
    if reject_reason is None:
        columns |= {name: score[name] for name in SCORE_NAMES}
        columns["mean_perplexity"] = float(np.mean(score["step_perplexities"][score["span_start"] :]))
    return columns


def _count_assertions(path: BrokenPath, text: str) -> int:
    offsets = path.reference.find_assertions(path.prefix + text)
    return sum(offset >= len(path.prefix) for offset in offsets)


def _auroc_row(scope: Mapping[str, str], position: int, row: Discrimination) -> dict[str, Any]:
    key = content_key("validity_auroc", *scope.values(), row.measure, row.kind)
    return {"validity_auroc_id": key, **scope, "position": position, **asdict(row)}


def _test_row(
    session: Session, scope: Mapping[str, str], num_prefixes: int, hinted: Sequence[Prefix], verdict: Verdict
) -> dict[str, Any]:
    rows = read_run_trajectories(session.store, session.run_id, NATURAL, scope["validity_id"])
    verified = rows.filter(rows["label"] == str(VerdictLabel.CORRECT))
    return {
        "validity_test_id": content_key("validity_test", *scope.values()),
        **scope,
        "settings": json.dumps(session.config.pure.validity.model_dump(mode="json"), sort_keys=True),
        "num_problems": len({prefix.path.problem_id for prefix in hinted}),
        "num_prefixes": num_prefixes,
        "num_hinted": len(hinted),
        "num_continuations": len(rows),
        "num_verified": len(verified),
        "num_prefixes_used": verified["parent_id"].n_unique(),
        "winner": verdict.winner,
        "chosen": verdict.chosen,
        "verdict": "validated" if verdict.is_validated else "unproven",
    }
