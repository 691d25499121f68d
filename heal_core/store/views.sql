-- Views over the tables, defined anew at every start (they hold no data). Each column is described, as those
-- of the tables are: docs/schema.md is made from it. In one transaction, or each comment would wait for the disk.
-- QUALIFY is avoided: joins of views that use it fail in DuckDB 2.0.0. Functions are those of DuckDB 1.4, which
-- can open the file. Decisions are joined by run, phase and subject, so that a filter on run_id reaches every table.
BEGIN;

-- ---- rows and verdicts

CREATE OR REPLACE VIEW latest_verdicts AS
SELECT v.* FROM verdicts v
JOIN (SELECT trajectory_id, max(rowid) AS last_row FROM verdicts GROUP BY trajectory_id) n ON v.rowid = n.last_row;
COMMENT ON VIEW latest_verdicts IS 'The newest verdict of each trajectory, whichever run asked for it.';
COMMENT ON COLUMN latest_verdicts.verdict_id IS 'Content key of trajectory, verifier, version and time limit.';
COMMENT ON COLUMN latest_verdicts.trajectory_id IS 'The trajectory; in this view once.';
COMMENT ON COLUMN latest_verdicts.label IS 'correct, wrong or unverifiable.';
COMMENT ON COLUMN latest_verdicts.extracted IS 'The answer that was read from the text; null when there was none.';
COMMENT ON COLUMN latest_verdicts.extraction IS 'Where it stood: boxed, answer_phrase or hash_line; of a program code_block, bare_block or whole_text; null without an answer, and in rows from before schema 0005.';
COMMENT ON COLUMN latest_verdicts.reason IS 'Why it is not correct; null when it is.';
COMMENT ON COLUMN latest_verdicts.verifier IS 'Which verifier.';
COMMENT ON COLUMN latest_verdicts.verifier_version IS 'Its version.';
COMMENT ON COLUMN latest_verdicts.seconds IS 'Time it took.';
COMMENT ON COLUMN latest_verdicts.limit_seconds IS 'Time limit it was made under; null in rows from before schema 0002.';
COMMENT ON COLUMN latest_verdicts.created_at IS 'When it was stored; null in rows from before schema 0002.';

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
COMMENT ON COLUMN run_trajectories.run_id IS 'The run; runs share trajectories.';
COMMENT ON COLUMN run_trajectories.phase IS 'What the run uses it for: rollouts, hints, repairs, guided, equal_tokens, ceiling, control_hints, control_repairs, evaluation or promotion; of a validity test as in token_spend.';
COMMENT ON COLUMN run_trajectories.arm IS 'For evaluation and promotion: whose student answered; in phases of controls: which control; of a validity test its validity_id; else an empty string.';
COMMENT ON COLUMN run_trajectories.cut IS 'It counts as truncated in this run.';
COMMENT ON COLUMN run_trajectories.trajectory_id IS 'The trajectory.';
COMMENT ON COLUMN run_trajectories.slot_id IS 'The place that it fills.';
COMMENT ON COLUMN run_trajectories.kind IS 'rollout, hint, guided or repair; of a validity test continuation or shortcut.';
COMMENT ON COLUMN run_trajectories.problem_id IS 'The problem it is about.';
COMMENT ON COLUMN run_trajectories.parent_id IS 'As in trajectories: the wrong rollout that hints and repairs belong to.';
COMMENT ON COLUMN run_trajectories.hint_id IS 'For repairs: the hint that was in the prompt; null where none was.';
COMMENT ON COLUMN run_trajectories.recipe_id IS 'How it was sampled.';
COMMENT ON COLUMN run_trajectories.sample_index IS 'Which of the samples of the same parents, from 0.';
COMMENT ON COLUMN run_trajectories.limit_tokens IS 'The limit on sampled tokens when it was sampled; 0 for imported rollouts, of which nobody knows it.';
COMMENT ON COLUMN run_trajectories.prefix IS 'For repairs: the kept steps of the wrong rollout; else empty.';
COMMENT ON COLUMN run_trajectories.text IS 'The sampled text; the whole response is prefix || text.';
COMMENT ON COLUMN run_trajectories.finish_reason IS 'stop, length or hopeless, when it was sampled; what counts in the run is cut.';
COMMENT ON COLUMN run_trajectories.entropy_source IS 'exact or top_20; null, which means exact, before schema 0008.';
COMMENT ON COLUMN run_trajectories.num_cached_tokens IS 'Prompt tokens that the engine had read before; null where it does not say.';
COMMENT ON COLUMN run_trajectories.num_prefix_tokens IS 'Tokens of the prefix.';
COMMENT ON COLUMN run_trajectories.num_tokens IS 'Sampled tokens, without the end-of-turn token.';
COMMENT ON COLUMN run_trajectories.num_prompt_tokens IS 'Tokens of the rendered prompt and prefix.';
COMMENT ON COLUMN run_trajectories.mean_entropy_nats IS 'Mean token entropy, nats; null when no token was sampled.';
COMMENT ON COLUMN run_trajectories.mean_logprob_nats IS 'Mean log-probability of the sampled tokens at temperature 1, nats; null when there was none.';
COMMENT ON COLUMN run_trajectories.seconds IS 'Its share of the batch''s wall time.';
COMMENT ON COLUMN run_trajectories.created_at IS 'When it was stored.';
COMMENT ON COLUMN run_trajectories.label IS 'What counts in the run: correct, wrong or unverifiable; a cut text is never correct. Null where nothing was graded.';
COMMENT ON COLUMN run_trajectories.reason IS 'Why it is not correct; null when it is, or was not graded.';
COMMENT ON COLUMN run_trajectories.extracted IS 'The answer that was read from the text; null when there was none.';

-- ---- problems

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
COMMENT ON COLUMN pass_rates.run_id IS 'The run.';
COMMENT ON COLUMN pass_rates.problem_id IS 'The problem.';
COMMENT ON COLUMN pass_rates.split IS 'train or held_out.';
COMMENT ON COLUMN pass_rates.num_generations IS 'Rollouts of the teacher.';
COMMENT ON COLUMN pass_rates.num_graded IS 'Those with a verdict other than unverifiable.';
COMMENT ON COLUMN pass_rates.num_correct IS 'Those verified correct, c.';
COMMENT ON COLUMN pass_rates.num_truncated IS 'Those that count as truncated.';
COMMENT ON COLUMN pass_rates.pass_rate IS 'num_correct / num_graded, in [0, 1]; null when none was graded.';

CREATE OR REPLACE VIEW bands AS
SELECT r.*, d.decision AS band
FROM pass_rates r
JOIN decisions d ON d.run_id = r.run_id AND d.subject_id = r.problem_id AND d.phase = 'band';
COMMENT ON VIEW bands IS 'pass_rates with the band of each problem.';
COMMENT ON COLUMN bands.run_id IS 'The run.';
COMMENT ON COLUMN bands.problem_id IS 'The problem.';
COMMENT ON COLUMN bands.split IS 'train or held_out.';
COMMENT ON COLUMN bands.num_generations IS 'Rollouts of the teacher.';
COMMENT ON COLUMN bands.num_graded IS 'Those with a verdict other than unverifiable.';
COMMENT ON COLUMN bands.num_correct IS 'Those verified correct, c.';
COMMENT ON COLUMN bands.num_truncated IS 'Those that count as truncated.';
COMMENT ON COLUMN bands.pass_rate IS 'num_correct / num_graded, in [0, 1]; null when none was graded.';
COMMENT ON COLUMN bands.band IS 'easy, hard, extremely_hard or ungraded, as the run decided.';

CREATE OR REPLACE VIEW rollout_origins AS
SELECT r.run_id, p.split, CASE WHEN c.kind = 'imported' THEN 'imported' ELSE 'sampled' END AS origin,
       c.model_name_or_path AS model, f.source, count(*) AS num_rollouts,
       count(DISTINCT t.problem_id) AS num_problems,
       count(*) FILTER (v.label = 'correct' AND NOT r.cut) AS num_correct,
       count(*) FILTER (r.cut) AS num_truncated, sum(t.num_tokens)::BIGINT AS num_tokens
FROM run_rows r
JOIN trajectories t ON t.trajectory_id = r.row_id
JOIN recipes c USING (recipe_id)
JOIN run_problems p ON p.run_id = r.run_id AND p.problem_id = t.problem_id
LEFT JOIN verdicts v USING (verdict_id)
LEFT JOIN (
    SELECT trajectory_id, first(source ORDER BY rowid) AS source FROM import_rows GROUP BY trajectory_id
) f ON f.trajectory_id = r.row_id
WHERE r.phase = 'rollouts' GROUP BY ALL;
COMMENT ON VIEW rollout_origins IS 'Where the rollouts of a run are from: sampled by it or an earlier run, or imported, and from which file.';
COMMENT ON COLUMN rollout_origins.run_id IS 'The run.';
COMMENT ON COLUMN rollout_origins.split IS 'train or held_out; rollouts of held-out problems are always sampled.';
COMMENT ON COLUMN rollout_origins.origin IS 'sampled or imported.';
COMMENT ON COLUMN rollout_origins.model IS 'The model that wrote them; of imported ones as it was said, or unknown.';
COMMENT ON COLUMN rollout_origins.source IS 'The file that was the first to bring them; null for sampled ones.';
COMMENT ON COLUMN rollout_origins.num_rollouts IS 'How many the run uses.';
COMMENT ON COLUMN rollout_origins.num_problems IS 'Of how many problems.';
COMMENT ON COLUMN rollout_origins.num_correct IS 'Those that are correct and were not cut.';
COMMENT ON COLUMN rollout_origins.num_truncated IS 'Those that count as truncated.';
COMMENT ON COLUMN rollout_origins.num_tokens IS 'Their tokens.';

-- ---- repairs: what was tried, what became of it

CREATE OR REPLACE VIEW kept_examples AS
SELECT run_id, subject_id AS trajectory_id, problem_id, value AS score
FROM decisions WHERE phase = 'cap' AND decision = 'kept';
COMMENT ON VIEW kept_examples IS 'Trajectories that became training examples of the arm heal.';
COMMENT ON COLUMN kept_examples.run_id IS 'The run.';
COMMENT ON COLUMN kept_examples.trajectory_id IS 'The example.';
COMMENT ON COLUMN kept_examples.problem_id IS 'Its problem.';
COMMENT ON COLUMN kept_examples.score IS 'What it was ranked by, lower first: a repair''s PURE score, else the sample index.';

CREATE OR REPLACE VIEW repair_outcomes AS
SELECT r.run_id, r.phase, r.row_id AS trajectory_id,
       CASE WHEN r.cut THEN 'truncated' WHEN v.label IS DISTINCT FROM 'correct' THEN v.label
            WHEN g.decision = 'dropped' THEN 'dropped by gate'
            WHEN p.decision = 'dropped' THEN 'dropped by PURE'
            WHEN c.decision = 'dropped' THEN 'dropped by cap'
            WHEN c.decision = 'kept' THEN 'kept' ELSE 'undecided' END AS outcome,
       CASE WHEN v.label = 'correct' AND NOT r.cut THEN coalesce(g.reason, p.reason, c.reason) END AS reason,
       coalesce(v.label = 'correct' AND NOT r.cut, false) AS verified,
       coalesce(g.decision = 'kept', false) AS passed_gates,
       coalesce(c.decision = 'kept', false) AS kept
FROM run_rows r
LEFT JOIN verdicts v USING (verdict_id)
LEFT JOIN decisions g ON g.run_id = r.run_id AND g.subject_id = r.row_id AND g.phase = 'gate'
LEFT JOIN decisions p ON p.run_id = r.run_id AND p.subject_id = r.row_id AND p.phase = 'pure'
LEFT JOIN decisions c ON c.run_id = r.run_id AND c.subject_id = r.row_id AND c.phase = 'cap'
WHERE r.phase IN ('repairs', 'guided');
COMMENT ON VIEW repair_outcomes IS 'What became of each repair and each guided sample of a run.';
COMMENT ON COLUMN repair_outcomes.run_id IS 'The run.';
COMMENT ON COLUMN repair_outcomes.phase IS 'repairs or guided.';
COMMENT ON COLUMN repair_outcomes.trajectory_id IS 'The repair or guided sample.';
COMMENT ON COLUMN repair_outcomes.outcome IS 'truncated, wrong, unverifiable, dropped by gate, dropped by PURE, dropped by cap, kept, or undecided (the run did not get that far); null when not graded.';
COMMENT ON COLUMN repair_outcomes.reason IS 'Which gate, PURE reason or reason of the cap dropped it; else null.';
COMMENT ON COLUMN repair_outcomes.verified IS 'It is correct and was not cut.';
COMMENT ON COLUMN repair_outcomes.passed_gates IS 'It is verified and no gate refused it.';
COMMENT ON COLUMN repair_outcomes.kept IS 'It became a training example of the arm heal.';

CREATE OR REPLACE VIEW run_repairs AS
SELECT o.run_id, o.trajectory_id, t.problem_id, t.parent_id, t.hint_id, run.config ->> '$.hints.arm' AS hint_arm,
       t.sample_index, t.num_prefix_tokens, t.num_tokens, t.seconds,
       b.place.breakpoint_step AS breakpoint_step, b.place.num_steps AS num_steps,
       b.place.breakpoint_step / b.place.num_steps AS break_share,
       (10 * b.place.breakpoint_step // b.place.num_steps)::INTEGER AS break_tenth,
       b.place.surge_nats AS surge_nats, b.place.flat AS flat,
       o.outcome, o.reason, o.verified, o.passed_gates, o.kept
FROM repair_outcomes o
JOIN runs run USING (run_id)
JOIN trajectories t USING (trajectory_id)
LEFT JOIN (
    -- a rollout has a profile per setting of steps and breakpoints: the one meant cuts where the repair's prefix ends
    SELECT c.run_id, c.parent_id, c.num_prefix_tokens,
           min_by({'breakpoint_step': f.breakpoint_step, 'num_steps': f.num_steps, 'surge_nats': f.surge_nats,
                   'flat': f.flat},
                  -- of two from the same settings, the one that was read again
                  (f.entropy_source IS DISTINCT FROM 'rescored')::VARCHAR || f.profile_id) AS place
    FROM (
        SELECT DISTINCT r.run_id, t.parent_id, t.num_prefix_tokens
        FROM run_rows r JOIN trajectories t ON t.trajectory_id = r.row_id WHERE r.phase = 'repairs'
    ) c
    JOIN profiles f ON f.trajectory_id = c.parent_id
        AND f.step_start_tokens[f.breakpoint_step + 1] = c.num_prefix_tokens
    GROUP BY ALL
) b ON b.run_id = o.run_id AND b.parent_id = t.parent_id AND b.num_prefix_tokens = t.num_prefix_tokens
WHERE o.phase = 'repairs';
COMMENT ON VIEW run_repairs IS 'Each repair of a run: the wrong rollout, where it broke, the arm of its hint, and what became of it.';
COMMENT ON COLUMN run_repairs.run_id IS 'The run.';
COMMENT ON COLUMN run_repairs.trajectory_id IS 'The repair.';
COMMENT ON COLUMN run_repairs.problem_id IS 'Its problem.';
COMMENT ON COLUMN run_repairs.parent_id IS 'The wrong rollout that it continues.';
COMMENT ON COLUMN run_repairs.hint_id IS 'The hint that was in its prompt; null in the arm answer.';
COMMENT ON COLUMN run_repairs.hint_arm IS 'What the run continues paths under, the setting hints.arm: a generated hint, or the answer.';
COMMENT ON COLUMN run_repairs.sample_index IS 'Which of the continuations of the path, from 0.';
COMMENT ON COLUMN run_repairs.num_prefix_tokens IS 'Tokens kept of the wrong rollout.';
COMMENT ON COLUMN run_repairs.num_tokens IS 'Tokens sampled after them.';
COMMENT ON COLUMN run_repairs.seconds IS 'Its share of the batch''s wall time.';
COMMENT ON COLUMN run_repairs.breakpoint_step IS 'Step at which the wrong rollout broke, from 0; the steps before it are kept. Null when no profile cuts there.';
COMMENT ON COLUMN run_repairs.num_steps IS 'Steps of the wrong rollout. If profiles of several settings cut at the same token, those of the one that was read again, else of the smallest profile_id.';
COMMENT ON COLUMN run_repairs.break_share IS 'breakpoint_step / num_steps: the share of the wrong rollout''s steps that is kept, in [0, 1).';
COMMENT ON COLUMN run_repairs.break_tenth IS 'The tenth of the wrong rollout in which the breakpoint lies, from 0 to 9.';
COMMENT ON COLUMN run_repairs.surge_nats IS 'The rise of mean entropy at the breakpoint, nats.';
COMMENT ON COLUMN run_repairs.flat IS 'True when no rise was positive and the position is a convention.';
COMMENT ON COLUMN run_repairs.outcome IS 'As in repair_outcomes: truncated, wrong, unverifiable, dropped by gate, PURE or cap, kept, or undecided.';
COMMENT ON COLUMN run_repairs.reason IS 'Which gate, PURE reason or reason of the cap dropped it; else null.';
COMMENT ON COLUMN run_repairs.verified IS 'It is correct and was not cut.';
COMMENT ON COLUMN run_repairs.passed_gates IS 'It is verified and no gate refused it.';
COMMENT ON COLUMN run_repairs.kept IS 'It became a training example of the arm heal.';

CREATE OR REPLACE VIEW repair_yield AS
SELECT b.run_id, b.problem_id, b.num_correct, b.num_graded,
       count(DISTINCT t.parent_id) AS num_paths,
       count(t.trajectory_id) AS num_attempted,
       count(*) FILTER (t.label = 'correct') AS num_verified,
       count(*) FILTER (g.decision = 'kept') AS num_passed_gates,
       count(k.trajectory_id) AS num_kept,
       count(*) FILTER (t.label = 'correct') / nullif(count(t.trajectory_id), 0) AS verified_share,
       coalesce(any_value(q.value), 0)::BIGINT AS num_skipped,
       coalesce((any_value(q.value) * avg(t.num_tokens))::BIGINT, 0) AS estimated_tokens_saved
FROM bands b
LEFT JOIN run_trajectories t ON t.run_id = b.run_id AND t.problem_id = b.problem_id AND t.phase = 'repairs'
LEFT JOIN decisions g ON g.run_id = b.run_id AND g.subject_id = t.trajectory_id AND g.phase = 'gate'
LEFT JOIN kept_examples k ON k.run_id = b.run_id AND k.trajectory_id = t.trajectory_id
LEFT JOIN decisions q ON q.run_id = b.run_id AND q.subject_id = b.problem_id AND q.phase = 'quota'
WHERE b.band = 'extremely_hard' AND b.split = 'train'
GROUP BY ALL;
COMMENT ON VIEW repair_yield IS 'Per run and extremely hard training problem: paths, repairs, and what became of them.';
COMMENT ON COLUMN repair_yield.run_id IS 'The run.';
COMMENT ON COLUMN repair_yield.problem_id IS 'The problem.';
COMMENT ON COLUMN repair_yield.num_correct IS 'Correct rollouts of the teacher.';
COMMENT ON COLUMN repair_yield.num_graded IS 'Graded rollouts of the teacher.';
COMMENT ON COLUMN repair_yield.num_paths IS 'Wrong rollouts that were continued.';
COMMENT ON COLUMN repair_yield.num_attempted IS 'Repairs sampled.';
COMMENT ON COLUMN repair_yield.num_verified IS 'Repairs that are correct and were not cut.';
COMMENT ON COLUMN repair_yield.num_passed_gates IS 'Verified repairs that no gate refused.';
COMMENT ON COLUMN repair_yield.num_kept IS 'Repairs that became training examples.';
COMMENT ON COLUMN repair_yield.verified_share IS 'num_verified / num_attempted, in [0, 1]; null without repairs.';
COMMENT ON COLUMN repair_yield.num_skipped IS 'Continuations that the quota (repair.quota) left out; num_attempted + num_skipped is repair.num_generations for each hinted path. 0 without a quota.';
COMMENT ON COLUMN repair_yield.estimated_tokens_saved IS 'An estimate: num_skipped times the mean sampled tokens of the problem''s own repairs.';

CREATE OR REPLACE VIEW repair_yield_by_arm AS
SELECT run_id, hint_arm, count(DISTINCT problem_id) AS num_problems, count(DISTINCT parent_id) AS num_paths,
       count(*) AS num_attempted, count(*) FILTER (verified) AS num_verified,
       count(*) FILTER (passed_gates) AS num_passed_gates, count(*) FILTER (kept) AS num_kept,
       count(*) FILTER (verified) / count(*) AS verified_share, count(*) FILTER (kept) / count(*) AS kept_share
FROM run_repairs GROUP BY ALL;
COMMENT ON VIEW repair_yield_by_arm IS 'Per run and arm of hints: repairs, and what became of them.';
COMMENT ON COLUMN repair_yield_by_arm.run_id IS 'The run.';
COMMENT ON COLUMN repair_yield_by_arm.hint_arm IS 'What the run continues paths under, the setting hints.arm: a generated hint, or the answer.';
COMMENT ON COLUMN repair_yield_by_arm.num_problems IS 'Problems with repairs.';
COMMENT ON COLUMN repair_yield_by_arm.num_paths IS 'Wrong rollouts that were continued.';
COMMENT ON COLUMN repair_yield_by_arm.num_attempted IS 'Repairs sampled.';
COMMENT ON COLUMN repair_yield_by_arm.num_verified IS 'Repairs that are correct and were not cut.';
COMMENT ON COLUMN repair_yield_by_arm.num_passed_gates IS 'Verified repairs that no gate refused.';
COMMENT ON COLUMN repair_yield_by_arm.num_kept IS 'Repairs that became training examples.';
COMMENT ON COLUMN repair_yield_by_arm.verified_share IS 'num_verified / num_attempted, in [0, 1].';
COMMENT ON COLUMN repair_yield_by_arm.kept_share IS 'num_kept / num_attempted, in [0, 1].';

CREATE OR REPLACE VIEW repair_yield_by_position AS
SELECT run_id, break_tenth, count(DISTINCT problem_id) AS num_problems, count(DISTINCT parent_id) AS num_paths,
       count(*) AS num_attempted, count(*) FILTER (verified) AS num_verified,
       count(*) FILTER (passed_gates) AS num_passed_gates, count(*) FILTER (kept) AS num_kept,
       count(*) FILTER (verified) / count(*) AS verified_share, count(*) FILTER (kept) / count(*) AS kept_share,
       avg(surge_nats) AS mean_surge_nats, avg(flat::INT) AS flat_share
FROM run_repairs GROUP BY ALL;
COMMENT ON VIEW repair_yield_by_position IS 'Per run and place of the breakpoint in the wrong rollout: repairs, and what became of them.';
COMMENT ON COLUMN repair_yield_by_position.run_id IS 'The run.';
COMMENT ON COLUMN repair_yield_by_position.break_tenth IS 'The tenth of the wrong rollout''s steps in which it was cut, from 0 to 9; null when no profile cuts there.';
COMMENT ON COLUMN repair_yield_by_position.num_problems IS 'Problems with such repairs; one may stand in several tenths.';
COMMENT ON COLUMN repair_yield_by_position.num_paths IS 'Wrong rollouts that were continued from there.';
COMMENT ON COLUMN repair_yield_by_position.num_attempted IS 'Repairs sampled.';
COMMENT ON COLUMN repair_yield_by_position.num_verified IS 'Repairs that are correct and were not cut.';
COMMENT ON COLUMN repair_yield_by_position.num_passed_gates IS 'Verified repairs that no gate refused.';
COMMENT ON COLUMN repair_yield_by_position.num_kept IS 'Repairs that became training examples.';
COMMENT ON COLUMN repair_yield_by_position.verified_share IS 'num_verified / num_attempted, in [0, 1].';
COMMENT ON COLUMN repair_yield_by_position.kept_share IS 'num_kept / num_attempted, in [0, 1].';
COMMENT ON COLUMN repair_yield_by_position.mean_surge_nats IS 'Mean rise of entropy at the breakpoint over the repairs, nats.';
COMMENT ON COLUMN repair_yield_by_position.flat_share IS 'Share of the repairs whose cut is a convention, since no rise was positive; in [0, 1].';

CREATE OR REPLACE VIEW control_outcomes AS
SELECT r.run_id, r.arm, r.row_id AS trajectory_id, t.problem_id, t.parent_id, t.hint_id, t.num_prefix_tokens, t.num_tokens,
       CASE WHEN r.cut THEN 'truncated' WHEN v.label IS DISTINCT FROM 'correct' THEN v.label
            WHEN g.decision = 'dropped' THEN 'dropped by gate'
            WHEN p.decision = 'dropped' THEN 'dropped by PURE'
            WHEN c.decision = 'dropped' THEN 'dropped by cap'
            WHEN c.decision = 'kept' THEN 'kept' ELSE 'undecided' END AS outcome,
       CASE WHEN v.label = 'correct' AND NOT r.cut THEN coalesce(g.reason, p.reason, c.reason) END AS reason,
       coalesce(v.label = 'correct' AND NOT r.cut, false) AS verified,
       coalesce(c.decision = 'kept', false) AS kept
FROM run_rows r
JOIN trajectories t ON t.trajectory_id = r.row_id
LEFT JOIN verdicts v USING (verdict_id)
LEFT JOIN decisions g ON g.run_id = r.run_id AND g.subject_id = r.row_id AND g.phase = 'control_gate' AND g.arm = r.arm
LEFT JOIN decisions p ON p.run_id = r.run_id AND p.subject_id = r.row_id AND p.phase = 'control_pure' AND p.arm = r.arm
LEFT JOIN decisions c ON c.run_id = r.run_id AND c.subject_id = r.row_id AND c.phase = 'control_cap' AND c.arm = r.arm
WHERE r.phase = 'control_repairs';
COMMENT ON VIEW control_outcomes IS 'What became of each repair of the controls that continue wrong paths in their own way: B4, B5, B8, and the answer told.';
COMMENT ON COLUMN control_outcomes.run_id IS 'The run.';
COMMENT ON COLUMN control_outcomes.arm IS 'unhinted, random_breakpoint, mismatched_hint or answer_told.';
COMMENT ON COLUMN control_outcomes.trajectory_id IS 'The repair.';
COMMENT ON COLUMN control_outcomes.problem_id IS 'Its problem.';
COMMENT ON COLUMN control_outcomes.parent_id IS 'The wrong rollout that it continues.';
COMMENT ON COLUMN control_outcomes.hint_id IS 'The hint that was in its prompt; null without one.';
COMMENT ON COLUMN control_outcomes.num_prefix_tokens IS 'Tokens kept of the wrong rollout.';
COMMENT ON COLUMN control_outcomes.num_tokens IS 'Tokens sampled after them.';
COMMENT ON COLUMN control_outcomes.outcome IS 'As in repair_outcomes.';
COMMENT ON COLUMN control_outcomes.reason IS 'Which gate, PURE reason or reason of the cap dropped it; else null.';
COMMENT ON COLUMN control_outcomes.verified IS 'It is correct and was not cut.';
COMMENT ON COLUMN control_outcomes.kept IS 'It became a training example of the control.';

CREATE OR REPLACE VIEW path_yields AS
SELECT y.run_id, y.arm, y.parent_id, y.problem_id, y.num_continued, y.num_verified, y.num_kept,
       y.num_verified / y.num_continued AS verified_share, d.reason IS DISTINCT FROM 'small_window' AS is_compared
FROM (
    SELECT run_id, 'heal' AS arm, parent_id, problem_id, count(*) AS num_continued,
           count(*) FILTER (verified) AS num_verified, count(*) FILTER (kept) AS num_kept
    FROM run_repairs GROUP BY ALL
    UNION ALL
    SELECT run_id, arm, parent_id, problem_id, count(*), count(*) FILTER (verified), count(*) FILTER (kept)
    FROM control_outcomes GROUP BY ALL
) y
LEFT JOIN decisions d ON d.run_id = y.run_id AND d.phase = 'control_path' AND d.arm = y.arm AND d.subject_id = y.parent_id;
COMMENT ON VIEW path_yields IS 'Per run, arm and wrong path: how many continuations were verified, HEAL''s beside those of the controls B4, B5 and B8, and of the answer told.';
COMMENT ON COLUMN path_yields.run_id IS 'The run.';
COMMENT ON COLUMN path_yields.arm IS 'heal, unhinted, random_breakpoint, mismatched_hint or answer_told.';
COMMENT ON COLUMN path_yields.parent_id IS 'The wrong rollout that was continued.';
COMMENT ON COLUMN path_yields.problem_id IS 'Its problem.';
COMMENT ON COLUMN path_yields.num_continued IS 'Continuations.';
COMMENT ON COLUMN path_yields.num_verified IS 'Those that are correct and were not cut.';
COMMENT ON COLUMN path_yields.num_kept IS 'Those that became training examples of the arm.';
COMMENT ON COLUMN path_yields.verified_share IS 'num_verified / num_continued, in [0, 1].';
COMMENT ON COLUMN path_yields.is_compared IS 'False for a random break within a window of fewer than three surges, which compares nothing.';

CREATE OR REPLACE VIEW ceilings AS
SELECT y.run_id, y.problem_id, count(*) AS num_samples,
       count(*) FILTER (r.is_correct) AS num_correct, NOT coalesce(bool_or(r.is_correct), false) AS is_unsolved,
       any_value(y.num_verified) AS num_verified_repairs, any_value(y.num_verified) > 0 AS is_repaired
FROM repair_yield y
JOIN (
    -- a plain sample may be one of B2's and of the ceiling's
    SELECT r.run_id, t.problem_id, r.row_id, bool_or(v.label = 'correct' AND NOT r.cut) AS is_correct
    FROM run_rows r
    JOIN trajectories t ON t.trajectory_id = r.row_id
    LEFT JOIN verdicts v USING (verdict_id)
    WHERE r.phase IN ('rollouts', 'equal_tokens', 'ceiling') GROUP BY ALL
) r ON r.run_id = y.run_id AND r.problem_id = y.problem_id
GROUP BY ALL;
COMMENT ON VIEW ceilings IS 'Per run and extremely hard training problem: what plain samples came to, B2''s and controls.ceiling_samples included, beside its repairs.';
COMMENT ON COLUMN ceilings.run_id IS 'The run.';
COMMENT ON COLUMN ceilings.problem_id IS 'The problem.';
COMMENT ON COLUMN ceilings.num_samples IS 'Plain samples of the teacher, each counted once.';
COMMENT ON COLUMN ceilings.num_correct IS 'Those that are correct and were not cut.';
COMMENT ON COLUMN ceilings.is_unsolved IS 'None is: as far as plain sampling went, a real ceiling.';
COMMENT ON COLUMN ceilings.num_verified_repairs IS 'Verified repairs of the problem.';
COMMENT ON COLUMN ceilings.is_repaired IS 'There is one.';

CREATE OR REPLACE VIEW gate_findings AS
SELECT run_id, phase, arm, trajectory_id, problem_id, unnest(gates) AS gate, unnest(refused) AS refused,
       unnest(gate_values) AS value, unnest(details) AS detail
FROM gate_results;
COMMENT ON VIEW gate_findings IS 'What each gate found in each text, whether or not it refuses in the run.';
COMMENT ON COLUMN gate_findings.run_id IS 'The run.';
COMMENT ON COLUMN gate_findings.phase IS 'Where the text is from: hints, repairs, guided, rollouts (for comparison), control_hints or control_repairs.';
COMMENT ON COLUMN gate_findings.arm IS 'For control_hints and control_repairs: which control; else null.';
COMMENT ON COLUMN gate_findings.trajectory_id IS 'The text.';
COMMENT ON COLUMN gate_findings.problem_id IS 'Its problem.';
COMMENT ON COLUMN gate_findings.gate IS 'The gate: empty or G1 for a hint, G2 to G10 for a verified text.';
COMMENT ON COLUMN gate_findings.refused IS 'It refuses the text. Null where it says nothing: G6 always, G5 with too few natural texts, G8 without a seam, G3 and G4 for programs.';
COMMENT ON COLUMN gate_findings.value IS 'G3: share of the repaired tokens before the first assertion of the answer; G4: share after it; G5: length in natural medians; G6: hesitations per 1,000 tokens; G7: share of foreign letters; G9: how often the most frequent n-gram occurs. Else null.';
COMMENT ON COLUMN gate_findings.detail IS 'What it saw where it refuses; else null.';

CREATE OR REPLACE VIEW gate_rates AS
SELECT f.run_id, f.phase, f.arm, f.gate, count(*) AS num_texts, count(f.refused) AS num_judged,
       count(*) FILTER (f.refused) AS num_refused,
       count(*) FILTER (f.refused) / nullif(count(f.refused), 0) AS refused_share,
       count(*) FILTER (d.reason = f.gate) AS num_first, avg(f.value) AS mean_value
FROM gate_findings f
LEFT JOIN decisions d ON d.run_id = f.run_id AND d.subject_id = f.trajectory_id AND d.arm IS NOT DISTINCT FROM f.arm
    AND d.phase = CASE f.phase WHEN 'hints' THEN 'hint_gate' WHEN 'control_hints' THEN 'control_hint_gate'
                               WHEN 'rollouts' THEN 'gate_base' WHEN 'control_repairs' THEN 'control_gate' ELSE 'gate' END
GROUP BY ALL;
COMMENT ON VIEW gate_rates IS 'How much each gate refuses, on its own, per kind of text. On rollouts, which saw neither hint nor answer, that is its false-positive rate.';
COMMENT ON COLUMN gate_rates.run_id IS 'The run.';
COMMENT ON COLUMN gate_rates.phase IS 'The texts: hints, repairs, guided, rollouts (verified ones of training problems, for comparison), control_hints or control_repairs.';
COMMENT ON COLUMN gate_rates.arm IS 'For control_hints and control_repairs: which control; else null.';
COMMENT ON COLUMN gate_rates.gate IS 'The gate.';
COMMENT ON COLUMN gate_rates.num_texts IS 'Texts that were examined.';
COMMENT ON COLUMN gate_rates.num_judged IS 'Those of which the gate says anything; 0 for G6.';
COMMENT ON COLUMN gate_rates.num_refused IS 'Those that it refuses, whether or not another gate does too, and whether or not it is switched on.';
COMMENT ON COLUMN gate_rates.refused_share IS 'num_refused / num_judged, in [0, 1]; null where it judged none.';
COMMENT ON COLUMN gate_rates.num_first IS 'Those of which it is the first to refuse among the gates that are switched on, and so the stored reason. Rollouts are not dropped by it.';
COMMENT ON COLUMN gate_rates.mean_value IS 'Mean of what it measured (gate_findings.value); of G6 the hesitations per 1,000 tokens. Null where it measures nothing.';

CREATE OR REPLACE VIEW audits AS
SELECT l.run_id, l.trajectory_id, l.problem_id, l.auditor, l.label, l.note, l.hint_shown, l.labelled_at,
       d.decision AS pure_decision, d.value AS pure_value
FROM audit_labels l
JOIN (SELECT max(rowid) AS last_row FROM audit_labels GROUP BY run_id, trajectory_id, auditor) n ON l.rowid = n.last_row
LEFT JOIN decisions d ON d.run_id = l.run_id AND d.subject_id = l.trajectory_id AND d.phase = 'pure';
COMMENT ON VIEW audits IS 'The label that counts of each repair and auditor, beside what PURE decided, which the auditor did not see.';
COMMENT ON COLUMN audits.run_id IS 'The run.';
COMMENT ON COLUMN audits.trajectory_id IS 'The repair.';
COMMENT ON COLUMN audits.problem_id IS 'Its problem.';
COMMENT ON COLUMN audits.auditor IS 'Who read it.';
COMMENT ON COLUMN audits.label IS 'genuine, shortcut or unsure.';
COMMENT ON COLUMN audits.note IS 'What the auditor wrote to it; null without.';
COMMENT ON COLUMN audits.hint_shown IS 'Whether the hint had been shown before the label was given.';
COMMENT ON COLUMN audits.labelled_at IS 'When.';
COMMENT ON COLUMN audits.pure_decision IS 'kept, or dropped as a shortcut.';
COMMENT ON COLUMN audits.pure_value IS 'The PURE score that decided.';

CREATE OR REPLACE VIEW breakpoint_sources AS
SELECT d.run_id, t.entropy_source, d.decision AS outcome, d.reason, count(*) AS num_rollouts,
       count(p.subject_id) AS num_paths
FROM decisions d
JOIN trajectories t ON t.trajectory_id = d.subject_id
LEFT JOIN decisions p ON p.run_id = d.run_id AND p.phase = 'path' AND p.subject_id = d.subject_id
WHERE d.phase = 'breakpoint' GROUP BY ALL;
COMMENT ON VIEW breakpoint_sources IS 'What the breakpoints of rollouts rest on whose entropies are not exact; without rows where all are.';
COMMENT ON COLUMN breakpoint_sources.run_id IS 'The run.';
COMMENT ON COLUMN breakpoint_sources.entropy_source IS 'What their entropies are known from, as sampled: top_20.';
COMMENT ON COLUMN breakpoint_sources.outcome IS 'certain (nothing within the intervals moves it), rescored (exact, from reading the text again) or uncertain (that of the middles stands).';
COMMENT ON COLUMN breakpoint_sources.reason IS 'Of rescored ones: same_step, or moved from where the middles had it; else null.';
COMMENT ON COLUMN breakpoint_sources.num_rollouts IS 'How many rollouts.';
COMMENT ON COLUMN breakpoint_sources.num_paths IS 'Those of them that were chosen for repair.';

CREATE OR REPLACE VIEW funnel AS
WITH outcomes AS (
    SELECT run_id, 1 AS position, 'rows' AS phase, 'quarantined' AS outcome, split_part(reason, ':', 1) AS reason FROM quarantine
    WHERE problem_id IS NULL
    UNION ALL
    SELECT run_id, 1, 'rows', split, NULL FROM run_problems
    UNION ALL
    SELECT r.run_id, 2, 'rollouts', CASE WHEN r.cut THEN 'truncated' ELSE v.label END, m.reason
    FROM run_rows r LEFT JOIN verdicts v USING (verdict_id)
    LEFT JOIN (
        SELECT trajectory_id, 'imported' AS reason FROM trajectories
        WHERE recipe_id IN (SELECT recipe_id FROM recipes WHERE kind = 'imported')
    ) m ON m.trajectory_id = r.row_id
    WHERE r.phase = 'rollouts'
    UNION ALL
    SELECT p.run_id, 3, 'problems', coalesce(d.decision, 'quarantined'), p.split
    FROM run_problems p
    LEFT JOIN decisions d ON d.run_id = p.run_id AND d.subject_id = p.problem_id AND d.phase = 'band'
    LEFT JOIN quarantine q ON q.run_id = p.run_id AND q.problem_id = p.problem_id
    WHERE d.decision IS NOT NULL OR q.problem_id IS NOT NULL
    UNION ALL
    SELECT run_id, 4, 'paths', CASE WHEN decision = 'kept' THEN 'hinted' ELSE 'dropped' END, reason
    FROM decisions WHERE phase = 'path'
    UNION ALL
    SELECT run_id, CASE phase WHEN 'repairs' THEN 5 ELSE 6 END, phase, outcome, reason FROM repair_outcomes
)
SELECT *, (sum(num) OVER (PARTITION BY run_id, phase))::BIGINT AS num_in_phase
FROM (
    SELECT run_id, position, phase, outcome, reason, count(*) AS num FROM outcomes GROUP BY ALL
    UNION ALL
    SELECT run_id, 1, 'rows', outcome, source, sum(num)::BIGINT
    FROM (UNPIVOT (SELECT run_id, source, num_filtered_out AS filtered_out, num_not_sampled AS not_sampled FROM run_sources)
          ON filtered_out, not_sampled INTO NAME outcome VALUE num)
    WHERE num > 0 GROUP BY ALL
    UNION ALL
    SELECT run_id, 5, 'repairs', 'skipped', 'quota', sum(value)::BIGINT
    FROM decisions WHERE phase = 'quota' AND value > 0 GROUP BY ALL
);
COMMENT ON VIEW funnel IS 'What became of everything, by phase; the outcomes of a phase add up to num_in_phase.';
COMMENT ON COLUMN funnel.run_id IS 'The run.';
COMMENT ON COLUMN funnel.position IS 'Order of the phases, from 1.';
COMMENT ON COLUMN funnel.phase IS 'What is counted: rows of the sources of problems, rollouts, problems, paths (wrong rollouts chosen for repair), repairs, guided samples.';
COMMENT ON COLUMN funnel.outcome IS 'What became of them. A problem that failed before it had a band is quarantined; a repair that the quota left out, so that it does not exist, is skipped.';
COMMENT ON COLUMN funnel.reason IS 'Why they were dropped or put in quarantine, without what was seen; for problems the split, for rows left out the source, imported for rollouts that were not sampled; else null.';
COMMENT ON COLUMN funnel.num IS 'How many.';
COMMENT ON COLUMN funnel.num_in_phase IS 'How many there are in the phase.';

CREATE OR REPLACE VIEW pure_scores AS
SELECT r.run_id, s.trajectory_id, t.problem_id, l.reason AS score_name,
       CASE l.reason WHEN 'ratio' THEN s.ratio WHEN 'jump' THEN s.jump WHEN 'reliance' THEN s.reliance END AS score,
       d.decision, d.reason,
       CASE WHEN s.reject_reason IS NOT NULL THEN 'rejected'
            WHEN n.num_candidates >= (run.config ->> '$.pure.min_candidates')::INTEGER THEN 'problem'
            ELSE 'pooled' END AS rule,
       n.num_candidates, l.value AS pooled_threshold,
       (run.config ->> '$.pure.drop_fraction')::DOUBLE AS drop_fraction,
       (run.config ->> '$.pure.min_candidates')::INTEGER AS min_candidates,
       s.ratio, s.jump, s.reliance, s.answer_uncertainties[1] AS prompt_uncertainty_nats,
       (run.config ->> '$.pure.min_prompt_uncertainty')::DOUBLE AS min_prompt_uncertainty_nats,
       s.span_start, s.span_end, s.span_end - s.span_start AS num_span_steps, len(s.step_perplexities) AS num_steps,
       s.num_scored_tokens, s.score_id
FROM run_rows r
JOIN runs run USING (run_id)
JOIN scores s ON s.score_id = r.row_id
JOIN trajectories t USING (trajectory_id)
LEFT JOIN decisions d ON d.run_id = r.run_id AND d.subject_id = s.trajectory_id AND d.phase = 'pure'
LEFT JOIN decisions l ON l.run_id = r.run_id AND l.phase = 'pure_threshold'
LEFT JOIN (
    SELECT r.run_id, t.problem_id, count(*) FILTER (s.reject_reason IS NULL) AS num_candidates
    FROM run_rows r JOIN scores s ON s.score_id = r.row_id JOIN trajectories t USING (trajectory_id)
    WHERE r.kind = 'score' GROUP BY ALL
) n ON n.run_id = r.run_id AND n.problem_id = t.problem_id
WHERE r.kind = 'score';
COMMENT ON VIEW pure_scores IS 'Each repair that a run scored with PURE: the score it used, the rule that applied, and why it was dropped.';
COMMENT ON COLUMN pure_scores.run_id IS 'The run.';
COMMENT ON COLUMN pure_scores.trajectory_id IS 'The repair.';
COMMENT ON COLUMN pure_scores.problem_id IS 'Its problem.';
COMMENT ON COLUMN pure_scores.score_name IS 'Which score decided: ratio, jump or reliance, by the setting pure.score or what its auto chose; null before the run decided.';
COMMENT ON COLUMN pure_scores.score IS 'Its value, higher = more shortcut-like; null when rejected.';
COMMENT ON COLUMN pure_scores.decision IS 'kept or dropped; null before the run decided.';
COMMENT ON COLUMN pure_scores.reason IS 'Why it was dropped: shortcut, answer_not_found, empty_span or answer_in_problem; null when kept.';
COMMENT ON COLUMN pure_scores.rule IS 'Which rule applied: problem (the worst drop_fraction of its problem''s candidates go), pooled (what lies above pooled_threshold goes), or rejected (no score).';
COMMENT ON COLUMN pure_scores.num_candidates IS 'Scored repairs of its problem that were not rejected.';
COMMENT ON COLUMN pure_scores.pooled_threshold IS 'The percentile of all scores of the run, frozen with it; null without candidates.';
COMMENT ON COLUMN pure_scores.drop_fraction IS 'The setting pure.drop_fraction, lambda, in [0, 1).';
COMMENT ON COLUMN pure_scores.min_candidates IS 'The setting pure.min_candidates: from so many on, a problem''s own candidates are compared.';
COMMENT ON COLUMN pure_scores.ratio IS 'Mean over the span of P_k / (U_k + epsilon) (definition D8); null when rejected.';
COMMENT ON COLUMN pure_scores.jump IS 'Largest fall of answer uncertainty weighted by surprisal (definition D8); null when rejected.';
COMMENT ON COLUMN pure_scores.reliance IS 'Mean gain in log-probability from the hint, nats per token (definition D8); null when rejected.';
COMMENT ON COLUMN pure_scores.prompt_uncertainty_nats IS 'U_0: surprisal of the answer from the problem alone, nats per token.';
COMMENT ON COLUMN pure_scores.min_prompt_uncertainty_nats IS 'The setting pure.min_prompt_uncertainty: below it, U_0 rejects as answer_in_problem.';
COMMENT ON COLUMN pure_scores.span_start IS 'First step of the span (definition D7), from 0.';
COMMENT ON COLUMN pure_scores.span_end IS 'One past its last step.';
COMMENT ON COLUMN pure_scores.num_span_steps IS 'Steps of the span.';
COMMENT ON COLUMN pure_scores.num_steps IS 'Steps of the whole response.';
COMMENT ON COLUMN pure_scores.num_scored_tokens IS 'Tokens the scorer read for it.';
COMMENT ON COLUMN pure_scores.score_id IS 'The row of scores that the run used; a repair has one per scorer and setting.';

CREATE OR REPLACE VIEW truncated_shares AS
SELECT r.run_id, r.phase, r.arm, d.decision AS band, count(*) AS num_samples,
       count(*) FILTER (r.cut) AS num_truncated, count(*) FILTER (r.cut) / count(*) AS truncated_share
FROM run_rows r
JOIN trajectories t ON t.trajectory_id = r.row_id
LEFT JOIN decisions d ON d.run_id = r.run_id AND d.subject_id = t.problem_id AND d.phase = 'band'
GROUP BY ALL;
COMMENT ON VIEW truncated_shares IS 'How much was cut at the limit or given up as hopeless, per run, phase, arm and band.';
COMMENT ON COLUMN truncated_shares.run_id IS 'The run.';
COMMENT ON COLUMN truncated_shares.phase IS 'rollouts, hints, repairs, guided, equal_tokens, ceiling, control_hints, control_repairs or evaluation.';
COMMENT ON COLUMN truncated_shares.arm IS 'For evaluation and promotion: whose student answered; in phases of controls: which control; else an empty string.';
COMMENT ON COLUMN truncated_shares.band IS 'Band of the problem; null before the run assigned bands.';
COMMENT ON COLUMN truncated_shares.num_samples IS 'Sampled texts that the run uses.';
COMMENT ON COLUMN truncated_shares.num_truncated IS 'Those that count as truncated.';
COMMENT ON COLUMN truncated_shares.truncated_share IS 'num_truncated / num_samples, in [0, 1].';

CREATE OR REPLACE VIEW early_stops AS
SELECT r.run_id, r.phase, r.arm, t.kind, count(*) AS num_samples,
       count(*) FILTER (t.finish_reason = 'hopeless') AS num_stopped,
       count(*) FILTER (t.finish_reason = 'hopeless') / count(*) AS stopped_share,
       (sum(t.num_tokens) FILTER (t.finish_reason = 'hopeless'))::BIGINT AS num_tokens,
       (sum(t.limit_tokens) FILTER (t.finish_reason = 'hopeless'))::BIGINT AS limit_tokens,
       (sum(t.limit_tokens - t.num_tokens) FILTER (t.finish_reason = 'hopeless'))::BIGINT AS max_saved_tokens
FROM run_rows r
JOIN trajectories t ON t.trajectory_id = r.row_id
GROUP BY ALL HAVING num_stopped > 0;
COMMENT ON VIEW early_stops IS 'Texts that were given up as hopeless (the setting early_stop), per run, phase, arm and kind; only where there are any.';
COMMENT ON COLUMN early_stops.run_id IS 'The run.';
COMMENT ON COLUMN early_stops.phase IS 'rollouts, hints, repairs, guided, equal_tokens, ceiling, control_hints, control_repairs, evaluation or promotion.';
COMMENT ON COLUMN early_stops.arm IS 'For evaluation and promotion: whose student answered; in phases of controls: which control; else an empty string.';
COMMENT ON COLUMN early_stops.kind IS 'rollout, hint, guided or repair.';
COMMENT ON COLUMN early_stops.num_samples IS 'Sampled texts that the run uses there.';
COMMENT ON COLUMN early_stops.num_stopped IS 'Those that were given up; they count as truncated.';
COMMENT ON COLUMN early_stops.stopped_share IS 'num_stopped / num_samples, in [0, 1].';
COMMENT ON COLUMN early_stops.num_tokens IS 'Tokens that the given up ones had by then.';
COMMENT ON COLUMN early_stops.limit_tokens IS 'Tokens that they could have had at most.';
COMMENT ON COLUMN early_stops.max_saved_tokens IS 'limit_tokens - num_tokens: an upper bound of what was saved, since some of them would have ended before the limit.';

CREATE OR REPLACE VIEW verifier_disagreements AS
SELECT t.trajectory_id, t.problem_id, t.kind,
       CASE WHEN e.verifier <> l.verifier THEN 'verifier' WHEN e.verifier_version <> l.verifier_version THEN 'version'
            ELSE 'time limit' END AS differs_in,
       e.verdict_id AS earlier_verdict_id, e.verifier AS earlier_verifier, e.verifier_version AS earlier_version,
       e.limit_seconds AS earlier_limit_seconds, e.label AS earlier_label, e.extracted AS earlier_extracted,
       e.reason AS earlier_reason,
       l.verdict_id AS later_verdict_id, l.verifier AS later_verifier, l.verifier_version AS later_version,
       l.limit_seconds AS later_limit_seconds, l.label AS later_label, l.extracted AS later_extracted,
       l.reason AS later_reason
FROM (SELECT trajectory_id FROM verdicts GROUP BY trajectory_id HAVING min(label) <> max(label)) n
JOIN (SELECT rowid AS row, * FROM verdicts) e ON e.trajectory_id = n.trajectory_id
JOIN (SELECT rowid AS row, * FROM verdicts) l
    ON l.trajectory_id = n.trajectory_id AND l.row > e.row AND l.label <> e.label
JOIN trajectories t ON t.trajectory_id = n.trajectory_id;
COMMENT ON VIEW verifier_disagreements IS 'Trajectories of which two verdicts differ in the label, a row per pair; which verdict a run rests on is in run_rows.';
COMMENT ON COLUMN verifier_disagreements.trajectory_id IS 'The trajectory.';
COMMENT ON COLUMN verifier_disagreements.problem_id IS 'Its problem.';
COMMENT ON COLUMN verifier_disagreements.kind IS 'rollout, guided or repair.';
COMMENT ON COLUMN verifier_disagreements.differs_in IS 'What differs first between the two: verifier, version or time limit.';
COMMENT ON COLUMN verifier_disagreements.earlier_verdict_id IS 'The verdict that was stored first.';
COMMENT ON COLUMN verifier_disagreements.earlier_verifier IS 'Its verifier.';
COMMENT ON COLUMN verifier_disagreements.earlier_version IS 'Its verifier''s version.';
COMMENT ON COLUMN verifier_disagreements.earlier_limit_seconds IS 'Its time limit; null in rows from before schema 0002.';
COMMENT ON COLUMN verifier_disagreements.earlier_label IS 'Its label: correct, wrong or unverifiable.';
COMMENT ON COLUMN verifier_disagreements.earlier_extracted IS 'The answer it read from the text; null when there was none.';
COMMENT ON COLUMN verifier_disagreements.earlier_reason IS 'Why not correct; null when correct.';
COMMENT ON COLUMN verifier_disagreements.later_verdict_id IS 'The verdict that was stored after it.';
COMMENT ON COLUMN verifier_disagreements.later_verifier IS 'Its verifier.';
COMMENT ON COLUMN verifier_disagreements.later_version IS 'Its verifier''s version.';
COMMENT ON COLUMN verifier_disagreements.later_limit_seconds IS 'Its time limit; null in rows from before schema 0002.';
COMMENT ON COLUMN verifier_disagreements.later_label IS 'Its label: correct, wrong or unverifiable.';
COMMENT ON COLUMN verifier_disagreements.later_extracted IS 'The answer it read from the text; null when there was none.';
COMMENT ON COLUMN verifier_disagreements.later_reason IS 'Why not correct; null when correct.';

-- ---- training and evaluation

CREATE OR REPLACE VIEW stage_mix AS
SELECT s.run_id, s.arm, s.stage, t.kind, d.decision AS band, count(*) AS num_examples,
       sum(t.num_tokens)::BIGINT AS num_tokens
FROM stage_examples s
JOIN trajectories t USING (trajectory_id)
LEFT JOIN decisions d ON d.run_id = s.run_id AND d.subject_id = s.problem_id AND d.phase = 'band'
GROUP BY ALL;
COMMENT ON VIEW stage_mix IS 'What each stage trains on, by kind and band.';
COMMENT ON COLUMN stage_mix.run_id IS 'The run.';
COMMENT ON COLUMN stage_mix.arm IS 'heal, or a control: rejection_sampling, equal_tokens, without_repairs, unhinted, random_breakpoint, random_drop, shuffled, mismatched_hint, answer_told.';
COMMENT ON COLUMN stage_mix.stage IS 'I, II or III.';
COMMENT ON COLUMN stage_mix.kind IS 'rollout, guided or repair.';
COMMENT ON COLUMN stage_mix.band IS 'Band of the problem.';
COMMENT ON COLUMN stage_mix.num_examples IS 'Examples.';
COMMENT ON COLUMN stage_mix.num_tokens IS 'Tokens that were sampled for them; the kept prefix of a repair is not in it.';

CREATE OR REPLACE VIEW training_steps AS
SELECT run_id, arm, stage, checkpoint_id, s.step, s.loss, s.learning_rate, s.grad_norm, s.num_tokens, s.seconds,
       s.num_tokens / nullif(s.seconds, 0) AS tokens_per_second
FROM (
    SELECT r.run_id, r.arm, c.stage, c.checkpoint_id,
           unnest(from_json(c.result -> '$.steps', '[{"step": "INTEGER", "loss": "DOUBLE", "learning_rate": "DOUBLE",
               "grad_norm": "DOUBLE", "num_tokens": "BIGINT", "seconds": "DOUBLE"}]')) AS s
    FROM run_rows r JOIN checkpoints c ON c.checkpoint_id = r.row_id WHERE r.phase = 'training'
);
COMMENT ON VIEW training_steps IS 'Each optimizer step of each stage, as the trainer took it.';
COMMENT ON COLUMN training_steps.run_id IS 'The run.';
COMMENT ON COLUMN training_steps.arm IS 'heal, or a control: rejection_sampling, equal_tokens, without_repairs, unhinted, random_breakpoint, random_drop, shuffled, mismatched_hint, answer_told.';
COMMENT ON COLUMN training_steps.stage IS 'I, II or III.';
COMMENT ON COLUMN training_steps.checkpoint_id IS 'The stage that was trained, perhaps for another run or arm that trains alike.';
COMMENT ON COLUMN training_steps.step IS 'Which step of the stage, from 1.';
COMMENT ON COLUMN training_steps.loss IS 'Mean loss of the step''s tokens, nats per token that carries loss, before the step.';
COMMENT ON COLUMN training_steps.learning_rate IS 'With which the step was taken.';
COMMENT ON COLUMN training_steps.grad_norm IS 'Norm of the gradient, before it was clipped.';
COMMENT ON COLUMN training_steps.num_tokens IS 'Tokens that were read, prompts included, without padding; null in checkpoints of before this was noted.';
COMMENT ON COLUMN training_steps.seconds IS 'Time since the step before; null in checkpoints of before this was noted.';
COMMENT ON COLUMN training_steps.tokens_per_second IS 'num_tokens over seconds; null likewise.';

CREATE OR REPLACE VIEW training_order AS
SELECT o.run_id, o.arm, o.stage, o.checkpoint_id, o.step, o.exposure_index, e.trajectory_id, e.problem_id
FROM (
    SELECT run_id, arm, stage, checkpoint_id, step, position,
           row_number() OVER (PARTITION BY run_id, arm, stage ORDER BY step, place) - 1 AS exposure_index
    FROM (
        SELECT run_id, arm, stage, checkpoint_id, s.step, unnest(s.positions) AS position,
               generate_subscripts(s.positions, 1) AS place
        FROM (
            SELECT r.run_id, r.arm, c.stage, c.checkpoint_id,
                   unnest(from_json(c.result -> '$.steps', '[{"step": "INTEGER", "positions": ["INTEGER"]}]')) AS s
            FROM run_rows r JOIN checkpoints c ON c.checkpoint_id = r.row_id WHERE r.phase = 'training'
        )
    )
) o
JOIN stage_examples e ON e.run_id = o.run_id AND e.arm = o.arm AND e.stage = o.stage AND e.position = o.position;
COMMENT ON VIEW training_order IS 'Which example was read when, as the trainer''s own data loader gave them: a row for each time that an example was seen.';
COMMENT ON COLUMN training_order.run_id IS 'The run.';
COMMENT ON COLUMN training_order.arm IS 'heal, or a control: rejection_sampling, equal_tokens, without_repairs, unhinted, random_breakpoint, random_drop, shuffled, mismatched_hint, answer_told.';
COMMENT ON COLUMN training_order.stage IS 'I, II or III.';
COMMENT ON COLUMN training_order.checkpoint_id IS 'The stage that was trained.';
COMMENT ON COLUMN training_order.step IS 'The optimizer step, from 1.';
COMMENT ON COLUMN training_order.exposure_index IS 'Place in the order of the whole stage, from 0.';
COMMENT ON COLUMN training_order.trajectory_id IS 'The example.';
COMMENT ON COLUMN training_order.problem_id IS 'Its problem.';

CREATE OR REPLACE VIEW training_stages AS
SELECT r.run_id, r.arm, c.stage, c.checkpoint_id, c.parent_checkpoint_id, c.num_examples, c.num_dropped_over_long,
       (p ->> '$.num_tokens')::BIGINT AS num_example_tokens, (p ->> '$.longest_tokens')::INTEGER AS longest_tokens,
       (p ->> '$.loss_share')::DOUBLE AS loss_share, c.num_optimizer_steps, c.num_tokens,
       (p ->> '$.num_micro_batches')::BIGINT AS num_micro_batches, (p ->> '$.padding_share')::DOUBLE AS padding_share,
       c.loss_first, c.loss_last, h.held_out_before, h.held_out_after, h.num_held_out,
       (c.result ->> '$.num_parameters')::BIGINT AS num_parameters,
       (c.result ->> '$.num_trained_parameters')::BIGINT AS num_trained_parameters,
       c.result ->> '$.dtype' AS dtype, c.result ->> '$.device' AS device,
       c.seconds, list_sum(from_json(c.result -> '$.steps[*].seconds', '["DOUBLE"]')) AS step_seconds,
       (p ->> '$.expected_seconds')::DOUBLE AS expected_seconds,
       (c.result ->> '$.peak_memory_mib')::DOUBLE AS peak_memory_mib,
       (p ->> '$.expected_memory_mib')::DOUBLE AS expected_memory_mib,
       p ->> '$.first_example.without_loss' AS first_prompt, p ->> '$.first_example.with_loss' AS first_response
FROM run_rows r
JOIN (SELECT *, result -> '$.preflight' AS p FROM checkpoints) c ON c.checkpoint_id = r.row_id
LEFT JOIN (
    SELECT checkpoint_id, any_value(h.loss) FILTER (h.step = 0) AS held_out_before,
           max_by(h.loss, h.step) FILTER (h.step > 0) AS held_out_after,
           any_value(h.num_examples) AS num_held_out
    FROM (
        SELECT checkpoint_id, unnest(from_json(result -> '$.held_out',
                   '[{"step": "INTEGER", "loss": "DOUBLE", "num_examples": "INTEGER"}]')) AS h
        FROM checkpoints
    ) GROUP BY checkpoint_id
) h USING (checkpoint_id)
WHERE r.phase = 'training';
COMMENT ON VIEW training_stages IS 'Each trained stage: what was known before its first step (pre-flight), and what came of it.';
COMMENT ON COLUMN training_stages.run_id IS 'The run.';
COMMENT ON COLUMN training_stages.arm IS 'heal, or a control: rejection_sampling, equal_tokens, without_repairs, unhinted, random_breakpoint, random_drop, shuffled, mismatched_hint, answer_told.';
COMMENT ON COLUMN training_stages.stage IS 'I, II or III.';
COMMENT ON COLUMN training_stages.checkpoint_id IS 'The stage; arms and runs that train alike share it.';
COMMENT ON COLUMN training_stages.parent_checkpoint_id IS 'The stage that it began with; null for the untrained student.';
COMMENT ON COLUMN training_stages.num_examples IS 'Distinct examples trained on.';
COMMENT ON COLUMN training_stages.num_dropped_over_long IS 'Examples longer than max_length, which are dropped whole, never cut.';
COMMENT ON COLUMN training_stages.num_example_tokens IS 'Tokens of the distinct examples, prompts included.';
COMMENT ON COLUMN training_stages.longest_tokens IS 'Tokens of the longest of them.';
COMMENT ON COLUMN training_stages.loss_share IS 'Share of those tokens that carry loss, within (0, 1).';
COMMENT ON COLUMN training_stages.num_optimizer_steps IS 'Optimizer steps.';
COMMENT ON COLUMN training_stages.num_tokens IS 'Tokens read in all, repeats and prompts included, without padding.';
COMMENT ON COLUMN training_stages.num_micro_batches IS 'Forward and backward passes; null in checkpoints of before this was noted.';
COMMENT ON COLUMN training_stages.padding_share IS 'Share of padding in what was computed, within [0, 1).';
COMMENT ON COLUMN training_stages.loss_first IS 'Loss of the first step, nats per token.';
COMMENT ON COLUMN training_stages.loss_last IS 'Loss of the last step, nats per token.';
COMMENT ON COLUMN training_stages.held_out_before IS 'Loss before the first step on the teacher''s solutions of held-out problems, nats per token; null where there were none.';
COMMENT ON COLUMN training_stages.held_out_after IS 'The same after the last step.';
COMMENT ON COLUMN training_stages.num_held_out IS 'How many solutions that is the mean over the tokens of; those of the run that trained the stage.';
COMMENT ON COLUMN training_stages.num_parameters IS 'Parameters of the student; null in checkpoints of before this was noted.';
COMMENT ON COLUMN training_stages.num_trained_parameters IS 'Those that were trained: with an adapter, the adapter''s.';
COMMENT ON COLUMN training_stages.dtype IS 'float32, or bfloat16 for mixed precision.';
COMMENT ON COLUMN training_stages.device IS 'cpu or cuda.';
COMMENT ON COLUMN training_stages.seconds IS 'Wall time of the process that finished it, loading and saving included.';
COMMENT ON COLUMN training_stages.step_seconds IS 'Time of its optimizer steps, checkpoints included; null in checkpoints of before this was noted.';
COMMENT ON COLUMN training_stages.expected_seconds IS 'What was expected of the steps before the first, from one pass that was tried; null where several processes trained.';
COMMENT ON COLUMN training_stages.peak_memory_mib IS 'Of the GPU, or of the process where there is none.';
COMMENT ON COLUMN training_stages.expected_memory_mib IS 'What was expected before the first step; null where several processes trained.';
COMMENT ON COLUMN training_stages.first_prompt IS 'The first example of training: what carries no loss.';
COMMENT ON COLUMN training_stages.first_response IS 'The first example of training: what is learnt, end of turn included.';

CREATE OR REPLACE VIEW eval_summary AS
SELECT e.* EXCLUDE (benchmark), e.avg_at_k - base.avg_at_k AS gain_over_base,
       CASE WHEN teacher.avg_at_k > base.avg_at_k
            THEN (e.avg_at_k - base.avg_at_k) / (teacher.avg_at_k - base.avg_at_k) END AS gap_closed
FROM evaluations e
LEFT JOIN evaluations base
    ON base.run_id = e.run_id AND base.band = e.band AND base.benchmark IS NULL AND base.arm = 'base'
LEFT JOIN evaluations teacher
    ON teacher.run_id = e.run_id AND teacher.band = e.band AND teacher.benchmark IS NULL AND teacher.arm = 'teacher'
WHERE e.benchmark IS NULL;
COMMENT ON VIEW eval_summary IS 'Held-out scores per arm and band, with the gain over the untrained student; those per benchmark are in eval_benchmarks.';
COMMENT ON COLUMN eval_summary.evaluation_id IS 'Content key.';
COMMENT ON COLUMN eval_summary.run_id IS 'The run.';
COMMENT ON COLUMN eval_summary.arm IS 'teacher, base, rejection_sampling, equal_tokens, heal; in a run that only evaluates latest (the promoted student) or given (one that was named).';
COMMENT ON COLUMN eval_summary.band IS 'all, or the teacher''s band of the held-out problems.';
COMMENT ON COLUMN eval_summary.k IS 'Samples per problem.';
COMMENT ON COLUMN eval_summary.num_problems IS 'Problems averaged over.';
COMMENT ON COLUMN eval_summary.avg_at_k IS 'Mean share of correct samples, in [0, 1].';
COMMENT ON COLUMN eval_summary.standard_error IS 'Standard deviation of per-problem means over sqrt(problems); null for one problem.';
COMMENT ON COLUMN eval_summary.pass_at_k IS 'Share of problems with at least one correct sample, in [0, 1]; other k are in eval_pass_at.';
COMMENT ON COLUMN eval_summary.truncated_share IS 'Share of samples cut at max_tokens, in [0, 1].';
COMMENT ON COLUMN eval_summary.no_answer_share IS 'Share of samples without an answer, in [0, 1].';
COMMENT ON COLUMN eval_summary.gain_over_base IS 'avg_at_k minus that of the untrained student; null where it was not evaluated.';
COMMENT ON COLUMN eval_summary.gap_closed IS 'Share of the gap between untrained student (0) and teacher (1) that the arm closed; null where the teacher is not above the student.';

CREATE OR REPLACE VIEW eval_benchmarks AS
SELECT e.run_id, e.arm, e.benchmark, e.k, e.num_problems, e.avg_at_k, e.standard_error, e.pass_at_k,
       e.truncated_share, e.no_answer_share, e.avg_at_k - base.avg_at_k AS gain_over_base,
       CASE WHEN teacher.avg_at_k > base.avg_at_k
            THEN (e.avg_at_k - base.avg_at_k) / (teacher.avg_at_k - base.avg_at_k) END AS gap_closed
FROM evaluations e
LEFT JOIN evaluations base ON base.run_id = e.run_id AND base.benchmark = e.benchmark AND base.arm = 'base'
LEFT JOIN evaluations teacher
    ON teacher.run_id = e.run_id AND teacher.benchmark = e.benchmark AND teacher.arm = 'teacher'
WHERE e.benchmark IS NOT NULL;
COMMENT ON VIEW eval_benchmarks IS 'Held-out scores per arm and benchmark, in runs whose held-out problems are from several sources.';
COMMENT ON COLUMN eval_benchmarks.run_id IS 'The run.';
COMMENT ON COLUMN eval_benchmarks.arm IS 'As in eval_summary.';
COMMENT ON COLUMN eval_benchmarks.benchmark IS 'Name of the source in the config, else its path, dataset or generator.';
COMMENT ON COLUMN eval_benchmarks.k IS 'Samples per problem.';
COMMENT ON COLUMN eval_benchmarks.num_problems IS 'Problems averaged over.';
COMMENT ON COLUMN eval_benchmarks.avg_at_k IS 'Mean share of correct samples, in [0, 1].';
COMMENT ON COLUMN eval_benchmarks.standard_error IS 'Standard deviation of per-problem means over sqrt(problems); null for one problem.';
COMMENT ON COLUMN eval_benchmarks.pass_at_k IS 'Share of problems with at least one correct sample, in [0, 1]; other k are in eval_pass_at.';
COMMENT ON COLUMN eval_benchmarks.truncated_share IS 'Share of samples cut at max_tokens, in [0, 1].';
COMMENT ON COLUMN eval_benchmarks.no_answer_share IS 'Share of samples without an answer, in [0, 1].';
COMMENT ON COLUMN eval_benchmarks.gain_over_base IS 'avg_at_k minus that of the untrained student; null where it was not evaluated.';
COMMENT ON COLUMN eval_benchmarks.gap_closed IS 'Share of the gap between untrained student (0) and teacher (1) that the arm closed; null where the teacher is not above the student.';

CREATE OR REPLACE VIEW lm_eval_summary AS
SELECT r.run_id, r.arm, l.task, l.metric, l.filter, l.value, l.standard_error, l.value - base.value AS gain_over_base,
       l.higher_is_better, l.num_samples, l.num_fewshot, l.task_version, l.task_hash, l.lm_eval_version
FROM run_lm_evals r
JOIN lm_eval_results l USING (lm_eval_key)
LEFT JOIN (
    SELECT b.run_id, m.task, m.metric, m.filter, m.value
    FROM run_lm_evals b JOIN lm_eval_results m USING (lm_eval_key) WHERE b.arm = 'base'
) base ON base.run_id = r.run_id AND base.task = l.task AND base.metric = l.metric AND base.filter = l.filter;
COMMENT ON VIEW lm_eval_summary IS 'What lm-evaluation-harness measured in a run, per arm, task, metric and filter.';
COMMENT ON COLUMN lm_eval_summary.run_id IS 'The run; runs share evaluations.';
COMMENT ON COLUMN lm_eval_summary.arm IS 'base, rejection_sampling, equal_tokens, heal, latest or given.';
COMMENT ON COLUMN lm_eval_summary.task IS 'Task, group or tag, as lm-eval names it.';
COMMENT ON COLUMN lm_eval_summary.metric IS 'Metric, such as acc or exact_match.';
COMMENT ON COLUMN lm_eval_summary.filter IS 'The filter that answers went through, such as none or strict-match.';
COMMENT ON COLUMN lm_eval_summary.value IS 'Its value, in the metric''s own unit.';
COMMENT ON COLUMN lm_eval_summary.standard_error IS 'As lm-eval estimates it; null where it does not.';
COMMENT ON COLUMN lm_eval_summary.gain_over_base IS 'value minus that of the untrained student.';
COMMENT ON COLUMN lm_eval_summary.higher_is_better IS 'As the task says; null where it does not.';
COMMENT ON COLUMN lm_eval_summary.num_samples IS 'Problems that were evaluated; null where lm-eval does not say.';
COMMENT ON COLUMN lm_eval_summary.num_fewshot IS 'Solved examples in each prompt; null for a group.';
COMMENT ON COLUMN lm_eval_summary.task_version IS 'Version of the task; null for a group without one.';
COMMENT ON COLUMN lm_eval_summary.task_hash IS 'lm-eval''s hash of all problems, prompts and targets; null for a group.';
COMMENT ON COLUMN lm_eval_summary.lm_eval_version IS 'Version of lm-evaluation-harness.';

CREATE OR REPLACE VIEW example_lineage AS
SELECT e.run_id, e.arm, e.stage, e.position, e.stage_example_id, t.kind,
       e.problem_id, p.question, p.answer, p.source, b.decision AS band, b.value AS pass_rate,
       e.trajectory_id, t.sample_index, t.prefix, t.text, t.num_prefix_tokens, t.num_tokens, c.model_name_or_path,
       t.parent_id, wrong.text AS wrong_text, r.breakpoint_step, r.num_steps, r.surge_nats,
       t.hint_id, hint.text AS hint, u.verdict_id, v.label, v.extracted, v.verifier, v.verifier_version,
       g.decision AS gate_decision, s.row_id AS score_id, pure.value AS pure_score, pure.decision AS pure_decision,
       cap.decision AS cap_decision, k.checkpoint_id
FROM stage_examples e
JOIN trajectories t USING (trajectory_id)
LEFT JOIN problems p ON p.problem_id = e.problem_id
LEFT JOIN recipes c USING (recipe_id)
LEFT JOIN trajectories wrong ON wrong.trajectory_id = t.parent_id
LEFT JOIN trajectories hint ON hint.trajectory_id = t.hint_id
LEFT JOIN run_rows u ON u.run_id = e.run_id AND u.row_id = e.trajectory_id
    AND (u.phase IN ('rollouts', 'equal_tokens', 'guided')
         OR (u.phase = 'repairs' AND e.arm NOT IN ('unhinted', 'random_breakpoint', 'mismatched_hint', 'answer_told'))
         OR (u.phase = 'control_repairs' AND u.arm = e.arm))
LEFT JOIN verdicts v ON v.verdict_id = u.verdict_id
LEFT JOIN run_repairs r ON r.run_id = e.run_id AND r.trajectory_id = e.trajectory_id
LEFT JOIN (
    SELECT r.run_id, r.arm, r.row_id, s.trajectory_id
    FROM run_rows r JOIN scores s ON s.score_id = r.row_id WHERE r.kind IN ('score', 'control_score')
) s ON s.run_id = e.run_id AND s.trajectory_id = e.trajectory_id
    AND s.arm = CASE WHEN e.arm IN ('unhinted', 'random_breakpoint', 'mismatched_hint', 'answer_told') THEN e.arm ELSE '' END
LEFT JOIN decisions b ON b.run_id = e.run_id AND b.subject_id = e.problem_id AND b.phase = 'band'
-- a control's own decisions are on its repairs alone: what it shares with HEAL was decided there
LEFT JOIN decisions g ON g.run_id = e.run_id AND g.subject_id = e.trajectory_id
    AND CASE WHEN u.phase = 'control_repairs' THEN g.phase = 'control_gate' AND g.arm = e.arm ELSE g.phase = 'gate' END
LEFT JOIN decisions pure ON pure.run_id = e.run_id AND pure.subject_id = e.trajectory_id
    AND CASE WHEN u.phase = 'control_repairs' OR (u.phase = 'repairs' AND e.arm = 'random_drop')
             THEN pure.phase = 'control_pure' AND pure.arm = e.arm ELSE pure.phase = 'pure' END
LEFT JOIN decisions cap ON cap.run_id = e.run_id AND cap.subject_id = e.trajectory_id
    AND CASE WHEN u.phase = 'control_repairs' OR (u.phase = 'repairs' AND e.arm = 'random_drop')
             THEN cap.phase = 'control_cap' AND cap.arm = e.arm ELSE cap.phase = 'cap' AND e.arm <> 'equal_tokens' END
LEFT JOIN (
    SELECT r.run_id, r.arm, c.stage, c.checkpoint_id
    FROM run_rows r JOIN checkpoints c ON c.checkpoint_id = r.row_id WHERE r.phase = 'training'
) k ON k.run_id = e.run_id AND k.arm = e.arm AND k.stage = e.stage;
COMMENT ON VIEW example_lineage IS 'Each example of each stage, back to its problem, wrong rollout, breakpoint, hint, verdict, score and decisions, and on to the checkpoint.';
COMMENT ON COLUMN example_lineage.run_id IS 'The run.';
COMMENT ON COLUMN example_lineage.arm IS 'heal, or a control: rejection_sampling, equal_tokens, without_repairs, unhinted, random_breakpoint, random_drop, shuffled, mismatched_hint, answer_told.';
COMMENT ON COLUMN example_lineage.stage IS 'I, II or III.';
COMMENT ON COLUMN example_lineage.position IS 'Place in the stage''s order, from 0.';
COMMENT ON COLUMN example_lineage.stage_example_id IS 'Content key; in this view once.';
COMMENT ON COLUMN example_lineage.kind IS 'rollout, guided or repair.';
COMMENT ON COLUMN example_lineage.problem_id IS 'The problem.';
COMMENT ON COLUMN example_lineage.question IS 'Its text.';
COMMENT ON COLUMN example_lineage.answer IS 'Its reference answer.';
COMMENT ON COLUMN example_lineage.source IS 'Where the problem came from.';
COMMENT ON COLUMN example_lineage.band IS 'Its band in the run.';
COMMENT ON COLUMN example_lineage.pass_rate IS 'The teacher''s pass rate on it, in [0, 1]; null when nothing was graded.';
COMMENT ON COLUMN example_lineage.trajectory_id IS 'The text that became the example.';
COMMENT ON COLUMN example_lineage.sample_index IS 'Which of the samples of the same parents, from 0.';
COMMENT ON COLUMN example_lineage.prefix IS 'For repairs: the kept steps of the wrong rollout; else empty.';
COMMENT ON COLUMN example_lineage.text IS 'The sampled text; what is trained on is prefix || text.';
COMMENT ON COLUMN example_lineage.num_prefix_tokens IS 'Tokens of the prefix.';
COMMENT ON COLUMN example_lineage.num_tokens IS 'Sampled tokens.';
COMMENT ON COLUMN example_lineage.model_name_or_path IS 'The model that sampled it, as the first run that used its recipe named it; of an imported rollout the one that is said to have written it.';
COMMENT ON COLUMN example_lineage.parent_id IS 'For repairs: the wrong rollout; else null.';
COMMENT ON COLUMN example_lineage.wrong_text IS 'For repairs: the text of the wrong rollout; else null.';
COMMENT ON COLUMN example_lineage.breakpoint_step IS 'For repairs: the step at which it broke, from 0; else null.';
COMMENT ON COLUMN example_lineage.num_steps IS 'For repairs: steps of the wrong rollout; else null.';
COMMENT ON COLUMN example_lineage.surge_nats IS 'For repairs: the rise of mean entropy at the breakpoint, nats; else null.';
COMMENT ON COLUMN example_lineage.hint_id IS 'For repairs: the hint that was in the prompt; else null.';
COMMENT ON COLUMN example_lineage.hint IS 'For repairs: the hint as the teacher wrote it, before it was cleaned; else null.';
COMMENT ON COLUMN example_lineage.verdict_id IS 'The verdict that the run rests on.';
COMMENT ON COLUMN example_lineage.label IS 'Its label.';
COMMENT ON COLUMN example_lineage.extracted IS 'The answer that was read from the text.';
COMMENT ON COLUMN example_lineage.verifier IS 'Which verifier.';
COMMENT ON COLUMN example_lineage.verifier_version IS 'Its version.';
COMMENT ON COLUMN example_lineage.gate_decision IS 'For repairs and guided samples: what the gates decided; else null.';
COMMENT ON COLUMN example_lineage.score_id IS 'For repairs: the row of scores that the run used; else null.';
COMMENT ON COLUMN example_lineage.pure_score IS 'For repairs: the PURE score that decided; else null.';
COMMENT ON COLUMN example_lineage.pure_decision IS 'For repairs: what PURE decided; else null.';
COMMENT ON COLUMN example_lineage.cap_decision IS 'What the cap decided; null in the arm equal_tokens, whose cap is not stored.';
COMMENT ON COLUMN example_lineage.checkpoint_id IS 'The stage that was trained on it; null before training.';

-- ---- cost

CREATE OR REPLACE VIEW run_prices AS
SELECT run_id, role, noted ->> '$.currency' AS currency, (noted ->> '$.prompt')::DOUBLE AS prompt,
       coalesce((noted ->> '$.cached_prompt')::DOUBLE, prompt) AS cached_prompt,
       (noted ->> '$.completion')::DOUBLE AS completion, (noted ->> '$.hour')::DOUBLE AS hour
FROM (
    SELECT run_id, role, last(detail ORDER BY rowid) -> ('$.prices.' || role) AS noted
    FROM run_events, (VALUES ('teacher'), ('scorer'), ('student')) AS roles (role)
    WHERE event = 'priced' GROUP BY run_id, role
) WHERE noted ->> '$.currency' IS NOT NULL;
COMMENT ON VIEW run_prices IS 'The prices that a run noted last, a row per model that has one; the views below rest on them.';
COMMENT ON COLUMN run_prices.run_id IS 'The run.';
COMMENT ON COLUMN run_prices.role IS 'teacher, scorer (the teacher, unless it is set) or student.';
COMMENT ON COLUMN run_prices.currency IS 'What all prices of the row are in.';
COMMENT ON COLUMN run_prices.prompt IS 'Price of a million prompt tokens.';
COMMENT ON COLUMN run_prices.cached_prompt IS 'Price of a million of those that the engine had read before; prompt, unless it is set.';
COMMENT ON COLUMN run_prices.completion IS 'Price of a million sampled tokens.';
COMMENT ON COLUMN run_prices.hour IS 'Price of an hour of the engine.';

CREATE OR REPLACE VIEW token_spend AS
SELECT r.run_id, r.phase, r.arm, t.kind, count(*) AS num_samples, sum(t.num_tokens)::BIGINT AS num_tokens,
       sum(t.num_prompt_tokens)::BIGINT AS num_prompt_tokens, sum(t.num_cached_tokens)::BIGINT AS num_cached_tokens,
       sum(t.seconds) AS seconds
FROM run_rows r JOIN trajectories t ON t.trajectory_id = r.row_id GROUP BY ALL;
COMMENT ON VIEW token_spend IS 'Sampled and prompt tokens and engine seconds of what a run uses, per phase and arm.';
COMMENT ON COLUMN token_spend.run_id IS 'The run.';
COMMENT ON COLUMN token_spend.phase IS 'rollouts, hints, repairs, guided, equal_tokens, ceiling, control_hints, control_repairs or evaluation; of a validity test validity_hints, validity_natural, validity_rationales or validity_built.';
COMMENT ON COLUMN token_spend.arm IS 'For evaluation and promotion: whose student answered; in phases of controls: which control; of a validity test its validity_id; else an empty string.';
COMMENT ON COLUMN token_spend.kind IS 'rollout, hint, guided or repair; of a validity test continuation too, and shortcut, whose tokens were not sampled but put together.';
COMMENT ON COLUMN token_spend.num_samples IS 'Sampled texts.';
COMMENT ON COLUMN token_spend.num_tokens IS 'Sampled tokens.';
COMMENT ON COLUMN token_spend.num_prompt_tokens IS 'Tokens of prompts and prefixes.';
COMMENT ON COLUMN token_spend.num_cached_tokens IS 'Those of them that the engine had read before; null where it does not say.';
COMMENT ON COLUMN token_spend.seconds IS 'Engine time of these texts when they were sampled, perhaps for an earlier run.';

CREATE OR REPLACE VIEW phase_spend AS
WITH spent AS (
    SELECT t.run_id, CASE WHEN t.phase IN ('hints', 'guided') THEN 'repairs'
                          WHEN starts_with(t.phase, 'validity') THEN 'validity' ELSE t.phase END AS phase,
           num_samples,
           -- shortcuts are built, and only read
           CASE t.kind WHEN 'shortcut' THEN 0 ELSE t.num_tokens END AS num_tokens,
           t.num_prompt_tokens + CASE t.kind WHEN 'shortcut' THEN t.num_tokens ELSE 0 END AS num_prompt_tokens,
           num_cached_tokens, 0 AS num_scored_tokens, 0 AS num_trained_tokens, seconds AS engine_seconds,
           NULL AS wall_seconds, 0 AS num_new_tokens, 0 AS num_closed, 0 AS new_prompt_tokens,
           0 AS new_cached_tokens, 0.0 AS new_engine_seconds
    FROM token_spend t WHERE t.phase NOT IN ('ceiling', 'control_hints', 'control_repairs')
    UNION ALL
    -- what a control has in common with HEAL or with B2 is spent there, and once by all controls
    SELECT r.run_id, 'controls', count(*), sum(t.num_tokens), sum(t.num_prompt_tokens), sum(t.num_cached_tokens), 0, 0,
           sum(t.seconds), NULL, 0, 0, 0, 0, 0
    FROM (
        SELECT run_id, row_id FROM run_rows WHERE phase IN ('ceiling', 'control_hints', 'control_repairs')
        EXCEPT SELECT run_id, row_id FROM run_rows WHERE phase IN ('hints', 'repairs', 'equal_tokens')
    ) r JOIN trajectories t ON t.trajectory_id = r.row_id GROUP BY r.run_id
    UNION ALL
    SELECT r.run_id, CASE r.kind WHEN 'score' THEN 'selection' ELSE 'validity_scores' END, 0, 0, 0, NULL,
           s.num_scored_tokens, 0, s.seconds, NULL, 0, 0, 0, 0, 0
    FROM run_rows r JOIN scores s ON s.score_id = r.row_id WHERE r.kind IN ('score', 'validity_score')
    UNION ALL
    SELECT r.run_id, 'controls', 0, 0, 0, NULL, s.num_scored_tokens, 0, s.seconds, NULL, 0, 0, 0, 0, 0
    FROM (
        SELECT run_id, row_id FROM run_rows WHERE kind = 'control_score'
        EXCEPT SELECT run_id, row_id FROM run_rows WHERE kind = 'score'
    ) r JOIN scores s ON s.score_id = r.row_id
    UNION ALL
    SELECT r.run_id, 'training', 0, 0, 0, NULL, 0, c.num_tokens, c.seconds, NULL, 0, 0, 0, 0, 0
    FROM run_rows r JOIN checkpoints c ON c.checkpoint_id = r.row_id WHERE r.phase = 'training'
    UNION ALL
    SELECT run_id, phase, 0, 0, 0, NULL, 0, 0, NULL, (detail ->> '$.seconds')::DOUBLE,
           coalesce((detail ->> '$.spent.completion_tokens')::BIGINT, (detail ->> '$.made.tokens')::BIGINT, 0),
           (event = 'phase')::INTEGER,
           coalesce((detail ->> '$.spent.prompt_tokens')::BIGINT, 0),
           coalesce((detail ->> '$.spent.cached_tokens')::BIGINT, 0),
           coalesce((detail ->> '$.spent.engine_seconds')::DOUBLE, 0)
    FROM run_events
    WHERE event = 'phase' OR (event IN ('stopped', 'failed') AND (detail ->> '$.seconds') IS NOT NULL)
), summed AS (
    SELECT run_id, phase, sum(num_samples)::BIGINT AS num_samples, sum(num_tokens)::BIGINT AS num_tokens,
           sum(num_prompt_tokens)::BIGINT AS num_prompt_tokens, sum(num_cached_tokens)::BIGINT AS num_cached_tokens,
           sum(num_scored_tokens)::BIGINT AS num_scored_tokens, sum(num_trained_tokens)::BIGINT AS num_trained_tokens,
           sum(engine_seconds) AS engine_seconds, sum(wall_seconds) AS wall_seconds,
           sum(num_new_tokens)::BIGINT AS num_new_tokens, sum(num_closed)::BIGINT AS num_closed,
           sum(new_prompt_tokens) AS new_prompt_tokens, sum(new_cached_tokens) AS new_cached_tokens,
           sum(new_engine_seconds) AS new_engine_seconds,
           -- in the phase of profiles it is the scorer that reads rollouts again
           CASE WHEN phase IN ('profiles', 'selection', 'validity_scores') THEN 'scorer'
                WHEN phase IN ('evaluation', 'promotion') THEN 'student'
                WHEN phase <> 'training' THEN 'teacher' END AS role
    FROM spent GROUP BY run_id, phase
)
SELECT s.run_id,
       list_position(['rollouts', 'profiles', 'repairs', 'selection', 'equal_tokens', 'controls', 'training',
                      'evaluation', 'promotion', 'validity', 'validity_scores'], phase)
           AS position,
       phase, num_samples, num_tokens, num_prompt_tokens, num_cached_tokens, num_scored_tokens, num_trained_tokens,
       engine_seconds, wall_seconds, num_new_tokens, num_closed, currency,
       ((num_prompt_tokens + num_scored_tokens - coalesce(num_cached_tokens, 0)) * prompt
        + coalesce(num_cached_tokens, 0) * cached_prompt + num_tokens * completion) / 1e6
       + coalesce(engine_seconds, 0) / 3600 * hour AS cost,
       ((new_prompt_tokens - new_cached_tokens) * prompt + new_cached_tokens * cached_prompt
        + num_new_tokens * completion) / 1e6 + new_engine_seconds / 3600 * hour AS new_cost
FROM summed s LEFT JOIN run_prices p ON p.run_id = s.run_id AND p.role = s.role;
COMMENT ON VIEW phase_spend IS 'Tokens, engine seconds, wall seconds and cost per run and phase of the flow.';
COMMENT ON COLUMN phase_spend.run_id IS 'The run.';
COMMENT ON COLUMN phase_spend.position IS 'Order of the phases, from 1.';
COMMENT ON COLUMN phase_spend.phase IS 'rollouts, profiles, repairs (hints and guided samples too), selection, equal_tokens, controls (what HEAL or B2 does not have too), training, evaluation or promotion; what a validity test of PURE sampled and built is in validity, what its scorer read in validity_scores.';
COMMENT ON COLUMN phase_spend.num_samples IS 'Sampled texts that the run uses, whichever run sampled them.';
COMMENT ON COLUMN phase_spend.num_tokens IS 'Their sampled tokens.';
COMMENT ON COLUMN phase_spend.num_prompt_tokens IS 'Tokens of their prompts and prefixes.';
COMMENT ON COLUMN phase_spend.num_cached_tokens IS 'Those of them that the engine had read before; null where it does not say.';
COMMENT ON COLUMN phase_spend.num_scored_tokens IS 'Tokens the PURE scorer read.';
COMMENT ON COLUMN phase_spend.num_trained_tokens IS 'Tokens read in training, over all arms, prompts and epochs included.';
COMMENT ON COLUMN phase_spend.engine_seconds IS 'Engine time of the samples and scores when they were made, and time of the training child, perhaps for an earlier run; null where it is not measured.';
COMMENT ON COLUMN phase_spend.wall_seconds IS 'What this run''s own processes took for the phase, summed over all times it was closed, stopped or failed; what was reused took none, and a process that was killed within the phase is not in it. Null until there is one.';
COMMENT ON COLUMN phase_spend.num_new_tokens IS 'Tokens that those processes sampled.';
COMMENT ON COLUMN phase_spend.num_closed IS 'How often the phase was closed; more than once after a resume.';
COMMENT ON COLUMN phase_spend.currency IS 'What its costs are in; null where the model has no price.';
COMMENT ON COLUMN phase_spend.cost IS 'What the run uses, at the prices that it noted last (run_prices): what making all of it costs, whichever run did. Tokens the scorer read count as prompt tokens. Null without a price, and for training, which has none yet.';
COMMENT ON COLUMN phase_spend.new_cost IS 'What this run''s own processes made of it, as num_new_tokens counts, at the same prices.';

CREATE OR REPLACE VIEW example_cost AS
WITH spent AS (
    SELECT r.run_id, CASE WHEN r.phase LIKE 'control%' THEN r.phase || ' ' || r.arm ELSE r.phase END AS phase,
           sum(t.num_tokens) AS num_tokens, sum(t.num_prompt_tokens) AS num_prompt_tokens,
           sum(t.num_cached_tokens) AS num_cached_tokens, sum(t.seconds) AS engine_seconds, 0 AS num_scored_tokens
    FROM run_rows r
    JOIN trajectories t ON t.trajectory_id = r.row_id
    JOIN run_problems p ON p.run_id = r.run_id AND p.problem_id = t.problem_id AND p.split = 'train'
    WHERE r.phase <> 'evaluation' GROUP BY ALL
    UNION ALL
    SELECT r.run_id, 'pure', 0, 0, NULL, sum(s.seconds), sum(s.num_scored_tokens)
    FROM run_rows r JOIN scores s ON s.score_id = r.row_id WHERE r.kind = 'score' GROUP BY ALL
    UNION ALL
    SELECT r.run_id, 'control_pure ' || r.arm, 0, 0, NULL, sum(s.seconds), sum(s.num_scored_tokens)
    FROM run_rows r JOIN scores s ON s.score_id = r.row_id WHERE r.kind = 'control_score' GROUP BY ALL
), priced AS (
    SELECT s.*, currency,
           ((num_prompt_tokens + num_scored_tokens - coalesce(num_cached_tokens, 0)) * prompt
            + coalesce(num_cached_tokens, 0) * cached_prompt + num_tokens * completion) / 1e6
           + coalesce(engine_seconds, 0) / 3600 * hour AS cost
    FROM spent s LEFT JOIN run_prices p
      ON p.run_id = s.run_id AND p.role = CASE WHEN s.phase = 'pure' OR s.phase LIKE 'control_pure%' THEN 'scorer' ELSE 'teacher' END
), share AS (
    SELECT * FROM (VALUES ('heal', 'rollouts', 'rollout'), ('heal', 'guided', 'guided'), ('heal', 'hints', 'repair'),
                          ('heal', 'repairs', 'repair'), ('heal', 'pure', 'repair'),
                          ('rejection_sampling', 'rollouts', 'rollout'),
                          ('equal_tokens', 'rollouts', 'rollout'), ('equal_tokens', 'equal_tokens', 'rollout')
    ) AS share (arm, phase, kind)
    UNION ALL
    SELECT arm, phase, kind
    FROM (VALUES ('without_repairs'), ('unhinted'), ('random_breakpoint'), ('mismatched_hint'), ('answer_told'), ('random_drop'), ('shuffled')
    ) AS controls (arm), (VALUES ('rollouts', 'rollout'), ('guided', 'guided')) AS common (phase, kind)
    UNION ALL
    SELECT arm, phase, 'repair'
    FROM (VALUES ('random_drop'), ('shuffled')) AS controls (arm), (VALUES ('hints'), ('repairs'), ('pure')) AS own (phase)
    UNION ALL
    SELECT arm, phase || ' ' || arm, 'repair'
    FROM (VALUES ('unhinted'), ('random_breakpoint'), ('mismatched_hint'), ('answer_told')) AS controls (arm),
         (VALUES ('control_hints'), ('control_repairs'), ('control_pure')) AS own (phase)
    UNION ALL
    SELECT 'mismatched_hint', 'hints', 'repair'
), entries AS (
    SELECT run_id, arm, kind, 0 AS num_examples, num_tokens, num_prompt_tokens, num_scored_tokens, engine_seconds,
           currency, cost
    FROM priced JOIN share USING (phase) JOIN (SELECT DISTINCT run_id, arm FROM stage_examples) USING (run_id, arm)
    UNION ALL
    SELECT e.run_id, e.arm, t.kind, count(*), 0, 0, 0, 0, NULL, NULL
    FROM (SELECT DISTINCT run_id, arm, trajectory_id FROM stage_examples) e
    JOIN trajectories t USING (trajectory_id) GROUP BY ALL
)
SELECT run_id, arm, coalesce(kind, 'all') AS kind, sum(num_examples)::BIGINT AS num_examples,
       sum(num_tokens)::BIGINT AS num_tokens, sum(num_prompt_tokens)::BIGINT AS num_prompt_tokens,
       sum(num_scored_tokens)::BIGINT AS num_scored_tokens, sum(engine_seconds) AS engine_seconds,
       sum(num_tokens) / nullif(sum(num_examples), 0) AS tokens_per_example,
       sum(engine_seconds) / nullif(sum(num_examples), 0) AS engine_seconds_per_example,
       CASE WHEN count(DISTINCT currency) = 1 THEN any_value(currency) END AS currency,
       CASE WHEN count(DISTINCT currency) = 1 THEN sum(cost) END AS cost,
       CASE WHEN count(DISTINCT currency) = 1 THEN sum(cost) / nullif(sum(num_examples), 0) END AS cost_per_example
FROM entries GROUP BY GROUPING SETS ((run_id, arm), (run_id, arm, kind));
COMMENT ON VIEW example_cost IS 'What the teacher spent on the training problems, per arm and kind, and per training example that came of it.';
COMMENT ON COLUMN example_cost.run_id IS 'The run.';
COMMENT ON COLUMN example_cost.arm IS 'heal or a control; all share the rollouts, those that were trained on HEAL''s guided samples or hints share these too.';
COMMENT ON COLUMN example_cost.kind IS 'all, rollout, guided, or repair (with its hints and its PURE scores).';
COMMENT ON COLUMN example_cost.num_examples IS 'Distinct training examples of the arm.';
COMMENT ON COLUMN example_cost.num_tokens IS 'Tokens sampled for them, failed and dropped samples included.';
COMMENT ON COLUMN example_cost.num_prompt_tokens IS 'Tokens of the prompts and prefixes.';
COMMENT ON COLUMN example_cost.num_scored_tokens IS 'Tokens the PURE scorer read; not in tokens_per_example.';
COMMENT ON COLUMN example_cost.engine_seconds IS 'Engine time of the sampling and, since schema 0008, of the scoring, perhaps for an earlier run.';
COMMENT ON COLUMN example_cost.tokens_per_example IS 'num_tokens / num_examples; null without examples.';
COMMENT ON COLUMN example_cost.engine_seconds_per_example IS 'engine_seconds / num_examples; null without examples.';
COMMENT ON COLUMN example_cost.currency IS 'What the costs are in; null where no model has a price, or teacher and scorer have theirs in two currencies.';
COMMENT ON COLUMN example_cost.cost IS 'What making all of this costs at the prices that the run noted last (run_prices); null where currency is.';
COMMENT ON COLUMN example_cost.cost_per_example IS 'cost / num_examples; null without examples.';

-- ---- runs

CREATE OR REPLACE VIEW run_status AS
-- in the order of writing: a clock may jump back
SELECT r.run_id, r.started_at, last(e.event ORDER BY e.rowid) AS last_event,
       last(e.phase ORDER BY e.rowid) FILTER (e.event = 'phase') AS last_phase,
       last(e.happened_at ORDER BY e.rowid) AS last_event_at, bool_or(e.event = 'completed') AS completed
FROM runs r LEFT JOIN run_events e USING (run_id) GROUP BY r.run_id, r.started_at;
COMMENT ON VIEW run_status IS 'Where each run stands.';
COMMENT ON COLUMN run_status.run_id IS 'The run.';
COMMENT ON COLUMN run_status.started_at IS 'When it was first started.';
COMMENT ON COLUMN run_status.last_event IS 'The last thing that happened to it; null when nothing is noted.';
COMMENT ON COLUMN run_status.last_phase IS 'The last phase that was closed; null when none was.';
COMMENT ON COLUMN run_status.last_event_at IS 'When the last thing happened.';
COMMENT ON COLUMN run_status.completed IS 'It came to its end once; null when nothing is noted.';

CREATE OR REPLACE VIEW run_settings AS
SELECT r.run_id, substr(s.fullkey, 3) AS setting, s.value ->> '$' AS value
FROM runs r, json_tree(r.config) s
WHERE s.type <> 'OBJECT' AND NOT contains(s.path, '[') AND NOT contains(s.fullkey, '[');
COMMENT ON VIEW run_settings IS 'The resolved config of each run, a row per setting.';
COMMENT ON COLUMN run_settings.run_id IS 'The run.';
COMMENT ON COLUMN run_settings.setting IS 'The setting as a config file and an override name it, such as pure.score.';
COMMENT ON COLUMN run_settings.value IS 'Its value as text, a list as JSON; null when it is null.';

CREATE OR REPLACE VIEW run_reuse AS
SELECT r.run_id, r.phase, r.arm, r.kind, count(*) AS num_rows,
       count(*) FILTER (u.first_run <> u.last_run) AS num_shared,
       count(*) FILTER (u.first_runs_row < own.rowid) AS num_reused
FROM run_rows r
JOIN runs own USING (run_id)
JOIN (
    SELECT row_id, min(run_id) AS first_run, max(run_id) AS last_run, min(runs.rowid) AS first_runs_row
    FROM run_rows JOIN runs USING (run_id) GROUP BY row_id
) u USING (row_id)
GROUP BY ALL;
COMMENT ON VIEW run_reuse IS 'How many of the rows that a run uses are used by other runs too.';
COMMENT ON COLUMN run_reuse.run_id IS 'The run.';
COMMENT ON COLUMN run_reuse.phase IS 'rollouts, hints, repairs, guided, equal_tokens, pure, training or evaluation.';
COMMENT ON COLUMN run_reuse.arm IS 'For training, evaluation and promotion: the arm; else an empty string.';
COMMENT ON COLUMN run_reuse.kind IS 'rollout, hint, guided, repair, score or checkpoint.';
COMMENT ON COLUMN run_reuse.num_rows IS 'Rows that the run uses.';
COMMENT ON COLUMN run_reuse.num_shared IS 'Those that another run uses too.';
COMMENT ON COLUMN run_reuse.num_reused IS 'Those that a run that was started earlier uses, so that they were there already or were made for both.';

CREATE OR REPLACE VIEW run_metrics AS
SELECT run_id, 1 AS position, 'funnel' AS topic, phase AS item,
       coalesce(outcome, 'not graded') || coalesce(': ' || reason, '') AS metric, num::DOUBLE AS value,
       NULL::DOUBLE AS standard_error
FROM funnel
UNION ALL
SELECT run_id, 2, 'samples', item, metric, value, NULL FROM (
    UNPIVOT (
        SELECT run_id, phase || CASE arm WHEN '' THEN '' ELSE ', ' || arm END AS item,
               count(*)::DOUBLE AS num_samples,
               count(*) FILTER (label = 'correct') / nullif(count(label), 0) AS correct_share,
               avg(cut::INT) AS truncated_share, avg(num_tokens) AS mean_tokens, avg(mean_entropy_nats) AS mean_entropy_nats
        FROM run_trajectories GROUP BY ALL
    ) ON num_samples, correct_share, truncated_share, mean_tokens, mean_entropy_nats INTO NAME metric VALUE value
)
UNION ALL
SELECT run_id, 3, 'repairs', 'problems', metric, value, NULL FROM (
    UNPIVOT (
        SELECT run_id, count(*)::DOUBLE AS num_problems, count(*) FILTER (num_verified > 0)::DOUBLE AS num_repaired,
               sum(num_verified) / nullif(sum(num_attempted), 0) AS verified_share,
               sum(num_passed_gates) / nullif(sum(num_verified), 0) AS passed_gates_share,
               sum(num_kept) / nullif(sum(num_attempted), 0) AS kept_share
        FROM repair_yield GROUP BY ALL
    ) ON num_problems, num_repaired, verified_share, passed_gates_share, kept_share INTO NAME metric VALUE value
)
UNION ALL
SELECT run_id, 4, 'pure', reason, 'pooled_threshold', value, NULL
FROM decisions WHERE phase = 'pure_threshold' AND value IS NOT NULL
UNION ALL
SELECT s.run_id, 5, 'examples', s.arm || ', stage ' || s.stage || ', ' || t.kind, 'num_examples', count(*), NULL
FROM stage_examples s JOIN trajectories t USING (trajectory_id) GROUP BY ALL
UNION ALL
SELECT run_id, 6, 'training', item, metric, value, NULL FROM (
    UNPIVOT (
        SELECT r.run_id, r.arm || ', stage ' || c.stage AS item, c.num_optimizer_steps::DOUBLE AS num_optimizer_steps,
               c.num_dropped_over_long::DOUBLE AS num_dropped_over_long, c.loss_first, c.loss_last
        FROM run_rows r JOIN checkpoints c ON c.checkpoint_id = r.row_id WHERE r.phase = 'training'
    ) ON num_optimizer_steps, num_dropped_over_long, loss_first, loss_last INTO NAME metric VALUE value
)
UNION ALL
SELECT run_id, 7, 'evaluation', item, metric, value, CASE metric WHEN 'avg_at_k' THEN standard_error END FROM (
    UNPIVOT (
        SELECT run_id, arm || ', ' || part AS item, standard_error, num_problems::DOUBLE AS num_problems, avg_at_k,
               pass_at_k, truncated_share, no_answer_share, gap_closed
        FROM (SELECT *, band AS part FROM eval_summary
              UNION ALL BY NAME SELECT *, 'benchmark ' || benchmark AS part FROM eval_benchmarks)
    ) ON num_problems, avg_at_k, pass_at_k, truncated_share, no_answer_share, gap_closed INTO NAME metric VALUE value
)
UNION ALL
SELECT run_id, 8, 'spend', item, metric, value, NULL FROM (
    UNPIVOT (
        SELECT run_id, phase AS item, num_tokens::DOUBLE AS num_tokens, engine_seconds, wall_seconds FROM phase_spend
    ) ON num_tokens, engine_seconds, wall_seconds INTO NAME metric VALUE value
)
UNION ALL
SELECT run_id, 9, 'cost', item, metric, value, NULL FROM (
    UNPIVOT (
        SELECT run_id, arm || ', ' || kind AS item, tokens_per_example, engine_seconds_per_example FROM example_cost
    ) ON tokens_per_example, engine_seconds_per_example INTO NAME metric VALUE value
);
COMMENT ON VIEW run_metrics IS 'The numbers of a run in long form, a row per metric; what run_comparison puts side by side.';
COMMENT ON COLUMN run_metrics.run_id IS 'The run.';
COMMENT ON COLUMN run_metrics.position IS 'Order of the topics, from 1.';
COMMENT ON COLUMN run_metrics.topic IS 'funnel, samples, repairs, pure, examples, training, evaluation, spend or cost.';
COMMENT ON COLUMN run_metrics.item IS 'What it is about, such as a phase, or arm and band (or benchmark).';
COMMENT ON COLUMN run_metrics.metric IS 'The quantity, named as in the view or table it comes from; in the funnel the outcome and reason.';
COMMENT ON COLUMN run_metrics.value IS 'Its value; quantities that are null have no row.';
COMMENT ON COLUMN run_metrics.standard_error IS 'For avg_at_k: its standard error over problems; else null.';

CREATE OR REPLACE VIEW run_comparison AS
SELECT run_a, run_b, position, topic, item, metric, max(a) AS a, max(b) AS b, max(b) - max(a) AS difference,
       sqrt(max(error_a) ** 2 + max(error_b) ** 2) AS standard_error
FROM (
    -- two branches, so that filters on run_a and on run_b reach the tables
    SELECT m.run_id AS run_a, o.run_id AS run_b, position, topic, item, metric, value AS a, NULL::DOUBLE AS b,
           standard_error AS error_a, NULL::DOUBLE AS error_b
    FROM run_metrics m, runs o
    UNION ALL
    SELECT o.run_id, m.run_id, position, topic, item, metric, NULL, value, NULL, standard_error
    FROM run_metrics m, runs o
)
GROUP BY run_a, run_b, position, topic, item, metric;
COMMENT ON VIEW run_comparison IS 'Two runs of the workspace side by side, a row per metric; filter on run_a and run_b.';
COMMENT ON COLUMN run_comparison.run_a IS 'The one run.';
COMMENT ON COLUMN run_comparison.run_b IS 'The other run; every pair is there, in both orders and with itself.';
COMMENT ON COLUMN run_comparison.position IS 'Order of the topics, from 1.';
COMMENT ON COLUMN run_comparison.topic IS 'funnel, samples, repairs, pure, examples, training, evaluation, spend or cost.';
COMMENT ON COLUMN run_comparison.item IS 'What it is about, such as a phase, or arm and band (or benchmark).';
COMMENT ON COLUMN run_comparison.metric IS 'The quantity, as in run_metrics.';
COMMENT ON COLUMN run_comparison.a IS 'Its value in run_a; null when that run has none.';
COMMENT ON COLUMN run_comparison.b IS 'Its value in run_b; null when that run has none.';
COMMENT ON COLUMN run_comparison.difference IS 'b - a; null when either is.';
COMMENT ON COLUMN run_comparison.standard_error IS 'For avg_at_k: standard error of the difference, as if the two were independent; runs on the same problems differ by less. Else null.';

COMMIT;
