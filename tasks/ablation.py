"""The task that compares the runs of an ablation and stores its tables.

What does not belong here: the estimates (`heal_core.ablation`), and the runs themselves (`flows.ablation`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from heal_core import __version__
from heal_core.ablation import AblationConfig, Samples, contrast_scores, contrast_yields, score_arms
from heal_core.arms import BASE, TEACHER
from heal_core.keys import content_key
from heal_core.store.ablations import read_path_yields, summarise_ablation
from tasks.evaluation import graded_samples
from tasks.policy import decision_task
from tasks.problems import git_revision
from tasks.session import Session


@decision_task("compare seeds")
def compare_seeds(session: Session, settings: AblationConfig, runs: Sequence[tuple[int, str]]) -> dict[str, Any]:
    """Return the summary of an ablation, whose tables are stored.

    Args:
        runs: Seed and run id, in the order of the seeds; each has come to its end.
    """
    run_ids = [run_id for _, run_id in runs]
    seeds = _read_answers(session, run_ids) if settings.students else []
    k = session.config.evaluation.num_generations
    yields = [read_path_yields(session.store, run_id) for run_id in settings.runs_with_own_texts(run_ids)]
    ablation_id = content_key("ablation", settings.model_dump(mode="json"), run_ids)[:12]
    row = {
        "ablation_id": ablation_id,
        "config": session.config.model_dump_json(),
        "settings": settings.model_dump_json(),
        "heal_version": __version__,
        "git_revision": git_revision(),
    }
    session.store.append("ablations", [row])
    _store(
        session,
        "ablation_runs",
        ablation_id,
        [{"position": place, "seed": seed, "run_id": run_id} for place, (seed, run_id) in enumerate(runs)],
        lambda row: [row["position"]],
    )
    scores, differences = (score_arms(seeds, k), contrast_scores(seeds, k)) if seeds else ((), ())
    _store(session, "ablation_scores", ablation_id, map(asdict, scores), lambda row: [row["arm"], row["band"]])
    contrasts = [asdict(one) for one in (*differences, *contrast_yields(yields))]
    _store(
        session,
        "ablation_contrasts",
        ablation_id,
        contrasts,
        lambda row: [row["measure"], row["against"], row["band"]],
    )
    session.store.check_decided()
    session.store.publish(force=True)
    return summarise_ablation(session.store, ablation_id)


def _read_answers(session: Session, run_ids: Iterable[str]) -> list[Samples]:
    """Return per run the answers to held-out problems of the teacher, the untrained student and each trained one."""
    seeds: list[Samples] = []
    for run_id in run_ids:
        session.begin(run_id, None)
        seeds.append({arm: graded_samples(session, arm) for arm in (TEACHER, BASE, *session.config.controls.arms)})
    return seeds


def _store(
    session: Session,
    table: str,
    ablation_id: str,
    rows: Iterable[Mapping[str, Any]],
    key: Callable[[Mapping[str, Any]], list[Any]],
) -> None:
    """Store an ablation's rows; `key` says what tells them apart."""
    name = table.removesuffix("s") + "_id"
    named = [{name: content_key(name, ablation_id, *key(row)), "ablation_id": ablation_id} | dict(row) for row in rows]
    session.store.append_decided(table, named, {"ablation_id": ablation_id})
