-- What running every night needs: a run says which attempt it is and where its students started, problems that
-- failed are in quarantine, and what was promoted is kept.

ALTER TABLE runs ADD COLUMN basis_id VARCHAR;
ALTER TABLE runs ADD COLUMN attempt INTEGER;
ALTER TABLE runs ADD COLUMN start_checkpoint_id VARCHAR;
ALTER TABLE runs ADD COLUMN purpose VARCHAR;
COMMENT ON COLUMN runs.run_id IS 'Content key of config, problems, stage versions, attempt and the students'' start.';
COMMENT ON COLUMN runs.basis_id IS 'Content key of config, problems and stage versions alone: attempts share it. Null in rows from before schema 0003.';
COMMENT ON COLUMN runs.attempt IS 'From 0; a further one tries the problems again that failed in the one before. Null in rows from before schema 0003.';
COMMENT ON COLUMN runs.start_checkpoint_id IS 'The promoted student that training started from; null when it started from the base student.';
COMMENT ON COLUMN runs.purpose IS 'distillation, or evaluation (of the promoted student). Null in rows from before schema 0003.';

ALTER TABLE quarantine ADD COLUMN problem_id VARCHAR;
ALTER TABLE quarantine ADD COLUMN phase VARCHAR;
ALTER TABLE quarantine ADD COLUMN work VARCHAR;
ALTER TABLE quarantine ADD COLUMN quarantined_at TIMESTAMPTZ;
ALTER TABLE quarantine ALTER COLUMN line DROP NOT NULL;
COMMENT ON TABLE quarantine IS 'Rows of a source that could not become problems, and problems of a run whose work failed.';
COMMENT ON COLUMN quarantine.line IS 'Line, from 1; null for a problem.';
COMMENT ON COLUMN quarantine.reason IS 'What is wrong with the row; the error for a problem.';
COMMENT ON COLUMN quarantine.raw IS 'The row as it stands, bounded; the question of a problem.';
COMMENT ON COLUMN quarantine.problem_id IS 'The problem that failed and is out of the run from there on; null for a row of a source.';
COMMENT ON COLUMN quarantine.phase IS 'The phase in which it failed; null for a row of a source.';
COMMENT ON COLUMN quarantine.work IS 'What was being made: rollouts, profiles, hints try 0, repairs, guided, pure, equal_tokens, evaluation and the arm; null for a row of a source.';
COMMENT ON COLUMN quarantine.quarantined_at IS 'When; null for a row of a source.';

COMMENT ON TABLE run_events IS 'What happened to a run: started, phase, completed, stopped, failed.';
COMMENT ON COLUMN run_events.event IS 'started, phase, completed, stopped (on purpose, at a limit) or failed.';
COMMENT ON COLUMN run_events.detail IS 'For phase and completed: seconds of wall time, what was newly made, problems in quarantine. For stopped and failed: the reason. Else empty.';
COMMENT ON COLUMN run_rows.phase IS 'The phase that uses the row: rollouts, hints, repairs, guided, equal_tokens, pure, training, evaluation or promotion.';
COMMENT ON COLUMN run_rows.arm IS 'For training, evaluation and promotion: the arm; else an empty string.';
COMMENT ON COLUMN evaluations.arm IS 'teacher, base, rejection_sampling, equal_tokens, heal, or latest in a run that evaluates the promoted student.';

CREATE TABLE promotions (
    promotion_id VARCHAR NOT NULL,
    run_id VARCHAR NOT NULL,
    checkpoint_id VARCHAR NOT NULL,
    decision VARCHAR NOT NULL,
    reason VARCHAR NOT NULL,
    best_checkpoint_id VARCHAR,
    num_problems INTEGER NOT NULL,
    k INTEGER NOT NULL,
    avg_at_k DOUBLE,
    best_avg_at_k DOUBLE,
    difference DOUBLE,
    low DOUBLE,
    high DOUBLE,
    margin DOUBLE NOT NULL,
    becomes_best BOOLEAN NOT NULL,
    decided_at TIMESTAMPTZ NOT NULL
);
COMMENT ON TABLE promotions IS 'Whether a run''s student became the latest: paired against the best ever promoted on the same held-out problems.';
COMMENT ON COLUMN promotions.promotion_id IS 'Content key of run and student.';
COMMENT ON COLUMN promotions.run_id IS 'The run that trained it.';
COMMENT ON COLUMN promotions.checkpoint_id IS 'The student: stage III of the arm heal.';
COMMENT ON COLUMN promotions.decision IS 'promoted or refused.';
COMMENT ON COLUMN promotions.reason IS 'within_margin, same_student, below_margin or no_shared_problems.';
COMMENT ON COLUMN promotions.best_checkpoint_id IS 'The best student promoted so far, which it was compared with; null when that was the untrained student.';
COMMENT ON COLUMN promotions.num_problems IS 'Held-out problems that both answered and neither was trained on.';
COMMENT ON COLUMN promotions.k IS 'Answers per problem.';
COMMENT ON COLUMN promotions.avg_at_k IS 'Its mean share of correct answers on those problems, in [0, 1]; null without any.';
COMMENT ON COLUMN promotions.best_avg_at_k IS 'The same of the student it was compared with.';
COMMENT ON COLUMN promotions.difference IS 'Mean difference over the problems; null without any.';
COMMENT ON COLUMN promotions.low IS 'Lower end of its 95 % interval by paired bootstrap over problems; null below two problems.';
COMMENT ON COLUMN promotions.high IS 'Upper end; null below two problems.';
COMMENT ON COLUMN promotions.margin IS 'The lower end had to be above this.';
COMMENT ON COLUMN promotions.becomes_best IS 'Later students are compared with it: it was promoted and scored no less than the best so far.';
COMMENT ON COLUMN promotions.decided_at IS 'When.';
