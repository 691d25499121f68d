"""What the report of a run counts, read from its store. Nothing is sampled here: all of its rows count.

What does not belong here: single trajectories (`inspector`), and how anything looks (`heal_core.report`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from heal_core.arms import HEAL
from heal_core.errors import InputError, StoreError
from heal_core.store.reading import Readable
from heal_core.store.run_profiles import find_used_profiles

Rows = list[dict[str, Any]]

MAX_OFFSET = 6
"""Steps before and after the breakpoint over which entropies are aligned."""

OLDEST_SCHEMA = "0012"


@dataclass(frozen=True)
class RunReport:
    """What became of one run. Rows are those of the queries below, under the names of the schema.

    Attributes:
        run: run_id, state, started, seconds, versions; `config` is the resolved config.
        models: What recipes say of the models: kind, name, the weights' digest.
        funnel: Rows of the view funnel, in its order.
        bands: split, band, num.
        pass_rates: Per training problem before and after: band, rate_before, rate_after.
        ceiling: num_problems, num_extremely_hard, num_never (no rollout solves them), num_repaired, num_kept,
            num_unsolved (no plain sample does), num_unsolved_repaired (of these).
        entropies: label, step_offset (step minus breakpoint), mean entropy, its standard error over problems (None with
            one), num of rollouts, num_problems.
        break_positions: tenth, share of the wrong rollouts' breakpoints, and that of a step drawn at random.
        gates: Rows of the view gate_rates without controls.
        pure: score, decision of each repair that was scored; score_name and threshold are the same in all.
        validity: Rows of validity_aurocs of the newest test, with its verdict; empty without one.
        stage_mix: stage, kind, num, of HEAL.
        losses: stage, step of the run's training, loss, of HEAL; `held_out` has losses between stages.
        scores: Rows of eval_summary.
        contrasts: Rows of eval_contrasts, the primary one first.
        spend: Rows of phase_spend.
        quarantine: reason, num.
    """

    run: dict[str, Any]
    models: Rows
    funnel: Rows
    bands: Rows
    pass_rates: Rows
    ceiling: dict[str, int]
    entropies: Rows
    break_positions: Rows
    gates: Rows
    pure: Rows
    validity: Rows
    stage_mix: Rows
    losses: Rows
    held_out: Rows
    scores: Rows
    contrasts: Rows
    spend: Rows
    quarantine: Rows


_RUN = """
SELECT r.run_id, r.config::VARCHAR AS config, r.seed, r.heal_version, r.git_revision, r.started_at, r.purpose,
       r.attempt,
       CASE WHEN s.completed THEN 'completed' WHEN s.last_event IN ('failed', 'stopped') THEN s.last_event
            ELSE 'unfinished' END AS state,
       s.last_event_at,
       (SELECT sum(wall_seconds) FROM phase_spend p WHERE p.run_id = r.run_id) AS wall_seconds
FROM runs r LEFT JOIN run_status s USING (run_id) WHERE r.run_id = $run
"""

_MODELS = """
SELECT DISTINCT c.kind, c.model_name_or_path, c.settings::VARCHAR AS settings
FROM (SELECT DISTINCT t.recipe_id FROM run_rows r JOIN trajectories t ON t.trajectory_id = r.row_id
      WHERE r.run_id = $run AND r.phase <> 'evaluation') JOIN recipes c USING (recipe_id) ORDER BY ALL
"""

_FUNNEL = "SELECT * EXCLUDE (run_id) FROM funnel WHERE run_id = $run ORDER BY position, num DESC, outcome, reason"

_BANDS = "SELECT split, band, count(*) AS num FROM bands WHERE run_id = $run GROUP BY ALL ORDER BY ALL"

_PASS_RATES = """
SELECT b.problem_id, b.band, b.num_correct / b.num_graded AS rate_before,
       (b.num_correct + coalesce(y.num_correct, 0)) / (b.num_graded + coalesce(y.num_graded, 0)) AS rate_after
FROM bands b LEFT JOIN (
    SELECT problem_id, count(*) FILTER (label = 'correct') AS num_correct, count(*) AS num_graded
    FROM run_trajectories WHERE run_id = $run AND phase = 'repairs' AND label IN ('correct', 'wrong')
    GROUP BY problem_id
) y USING (problem_id)
WHERE b.run_id = $run AND b.split = 'train' AND b.num_graded > 0 ORDER BY b.problem_id
"""

_CEILING = """
SELECT (SELECT count(*) FROM bands WHERE run_id = $run AND split = 'train' AND band <> 'ungraded') AS num_problems,
       count(*) AS num_extremely_hard, count(*) FILTER (num_correct = 0) AS num_never,
       count(*) FILTER (num_verified > 0) AS num_repaired, count(*) FILTER (num_kept > 0) AS num_kept,
       -- bands are made by what was asked for; a config of another HEAL may not say it
       coalesce((SELECT (config ->> '$.rollouts.num_generations')::INTEGER FROM runs WHERE run_id = $run),
                max(num_graded), 0) AS num_generations,
       (SELECT count(*) FROM ceilings c WHERE c.run_id = $run AND c.is_unsolved) AS num_unsolved,
       (SELECT count(*) FROM ceilings c WHERE c.run_id = $run AND c.is_unsolved AND c.is_repaired)
           AS num_unsolved_repaired
FROM repair_yield WHERE run_id = $run
"""

# a rollout has a profile per setting of steps and breakpoints: of several, the run's own (`run_profiles`)
_PROFILES = """
WITH profiled AS (
    SELECT r.label, r.problem_id, p.*
    FROM run_trajectories r JOIN profiles p USING (trajectory_id)
    WHERE r.run_id = $run AND r.phase = 'rollouts' AND r.label IN ('correct', 'wrong')
    QUALIFY row_number() OVER (PARTITION BY trajectory_id
        ORDER BY p.profile_id IN (SELECT unnest($used)) DESC, p.profile_id) = 1
)
"""

# rollouts of a problem are alike: the standard error of their mean is that over problems (clusters)
_ENTROPIES = (
    _PROFILES
    + """
SELECT label, step_offset, any_value(mean) AS mean_entropy_nats,
       sqrt(sum(deviation ** 2) * count(*) / nullif(count(*) - 1, 0)) / sum(num) AS standard_error,
       sum(num)::BIGINT AS num, count(*) AS num_problems
FROM (
    SELECT label, step_offset, problem_id, count(*) AS num, any_value(mean) AS mean, sum(entropy - mean) AS deviation
    FROM (
        SELECT label, problem_id, step - breakpoint_step AS step_offset, entropy,
               avg(entropy) OVER (PARTITION BY label, step - breakpoint_step) AS mean
        FROM (SELECT label, problem_id, breakpoint_step, unnest(step_entropies) AS entropy,
                     generate_subscripts(step_entropies, 1) - 1 AS step
              FROM profiled WHERE breakpoint_step IS NOT NULL)
        WHERE step - breakpoint_step BETWEEN -$reach AND $reach
    ) GROUP BY ALL
) GROUP BY label, step_offset ORDER BY ALL
"""
)

_BREAK_POSITIONS = (
    _PROFILES
    + """
SELECT tenth, sum(chosen) / sum(sum(chosen)) OVER () AS share, sum(drawn) / sum(sum(drawn)) OVER () AS random_share,
       sum(chosen)::BIGINT AS num
FROM (
    SELECT 10 * step // num_steps AS tenth, (step = breakpoint_step)::INTEGER AS chosen, 1 / window_size AS drawn
    FROM (SELECT num_steps, breakpoint_step, window_size, unnest(range(1, window_size + 1)) AS step
          FROM profiled WHERE label = 'wrong' AND breakpoint_step IS NOT NULL)
) GROUP BY tenth ORDER BY tenth
"""
)

_GATES = """
SELECT phase, gate, num_texts, num_judged, num_refused, refused_share, num_first FROM gate_rates
WHERE run_id = $run AND arm IS NULL ORDER BY phase, TRY_CAST(gate[2:] AS INTEGER)
"""

_PURE = """
SELECT score_name, score, decision, reason, rule, pooled_threshold FROM pure_scores WHERE run_id = $run
ORDER BY score, trajectory_id
"""

_VALIDITY = """
SELECT a.measure, a.kind, a.auroc, a.low, a.high, a.num_shortcuts, a.num_natural, t.winner, t.chosen, t.verdict
FROM validity_aurocs a
JOIN (SELECT * FROM validity_tests WHERE run_id = $run ORDER BY rowid DESC LIMIT 1) t USING (run_id, validity_id)
ORDER BY a.position
"""

_STAGE_MIX = """
SELECT stage, kind, sum(num_examples)::BIGINT AS num FROM stage_mix WHERE run_id = $run AND arm = $heal
GROUP BY ALL ORDER BY ALL
"""

_LOSSES = """
SELECT stage, (row_number() OVER (ORDER BY stage, step))::INTEGER AS run_step, step, loss, learning_rate, grad_norm
FROM training_steps WHERE run_id = $run AND arm = $heal ORDER BY stage, step
"""

_HELD_OUT = """
SELECT stage, num_examples, num_optimizer_steps, num_dropped_over_long, loss_first, loss_last, held_out_before,
       held_out_after, num_held_out, seconds
FROM training_stages WHERE run_id = $run AND arm = $heal ORDER BY stage
"""

_SCORES = "SELECT * EXCLUDE (run_id, evaluation_id) FROM eval_summary WHERE run_id = $run ORDER BY arm, band"

_CONTRASTS = """
SELECT * EXCLUDE (run_id, eval_contrast_id) FROM eval_contrasts WHERE run_id = $run AND benchmark IS NULL
ORDER BY is_primary DESC, rowid
"""

_SPEND = "SELECT * EXCLUDE (run_id) FROM phase_spend WHERE run_id = $run ORDER BY position"

_QUARANTINE = """
SELECT CASE WHEN problem_id IS NULL THEN 'rows' ELSE 'problems' END AS what, split_part(reason, ':', 1) AS reason,
       count(*) AS num
FROM quarantine WHERE run_id = $run GROUP BY ALL ORDER BY num DESC, reason
"""


def read_report(store: Readable, run_id: str) -> RunReport:
    """Return what became of a run, as far as it has come.

    Raises:
        StoreError: If the store is of an older schema.
    """
    check_schema(store)
    used = find_used_profiles(store, run_id)

    def read(sql: str) -> Rows:
        named = {"run": run_id, "heal": HEAL, "reach": MAX_OFFSET, "used": used}
        return store.rows(sql, {name: value for name, value in named.items() if f"${name}" in sql})

    (run,) = read(_RUN)
    (ceiling,) = read(_CEILING)
    return RunReport(
        run={**run, "config": json.loads(run["config"])},
        models=read(_MODELS),
        funnel=read(_FUNNEL),
        bands=read(_BANDS),
        pass_rates=read(_PASS_RATES),
        ceiling=ceiling,
        entropies=read(_ENTROPIES),
        break_positions=read(_BREAK_POSITIONS),
        gates=read(_GATES),
        pure=read(_PURE),
        validity=read(_VALIDITY),
        stage_mix=read(_STAGE_MIX),
        losses=read(_LOSSES),
        held_out=read(_HELD_OUT),
        scores=read(_SCORES),
        contrasts=read(_CONTRASTS),
        spend=read(_SPEND),
        quarantine=read(_QUARANTINE),
    )


def read_config(store: Readable, run_id: str) -> dict[str, Any]:
    """Return the resolved settings of a run.

    Raises:
        InputError: If the store has no such run.
    """
    found = store.rows("SELECT config::VARCHAR AS config FROM runs WHERE run_id = $run", {"run": run_id})
    if not found:
        raise InputError(f"the store has no run {run_id!r}.")
    return dict(json.loads(found[0]["config"]))


def check_schema(store: Readable) -> None:
    """Raise if a published store lacks what the report asks for.

    Raises:
        StoreError: With the remedy.
    """
    (row,) = store.rows("SELECT max(name) AS name FROM migrations")
    if row["name"] < OLDEST_SCHEMA:
        raise StoreError(
            f"the published store has the schema {row['name']}, and the report needs {OLDEST_SCHEMA} or later. "
            "`heal store rebuild` publishes it anew."
        )
