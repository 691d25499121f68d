"""The validity test of PURE: do its scores tell built shortcuts from natural reasoning, better than their length does?

Part of phase selection where `pure.score` is `auto`, and a flow of its own (`heal validate-pure`). What it samples and
reads is no part of what HEAL spent: it has phases of its own in `run_rows`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flows.repair import try_hints
from flows.rollouts import into_shards, sample_and_verify
from flows.scoring import score_rows
from heal_core.prompts import rationale_prompt, student_prompt
from heal_core.recipes import repair_template, score_template
from heal_core.records import Kind, VerdictLabel
from heal_core.repair import BrokenPath, plain_slot
from heal_core.store.reads import read_run_trajectories
from heal_core.validity.shortcuts import Continuation, Shortcut, rationale_slot
from heal_core.validity.tokens import Tokens
from tasks.policy import retried
from tasks.samples import VerifyWork, verify_chunk
from tasks.session import Session, logger
from tasks.shards import run_shard
from tasks.validity import (
    BUILT,
    NATURAL,
    RATIONALES,
    WORK,
    BuildWork,
    Prefix,
    Texts,
    accept_hints,
    build_chunk,
    build_shortcuts,
    choose_natural,
    cut_hard_paths,
    find_teachers_break,
    row_id_of,
    validity_id_of,
)
from tasks.validity_tables import ValidityScoreWork, conclude, record_chosen


def choose_score(session: Session) -> None:
    """Have the validity test choose the score that PURE goes by in this run, and freeze it."""
    record_chosen(session, validate_pure(session))


def validate_pure(session: Session) -> dict[str, Any]:
    """Return the test, stored: natural texts and shortcuts of hard problems, read by the scorer, and the verdict."""
    validity_id = validity_id_of(session)
    paths: list[tuple[int, BrokenPath]] = cut_hard_paths(session)
    prefixes = write_hints(session, validity_id, paths)
    continue_prefixes(session, validity_id, prefixes)
    natural: list[Continuation] = choose_natural(session, validity_id, prefixes)
    chunks = {prefix.path.trajectory_id: prefix.chunk_index for prefix in prefixes}
    line_break = find_teachers_break(session, natural)
    rationales = write_rationales(session, validity_id, natural, chunks, line_break)
    texts: Texts = build_shortcuts(session, natural, rationales, line_break)
    built_recipe = session.recipe(Kind.SHORTCUT, session.teacher, None, "tokens of its own continuations")
    store_shortcuts(session, validity_id, texts.shortcuts, built_recipe, chunks)
    score_recipe = score_texts(session, validity_id, prefixes, texts, built_recipe)
    test: dict[str, Any] = conclude(session, validity_id, (len(paths), prefixes), texts, (built_recipe, score_recipe))
    logger.info("validity test %s: %s, PURE's score is %s", validity_id, test["verdict"], test["chosen"])
    return test


def write_hints(session: Session, validity_id: str, paths: list[tuple[int, BrokenPath]]) -> list[Prefix]:
    """Return the prefixes that got a hint as GEAR's arm has it, in the order given; of none other are there texts."""
    hints, used = try_hints(session, WORK, paths, lambda tries: accept_hints(session, tries), "hints")
    session.close_phase("validity_hints", validity_id, Kind.HINT, used)
    return [Prefix(chunk, path, hints[path.trajectory_id]) for chunk, path in paths if path.trajectory_id in hints]


def continue_prefixes(session: Session, validity_id: str, prefixes: Sequence[Prefix]) -> None:
    """Continue each prefix under the plain student prompt, and grade the whole responses."""
    sampling = session.config.rollouts.sampling
    recipe_id = session.recipe(Kind.CONTINUATION, session.teacher, sampling, student_prompt("{}"))
    slots = [
        (prefix.chunk_index, plain_slot(prefix.path, recipe_id, index, sampling, Kind.CONTINUATION))
        for prefix in prefixes
        for index in range(session.config.pure.validity.num_generations)
    ]
    used = sample_and_verify(session, WORK, slots, session.teacher, sampling, turn="natural")
    session.close_phase(NATURAL, validity_id, Kind.CONTINUATION, dict(used.values()))


def write_rationales(
    session: Session,
    validity_id: str,
    natural: Sequence[Continuation],
    chunks: dict[str, int],
    line_break: Tokens,
) -> dict[str, str]:
    """Return what the teacher wrote after it had stated the answer, by the natural text whose words stated it."""
    sampling = session.config.rollouts.sampling
    recipe_id = session.recipe(Kind.CONTINUATION, session.teacher, sampling, rationale_prompt("{}", "{}"))
    slots = [
        (chunks[text.path.trajectory_id], rationale_slot(text, recipe_id, 0, sampling, line_break)) for text in natural
    ]
    used = sample_and_verify(session, WORK, slots, session.teacher, sampling, verify=False, turn="rationales")
    session.close_phase(RATIONALES, validity_id, Kind.CONTINUATION, dict(used.values()))
    return {
        text.row_id: used[slot.slot_id][0]
        for text, (_, slot) in zip(natural, slots, strict=True)
        if slot.slot_id in used
    }


def store_shortcuts(
    session: Session, validity_id: str, shortcuts: Sequence[Shortcut], recipe_id: str, chunks: dict[str, int]
) -> None:
    """Store the built texts as trajectories, and grade them as any other."""
    session.enter_work(WORK)
    items = [shortcut for shortcut in shortcuts if shortcut.path.problem_id not in session.quarantine]
    session.progress.begin(session.run_id, session.phase_name, WORK, "shortcuts", len(items))
    grade = retried(verify_chunk, session.config.failures)
    used: dict[str, bool] = {}
    for names, shard in into_shards(session, items, lambda shortcut: chunks[shortcut.path.trajectory_id]):
        work = BuildWork(names, shard, recipe_id, session.teacher, session.store.epoch)
        for row_ids in run_shard(session, build_chunk, work):
            used |= dict.fromkeys(row_ids, False)
            grade(session, VerifyWork(WORK, names, row_ids, session.config.verify, session.store.epoch))
        session.progress.advance(len(shard))
    session.finish_work()
    session.close_phase(BUILT, validity_id, Kind.SHORTCUT, used)


def score_texts(session: Session, validity_id: str, prefixes: Sequence[Prefix], texts: Texts, built_recipe: str) -> str:
    """Score the natural texts and the verified shortcuts, all under their path's hint; return the scores' recipe."""
    config = session.config
    recipe_id = session.recipe("score", session.scorer, None, score_template(config.pure, config.steps))
    # read as what GEAR would have made there: a repair under the path's hint
    repairs = session.recipe(Kind.REPAIR, session.teacher, config.rollouts.sampling, repair_template(config.hints))
    hint_of = {prefix.path.trajectory_id: prefix.hint.hint_id for prefix in prefixes}
    wanted = {text.row_id for text in texts.natural} | {row_id_of(s, built_recipe) for s in texts.shortcuts}
    rows = [
        row | {"hint_id": hint_of[row["parent_id"]], "recipe_id": repairs}
        for phase in (NATURAL, BUILT)
        for row in read_run_trajectories(session.store, session.run_id, phase, validity_id).iter_rows(named=True)
        if row["trajectory_id"] in wanted and row["label"] == VerdictLabel.CORRECT
    ]
    used = score_rows(session, rows, ValidityScoreWork, recipe_id, ValidityScoreWork.work, "texts")
    session.close_phase("validity_scores", validity_id, "validity_score", used)
    return recipe_id
