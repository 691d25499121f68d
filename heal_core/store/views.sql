-- Views over the tables, defined anew at every start (they hold no data).

CREATE OR REPLACE VIEW latest_verdicts AS
-- with QUALIFY row_number() here, DuckDB 2.0.0 fails on joins of the views below
SELECT v.* FROM verdicts v
JOIN (SELECT trajectory_id, max(rowid) AS last_row FROM verdicts GROUP BY trajectory_id) n ON v.rowid = n.last_row;
COMMENT ON VIEW latest_verdicts IS 'The newest verdict of each trajectory.';

CREATE OR REPLACE VIEW run_trajectories AS
SELECT r.run_id, r.phase, r.arm, r.cut, t.* EXCLUDE (part_name),
       -- a cut text is not correct, whatever its verdict; only the reference answer can make it ungradable
       CASE WHEN r.cut AND v.label IS NOT NULL AND v.reason IS DISTINCT FROM 'unparsable_gold'
            THEN 'wrong' ELSE v.label END AS label,
       CASE WHEN r.cut AND v.label = 'correct' THEN 'truncated' ELSE v.reason END AS reason, v.extracted
FROM run_rows r
JOIN trajectories t ON t.trajectory_id = r.row_id
LEFT JOIN verdicts v USING (verdict_id);
COMMENT ON VIEW run_trajectories IS 'The trajectories a run uses, with the verdicts it rests on.';

CREATE OR REPLACE VIEW pass_rates AS
SELECT p.run_id, p.problem_id, p.split,
       count(t.trajectory_id) AS num_generations,
       count(*) FILTER (t.label IN ('correct', 'wrong')) AS num_graded,
       count(*) FILTER (t.label = 'correct') AS num_correct,
       count(*) FILTER (t.cut) AS num_truncated,
       count(*) FILTER (t.label = 'correct')
           / nullif(count(*) FILTER (t.label IN ('correct', 'wrong')), 0) AS pass_rate
FROM run_problems p
LEFT JOIN run_trajectories t ON t.run_id = p.run_id AND t.problem_id = p.problem_id AND t.phase = 'rollouts'
GROUP BY ALL;
COMMENT ON VIEW pass_rates IS 'Per run and problem: the teacher''s rollouts, how many were graded and correct.';

CREATE OR REPLACE VIEW bands AS
SELECT r.*, d.decision AS band
FROM pass_rates r
JOIN decisions d ON d.run_id = r.run_id AND d.subject_id = r.problem_id AND d.phase = 'band';
COMMENT ON VIEW bands IS 'pass_rates with the band of each problem.';

CREATE OR REPLACE VIEW kept_examples AS
SELECT run_id, subject_id AS trajectory_id, problem_id, value AS score
FROM decisions WHERE phase = 'cap' AND decision = 'kept';
COMMENT ON VIEW kept_examples IS 'Trajectories that became training examples of the arm heal.';

CREATE OR REPLACE VIEW repair_yield AS
SELECT b.run_id, b.problem_id, b.num_correct, b.num_graded,
       count(DISTINCT t.parent_id) AS num_paths,
       count(t.trajectory_id) AS num_attempted,
       count(*) FILTER (t.label = 'correct') AS num_verified,
       count(*) FILTER (g.decision = 'kept') AS num_passed_gates,
       count(k.trajectory_id) AS num_kept,
       count(*) FILTER (t.label = 'correct') / nullif(count(t.trajectory_id), 0) AS verified_share
FROM bands b
LEFT JOIN run_trajectories t ON t.run_id = b.run_id AND t.problem_id = b.problem_id AND t.phase = 'repairs'
LEFT JOIN decisions g ON g.run_id = b.run_id AND g.subject_id = t.trajectory_id AND g.phase = 'gate'
LEFT JOIN kept_examples k ON k.run_id = b.run_id AND k.trajectory_id = t.trajectory_id
WHERE b.band = 'extremely_hard' AND b.split = 'train'
GROUP BY ALL;
COMMENT ON VIEW repair_yield IS 'Per run and extremely hard training problem: paths, repairs, and what became of them.';

CREATE OR REPLACE VIEW funnel AS
WITH outcomes AS (
    SELECT run_id, 1 AS position, 'rows' AS phase, 'quarantined' AS outcome, reason FROM quarantine
    UNION ALL
    SELECT run_id, 1, 'rows', split, NULL FROM run_problems
    UNION ALL
    SELECT run_id, 2, 'rollouts', CASE WHEN cut THEN 'truncated' ELSE label END, NULL
    FROM run_trajectories WHERE phase = 'rollouts'
    UNION ALL
    SELECT run_id, 3, 'problems', band, split FROM bands
    UNION ALL
    SELECT run_id, 4, 'paths', CASE WHEN decision = 'kept' THEN 'hinted' ELSE 'dropped' END, reason
    FROM decisions WHERE phase = 'path'
    UNION ALL
    SELECT t.run_id, CASE t.phase WHEN 'repairs' THEN 5 ELSE 6 END, t.phase,
           CASE WHEN t.cut THEN 'truncated' WHEN t.label IS DISTINCT FROM 'correct' THEN t.label
                WHEN g.decision = 'dropped' THEN 'dropped by gate'
                WHEN p.decision = 'dropped' THEN 'dropped by PURE'
                WHEN c.decision = 'dropped' THEN 'dropped by cap'
                WHEN c.decision = 'kept' THEN 'kept' ELSE 'undecided' END,
           CASE WHEN t.label = 'correct' AND NOT t.cut THEN coalesce(g.reason, p.reason, c.reason) END
    FROM run_trajectories t
    LEFT JOIN decisions g ON g.run_id = t.run_id AND g.subject_id = t.trajectory_id AND g.phase = 'gate'
    LEFT JOIN decisions p ON p.run_id = t.run_id AND p.subject_id = t.trajectory_id AND p.phase = 'pure'
    LEFT JOIN decisions c ON c.run_id = t.run_id AND c.subject_id = t.trajectory_id AND c.phase = 'cap'
    WHERE t.phase IN ('repairs', 'guided')
)
SELECT *, sum(num) OVER (PARTITION BY run_id, phase) AS num_in_phase
FROM (SELECT run_id, position, phase, outcome, reason, count(*) AS num FROM outcomes GROUP BY ALL);
COMMENT ON VIEW funnel IS 'What became of everything, by phase; the outcomes of a phase add up to num_in_phase.';

CREATE OR REPLACE VIEW token_spend AS
SELECT run_id, phase, arm, kind, count(*) AS num_samples, sum(num_tokens) AS num_tokens,
       sum(num_prompt_tokens) AS num_prompt_tokens, sum(seconds) AS seconds
FROM run_trajectories GROUP BY ALL;
COMMENT ON VIEW token_spend IS 'Sampled and prompt tokens and engine seconds, per run and phase.';

CREATE OR REPLACE VIEW stage_mix AS
SELECT s.run_id, s.arm, s.stage, t.kind, b.band, count(*) AS num_examples, sum(t.num_tokens) AS num_tokens
FROM stage_examples s
JOIN trajectories t USING (trajectory_id)
LEFT JOIN bands b ON b.run_id = s.run_id AND b.problem_id = s.problem_id
GROUP BY ALL;
COMMENT ON VIEW stage_mix IS 'What each stage trains on, by kind and band.';

CREATE OR REPLACE VIEW eval_summary AS
SELECT e.*, e.avg_at_k - base.avg_at_k AS gain_over_base,
       (e.avg_at_k - base.avg_at_k) / nullif(teacher.avg_at_k - base.avg_at_k, 0) AS gap_closed
FROM evaluations e
LEFT JOIN evaluations base ON base.run_id = e.run_id AND base.band = e.band AND base.arm = 'base'
LEFT JOIN evaluations teacher ON teacher.run_id = e.run_id AND teacher.band = e.band AND teacher.arm = 'teacher';
COMMENT ON VIEW eval_summary IS 'Held-out scores per arm and band, with the gain over the untrained student.';

CREATE OR REPLACE VIEW run_status AS
SELECT r.run_id, r.started_at, last(e.event ORDER BY e.happened_at) AS last_event, last(e.phase ORDER BY e.happened_at) FILTER (e.phase IS NOT NULL) AS last_phase,
       max(e.happened_at) AS last_event_at, bool_or(e.event = 'completed') AS completed
FROM runs r LEFT JOIN run_events e USING (run_id) GROUP BY r.run_id, r.started_at;
COMMENT ON VIEW run_status IS 'Where each run stands.';
