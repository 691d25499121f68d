"""The set-level tasks of a run: bands, gates, PURE, cap. Cheap, so recomputed and stored per run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from heal_core.bands import assign_band
from heal_core.curriculum import STAGES, CapCandidate, Stage, build_stages, cap_candidates, stage_order
from heal_core.equal_tokens import example_cap
from heal_core.gates import AnswerConditionedText, examine_text, first_refusal
from heal_core.keys import content_key
from heal_core.pure import AUTO, PureCandidate, PureConfig, decide_drops
from heal_core.records import Band, Kind, VerdictLabel
from heal_core.seams import natural_seam
from heal_core.steps import StepsConfig
from heal_core.store.reads import (
    read_kept,
    read_pass_rates,
    read_references,
    read_run_trajectories,
    read_scores,
    read_texts,
    read_tokens,
)
from heal_core.store.validity import read_chosen_score
from tasks.policy import decision_task
from tasks.session import GatedText, Session

Decision = tuple[str, str, str, str | None, float | None]


@decision_task("assign bands")
def assign_bands(session: Session) -> dict[str, int]:
    """Return how many training problems are in each band; all problems get one."""
    config = session.config
    rates = [
        row for row in read_pass_rates(session.store, session.run_id) if row["problem_id"] not in session.quarantine
    ]
    bands = {
        row["problem_id"]: assign_band(
            row["num_graded"], row["num_correct"], config.rollouts.num_generations, config.bands
        )
        for row in rates
    }
    session.record_decisions(
        "band",
        [
            (row["problem_id"], row["problem_id"], str(bands[row["problem_id"]]), None, row["pass_rate"])
            for row in rates
        ],
    )
    train = [bands[row["problem_id"]] for row in rates if row["split"] == "train"]
    return {str(band): train.count(band) for band in Band}


@decision_task("gate texts")
def gate_texts(session: Session) -> dict[str, int]:
    """Return how many verified texts each gate refused; base rollouts are counted under `gate_base`."""
    bands = session.read_bands("train")
    base = verified_rows(session, "rollouts", bands)
    natural = natural_lengths(base, bands)
    counts: Counter[str] = Counter()
    for phase, rows in (
        ("gate", verified_rows(session, "repairs", bands)),
        ("gate", verified_rows(session, "guided", bands)),
        ("gate_base", base),
    ):
        decisions = record_gates(session, phase, rows, natural)
        if phase == "gate":
            counts.update(reason for *_, reason, _value in decisions if reason)
    return dict(counts)


def natural_lengths(base: pl.DataFrame, bands: Mapping[str, str]) -> list[int]:
    """Return the tokens of each correct rollout of the hard band, of which G5 takes the median."""
    rows = base.select("num_tokens", "problem_id").iter_rows()
    return [num_tokens for num_tokens, problem_id in rows if bands[problem_id] == Band.HARD]


def gate_rows(session: Session, rows: pl.DataFrame, natural: Sequence[int]) -> Iterable[Decision]:
    """Yield what the gates decide on verified texts; nothing is stored.

    Args:
        rows: Of `read_run_trajectories`.
        natural: Of `natural_lengths`.
    """
    return (_decide(session, text) for text in _examine(session, rows, natural))


def record_gates(
    session: Session, phase: str, rows: pl.DataFrame, natural: Sequence[int], arm: str | None = None
) -> list[Decision]:
    """Return what the gates decide on verified texts, stored with what each gate found.

    Args:
        phase: Of the decisions.
        rows: As `gate_rows` takes them, of one phase.
        arm: The control whose texts they are.
    """
    texts = list(_examine(session, rows, natural))
    decisions = [_decide(session, text) for text in texts]
    session.record_decisions(phase, decisions, arm)
    if texts:
        session.record_gate_results(rows["phase"][0], texts, arm)
    return decisions


def _decide(session: Session, text: GatedText) -> Decision:
    row_id, problem_id, findings = text
    result = first_refusal(findings, session.config.gates)
    return row_id, problem_id, kept_word(result.passed), result.gate, None


def _examine(session: Session, rows: pl.DataFrame, natural: Sequence[int]) -> Iterable[GatedText]:
    median = float(np.median(natural)) if natural else None
    tokens = read_tokens(session.store, rows["trajectory_id"].to_list())
    references = read_references(session.store, rows["problem_id"])
    for row in rows.iter_rows(named=True):
        arrays = tokens[row["trajectory_id"]]
        text, starts = arrays.prefix + arrays.text, arrays.token_starts + len(arrays.prefix)
        item = AnswerConditionedText(
            question=row["question"],
            reference=references[row["problem_id"]],
            text=text,
            repaired_start_char=len(arrays.prefix),
            token_starts=starts,
            num_repaired_tokens=len(starts),
            token_ids=arrays.token_ids,
            seam_char=len(arrays.prefix) or _seam_of_whole_text(row["kind"], text, starts, session.config.steps),
        )
        length = row["num_prefix_tokens"] + row["num_tokens"]
        findings = examine_text(item, median, len(natural), length, session.config.gates)
        yield row["trajectory_id"], row["problem_id"], findings


def _seam_of_whole_text(kind: str, text: str, token_starts: np.ndarray, steps: StepsConfig) -> int | None:
    """Return the place at which G8's false positives are counted; guided samples have no seam, real or natural."""
    return natural_seam(text, token_starts, steps) if kind == Kind.ROLLOUT and len(token_starts) else None


@decision_task("filter by PURE")
def filter_pure(session: Session) -> dict[str, int]:
    """Return how many gated repairs PURE kept and dropped, by reason."""
    config, score = session.config.pure, score_in_use(session)
    decisions, threshold = pure_decisions(read_scores(session.store, session.run_id), score, config)
    # frozen with the run, so that a later candidate could be held against it
    session.record_decisions("pure_threshold", [("pooled", "", "frozen", score, threshold)])
    session.record_decisions("pure", decisions)
    return dict(Counter(reason or "kept" for *_, reason, _value in decisions))


def score_in_use(session: Session) -> str:
    """Return the score that PURE goes by: the setting's, or what the validity test chose for this run."""
    name = session.config.pure.score
    return name if name != AUTO else read_chosen_score(session.store, session.run_id)


def pure_decisions(
    rows: Sequence[Mapping[str, Any]], score: str, config: PureConfig
) -> tuple[list[Decision], float | None]:
    """Return what PURE decides on scored repairs, and the pooled threshold.

    Args:
        rows: Of `read_scores`. A text written without a hint has a reliance of 0: it could lean on none.
        score: Which of the three decides.
    """
    values = {
        row["trajectory_id"]: row[score] if row["reject_reason"] or row[score] is not None else 0.0 for row in rows
    }
    candidates = [
        PureCandidate(row["trajectory_id"], row["problem_id"], values[row["trajectory_id"]])
        for row in rows
        if row["reject_reason"] is None
    ]
    decision = decide_drops(candidates, config)
    decisions: list[Decision] = []
    for row in rows:
        row_id = row["trajectory_id"]
        reason = row["reject_reason"] or ("shortcut" if row_id in decision.dropped else None)
        decisions.append((row_id, row["problem_id"], kept_word(reason is None), reason, values[row_id]))
    return decisions, decision.threshold


@decision_task("build curriculum")
def build_curriculum(session: Session) -> tuple[Stage, Stage, Stage]:
    """Return the three stages of the arm heal, after the cap; both are stored."""
    bands = session.read_bands("train")
    kept_by_gate = read_kept(session.store, session.run_id, "gate")
    guided = verified_rows(session, "guided", bands).filter(pl.col("trajectory_id").is_in(list(kept_by_gate)))
    pure = read_kept(session.store, session.run_id, "pure")
    repairs = verified_rows(session, "repairs", bands).filter(pl.col("trajectory_id").is_in(list(pure)))
    base_ids = record_cap(session, verified_rows(session, "rollouts", bands))
    guided_ids = record_cap(session, guided)
    repair_ids = record_cap(session, repairs, pure)
    stages = build_stages(base_ids, guided_ids, repair_ids, session.config.curriculum, session.config.seed)
    for stage in stages:
        record_stage(session, "heal", stage.name, stage.row_ids)
        record_stage(session, "rejection_sampling", stage.name, stages[0].row_ids)
    return stages


@decision_task("build equal-tokens baseline")
def build_equal_tokens(session: Session) -> int:
    """Return how many examples B2 has: verified plain rollouts of training problems, capped as HEAL is."""
    curriculum = session.config.curriculum
    phases = [read_run_trajectories(session.store, session.run_id, phase) for phase in ("rollouts", "equal_tokens")]
    pool = pl.concat(phases).filter(pl.col("label") == str(VerdictLabel.CORRECT))
    kept: list[str] = []
    for problem_id, band in session.read_bands("train").items():
        candidates = cap_rows(session, pool.filter(pl.col("problem_id") == problem_id), None)
        most = example_cap(Band(band), curriculum)
        kept += cap_candidates(candidates, curriculum.model_copy(update={"max_per_problem": most})).kept
    for stage in STAGES:
        record_stage(session, "equal_tokens", stage, stage_order(kept, stage, session.config.seed))
    return len(kept)


def record_cap(
    session: Session, rows: pl.DataFrame, scores: Mapping[str, float] | None = None, arm: str | None = None
) -> tuple[str, ...]:
    """Return the rows that the cap keeps, by score or else by sample index; what it decides is stored."""
    candidates = cap_rows(session, rows, scores)
    result = cap_candidates(candidates, session.config.curriculum)
    session.record_decisions(
        "control_cap" if arm else "cap",
        [
            (c.row_id, c.problem_id, kept_word(c.row_id not in result.reasons), result.reasons.get(c.row_id), c.score)
            for c in candidates
        ],
        arm,
    )
    return result.kept


def cap_rows(session: Session, rows: pl.DataFrame, scores: Mapping[str, float] | None) -> list[CapCandidate]:
    """Return texts as the cap sees them, ranked by `scores`, or else by sample index."""
    tokens = read_tokens(session.store, rows["trajectory_id"].to_list())
    return [
        CapCandidate(
            row_id=row["trajectory_id"],
            problem_id=row["problem_id"],
            path_id=row["parent_id"] or row["trajectory_id"],
            score=float(row["sample_index"] if scores is None else scores[row["trajectory_id"]]),
            token_ids=tokens[row["trajectory_id"]].token_ids,
        )
        for row in rows.iter_rows(named=True)
    ]


def record_stage(session: Session, arm: str, stage: str, row_ids: Iterable[str]) -> None:
    """Store what a stage trains on, in order."""
    ids = list(row_ids)
    problem_of = {row["trajectory_id"]: row["problem_id"] for row in read_texts(session.store, ids)}
    rows = [
        {
            "stage_example_id": content_key("stage_example", session.run_id, arm, stage, position),
            "run_id": session.run_id,
            "arm": arm,
            "stage": stage,
            "position": position,
            "trajectory_id": row_id,
            "problem_id": problem_of[row_id],
        }
        for position, row_id in enumerate(ids)
    ]
    session.store.append_decided("stage_examples", rows, {"run_id": session.run_id, "arm": arm, "stage": stage})


def verified_rows(session: Session, phase: str, bands: Mapping[str, str], arm: str = "") -> pl.DataFrame:
    """Return a phase's correct trajectories of the given problems."""
    rows = read_run_trajectories(session.store, session.run_id, phase, arm)
    return rows.filter((pl.col("label") == str(VerdictLabel.CORRECT)) & pl.col("problem_id").is_in(list(bands)))


def kept_word(kept: bool) -> str:
    """Return how a decision is stored."""
    return "kept" if kept else "dropped"
