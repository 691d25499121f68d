-- Evaluation by benchmark, pass@k for several k, the differences of arms, and tasks of lm-evaluation-harness.

ALTER TABLE run_problems ADD COLUMN benchmark VARCHAR;
COMMENT ON COLUMN run_problems.benchmark IS 'What the rows of an evaluation call its source: the source''s name, else its label (path, dataset or generator). Null in rows from before schema 0009.';

ALTER TABLE evaluations ADD COLUMN benchmark VARCHAR;
COMMENT ON TABLE evaluations IS 'Scores on the held-out problems, per arm: over all, per band, and per benchmark where a run has several.';
COMMENT ON COLUMN evaluations.arm IS 'teacher, base, rejection_sampling, equal_tokens, heal; in a run that only evaluates latest (the promoted student) or given (one that was named).';
COMMENT ON COLUMN evaluations.band IS 'all, or the teacher''s band of the held-out problems; all for a benchmark.';
COMMENT ON COLUMN evaluations.benchmark IS 'run_problems.benchmark of the problems that the row is about; null over those of all sources.';
COMMENT ON COLUMN evaluations.k IS 'Samples per problem, n.';
COMMENT ON COLUMN evaluations.pass_at_k IS 'Pass@n for n = k: share of problems with at least one correct sample. Other k are in eval_pass_at.';

CREATE TABLE eval_pass_at (
    eval_pass_at_id VARCHAR NOT NULL,
    run_id VARCHAR NOT NULL,
    arm VARCHAR NOT NULL,
    band VARCHAR NOT NULL,
    benchmark VARCHAR,
    k INTEGER NOT NULL,
    num_generations INTEGER NOT NULL,
    num_problems INTEGER NOT NULL,
    pass_at_k DOUBLE NOT NULL,
    standard_error DOUBLE
);
COMMENT ON TABLE eval_pass_at IS 'Unbiased pass@k on the held-out problems, for each k of evaluation.pass_at; groups as in evaluations.';
COMMENT ON COLUMN eval_pass_at.eval_pass_at_id IS 'Content key.';
COMMENT ON COLUMN eval_pass_at.run_id IS 'The run.';
COMMENT ON COLUMN eval_pass_at.arm IS 'As in evaluations.';
COMMENT ON COLUMN eval_pass_at.band IS 'all, or the teacher''s band of the held-out problems; all for a benchmark.';
COMMENT ON COLUMN eval_pass_at.benchmark IS 'run_problems.benchmark of the problems; null over those of all sources.';
COMMENT ON COLUMN eval_pass_at.k IS 'Samples that a user of the model would draw.';
COMMENT ON COLUMN eval_pass_at.num_generations IS 'Samples per problem that it is estimated from, n >= k.';
COMMENT ON COLUMN eval_pass_at.num_problems IS 'Problems averaged over.';
COMMENT ON COLUMN eval_pass_at.pass_at_k IS 'Mean over problems of 1 - C(n-c, k) / C(n, k), c of n samples being correct; in [0, 1].';
COMMENT ON COLUMN eval_pass_at.standard_error IS 'Standard deviation of the problems'' estimates over sqrt(problems); null for one problem.';

CREATE TABLE eval_contrasts (
    eval_contrast_id VARCHAR NOT NULL,
    run_id VARCHAR NOT NULL,
    arm VARCHAR NOT NULL,
    against VARCHAR NOT NULL,
    band VARCHAR NOT NULL,
    benchmark VARCHAR,
    num_problems INTEGER NOT NULL,
    difference DOUBLE NOT NULL,
    low DOUBLE,
    high DOUBLE,
    p_value DOUBLE,
    p_adjusted DOUBLE,
    is_primary BOOLEAN NOT NULL,
    minimum_detectable_difference DOUBLE,
    is_powered BOOLEAN NOT NULL
);
COMMENT ON TABLE eval_contrasts IS 'One arm''s avg@k minus another''s, problem by problem (definition D12); groups as in evaluations.';
COMMENT ON COLUMN eval_contrasts.eval_contrast_id IS 'Content key.';
COMMENT ON COLUMN eval_contrasts.run_id IS 'The run.';
COMMENT ON COLUMN eval_contrasts.arm IS 'heal, latest or given.';
COMMENT ON COLUMN eval_contrasts.against IS 'What it is compared with: equal_tokens, rejection_sampling or base.';
COMMENT ON COLUMN eval_contrasts.band IS 'all, or the teacher''s band of the held-out problems; all for a benchmark.';
COMMENT ON COLUMN eval_contrasts.benchmark IS 'run_problems.benchmark of the problems; null over those of all sources.';
COMMENT ON COLUMN eval_contrasts.num_problems IS 'Problems that both answered.';
COMMENT ON COLUMN eval_contrasts.difference IS 'Mean over problems of the difference of the shares of correct samples, in [-1, 1].';
COMMENT ON COLUMN eval_contrasts.low IS 'Lower end of its 95 % interval, by a bootstrap over problems. Null where resampling says nothing: one problem, or all with the same difference.';
COMMENT ON COLUMN eval_contrasts.high IS 'Upper end; null likewise.';
COMMENT ON COLUMN eval_contrasts.p_value IS 'Two-sided p-value of no difference, from the same resamples; null likewise.';
COMMENT ON COLUMN eval_contrasts.p_adjusted IS 'After Holm''s adjustment over all contrasts of the run but the primary one; of that p_value itself.';
COMMENT ON COLUMN eval_contrasts.is_primary IS 'True for heal against equal_tokens on the extremely hard, the contrast that was chosen beforehand.';
COMMENT ON COLUMN eval_contrasts.minimum_detectable_difference IS 'Difference that so many problems with this spread show with a power of 80 %; null likewise.';
COMMENT ON COLUMN eval_contrasts.is_powered IS 'Whether the difference is at least the minimum detectable one; false where that is not known.';

CREATE TABLE lm_eval_results (
    lm_eval_result_id VARCHAR NOT NULL,
    lm_eval_key VARCHAR NOT NULL,
    task VARCHAR NOT NULL,
    metric VARCHAR NOT NULL,
    filter VARCHAR NOT NULL,
    value DOUBLE NOT NULL,
    standard_error DOUBLE,
    higher_is_better BOOLEAN,
    num_samples INTEGER,
    num_fewshot INTEGER,
    task_version VARCHAR,
    task_hash VARCHAR,
    lm_eval_version VARCHAR NOT NULL,
    settings JSON NOT NULL,
    seconds DOUBLE NOT NULL,
    evaluated_at TIMESTAMPTZ NOT NULL
);
COMMENT ON TABLE lm_eval_results IS 'What lm-evaluation-harness measured: a row per task, metric and filter. Runs that evaluate the same student alike share them.';
COMMENT ON COLUMN lm_eval_results.lm_eval_result_id IS 'Content key.';
COMMENT ON COLUMN lm_eval_results.lm_eval_key IS 'Content key of the student, the settings, the task files of include_path and the versions of lm-eval, transformers and torch.';
COMMENT ON COLUMN lm_eval_results.task IS 'Task, group or tag, as lm-eval names it.';
COMMENT ON COLUMN lm_eval_results.metric IS 'Metric, such as acc or exact_match.';
COMMENT ON COLUMN lm_eval_results.filter IS 'The filter that answers went through, such as none or strict-match.';
COMMENT ON COLUMN lm_eval_results.value IS 'Its value, in the metric''s own unit.';
COMMENT ON COLUMN lm_eval_results.standard_error IS 'As lm-eval estimates it; null where it does not.';
COMMENT ON COLUMN lm_eval_results.higher_is_better IS 'As the task says; null where it does not.';
COMMENT ON COLUMN lm_eval_results.num_samples IS 'Problems that were evaluated; null where lm-eval does not say.';
COMMENT ON COLUMN lm_eval_results.num_fewshot IS 'Solved examples in each prompt; null for a group.';
COMMENT ON COLUMN lm_eval_results.task_version IS 'Version of the task; null for a group without one.';
COMMENT ON COLUMN lm_eval_results.task_hash IS 'lm-eval''s hash of all problems, prompts and targets; null for a group.';
COMMENT ON COLUMN lm_eval_results.lm_eval_version IS 'Version of lm-evaluation-harness.';
COMMENT ON COLUMN lm_eval_results.settings IS 'Everything that is in lm_eval_key.';
COMMENT ON COLUMN lm_eval_results.seconds IS 'Wall time of the evaluation that the row is from, all of its tasks together.';
COMMENT ON COLUMN lm_eval_results.evaluated_at IS 'When it ended.';

CREATE TABLE run_lm_evals (
    run_lm_eval_id VARCHAR NOT NULL,
    run_id VARCHAR NOT NULL,
    arm VARCHAR NOT NULL,
    lm_eval_key VARCHAR NOT NULL
);
COMMENT ON TABLE run_lm_evals IS 'Which evaluations by lm-evaluation-harness a run uses.';
COMMENT ON COLUMN run_lm_evals.run_lm_eval_id IS 'Content key.';
COMMENT ON COLUMN run_lm_evals.run_id IS 'The run.';
COMMENT ON COLUMN run_lm_evals.arm IS 'Whose student was evaluated: as in evaluations, without the teacher.';
COMMENT ON COLUMN run_lm_evals.lm_eval_key IS 'The evaluation, in lm_eval_results.';
