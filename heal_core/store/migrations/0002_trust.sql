-- What keeping a store for years needs: a run owns the verdicts it rests on, a verdict says under
-- which limit it was made, parts have an order of their own and can be replaced.

ALTER TABLE verdicts ADD COLUMN limit_seconds DOUBLE;
ALTER TABLE verdicts ADD COLUMN created_at TIMESTAMPTZ;
COMMENT ON COLUMN verdicts.verdict_id IS 'Content key of trajectory, verifier, version and time limit.';
COMMENT ON COLUMN verdicts.limit_seconds IS 'Time limit it was made under: a verdict that ran into it is made again under a higher one. Null in rows from before schema 0002.';
COMMENT ON COLUMN verdicts.created_at IS 'When it was stored; null in rows from before schema 0002.';

ALTER TABLE run_rows ADD COLUMN verdict_id VARCHAR;
COMMENT ON COLUMN run_rows.verdict_id IS 'The verdict that the run rests on; null where nothing was graded.';

ALTER TABLE parts ADD COLUMN sequence BIGINT;
COMMENT ON COLUMN parts.sequence IS 'Number of the part in the order of writing, by which a rebuilt database gives rows their order; null for parts from before schema 0002.';

CREATE TABLE retired_parts (
    part_name VARCHAR NOT NULL,
    table_name VARCHAR NOT NULL
);
COMMENT ON TABLE retired_parts IS 'Parts whose rows were written anew into other parts, or that no run refers to; their files are about to be removed.';
COMMENT ON COLUMN retired_parts.part_name IS 'SHA-256 of the part''s bytes.';
COMMENT ON COLUMN retired_parts.table_name IS 'Table its rows belong to.';

-- when a column of the first schema has no value
COMMENT ON COLUMN trajectories.parent_id IS 'For hints and repairs: the wrong rollout they belong to; else null.';
COMMENT ON COLUMN trajectories.hint_id IS 'For repairs: the hint that was in the prompt; else null.';
COMMENT ON COLUMN trajectories.mean_logprob_nats IS 'Mean log-probability of the sampled tokens at temperature 1, nats; null when no token was sampled.';
COMMENT ON COLUMN profiles.surge_nats IS 'The rise of mean entropy at the breakpoint, nats; null without a breakpoint.';
COMMENT ON COLUMN profiles.window_size IS 'How many steps could have been chosen; null without a breakpoint.';
COMMENT ON COLUMN profiles.z_score IS 'The surge against the others of its window, in standard deviations; null below three, and when all are equal.';
COMMENT ON COLUMN profiles.flat IS 'True when no rise was positive and the position is a convention; null without a breakpoint.';
COMMENT ON COLUMN scores.ratio IS 'Mean over the span of P_k / (U_k + epsilon) (definition D8); null when rejected.';
COMMENT ON COLUMN scores.jump IS 'Largest fall of answer uncertainty weighted by surprisal (definition D8); null when rejected.';
COMMENT ON COLUMN scores.reliance IS 'Mean gain in log-probability from the hint, nats per token (definition D8); null when rejected.';
COMMENT ON COLUMN checkpoints.loss_first IS 'Training loss at the first logged step, nats per token; null when none was logged.';
COMMENT ON COLUMN checkpoints.loss_last IS 'Training loss at the last logged step, nats per token; null when none was logged.';
COMMENT ON COLUMN run_events.phase IS 'The phase that closed, for event phase; else null.';
COMMENT ON COLUMN run_events.detail IS 'For phase and completed: seconds of wall time, and what was newly made. For failed: the error. Else empty.';
COMMENT ON COLUMN decisions.subject_id IS 'The problem or trajectory decided on; pooled for the threshold of the run.';
COMMENT ON COLUMN decisions.problem_id IS 'Its problem; an empty string for the threshold of the run.';
COMMENT ON COLUMN decisions.decision IS 'A band; kept or dropped; frozen for the threshold of the run.';
COMMENT ON COLUMN decisions.reason IS 'Why it was dropped; for the threshold the name of the score; null when kept.';
COMMENT ON COLUMN decisions.value IS 'The number it rests on: pass rate of a band, PURE score, threshold, rank of the cap; null where there is none.';
