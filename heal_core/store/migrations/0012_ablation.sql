-- Controls B3 to B8 within a run, and ablations: several runs, one per seed, compared.

ALTER TABLE decisions ADD COLUMN arm VARCHAR;
COMMENT ON COLUMN decisions.arm IS 'The control that it is about, in the phases named control_*; null in all others, which are HEAL''s own.';

CREATE TABLE ablations (
    ablation_id VARCHAR NOT NULL,
    config VARCHAR NOT NULL,
    settings VARCHAR NOT NULL,
    heal_version VARCHAR NOT NULL,
    git_revision VARCHAR
);
COMMENT ON TABLE ablations IS 'Comparisons of HEAL with its controls over seeds, by heal ablate.';
COMMENT ON COLUMN ablations.ablation_id IS 'Content key of its runs, 12 hexadecimal digits.';
COMMENT ON COLUMN ablations.config IS 'The config that all its runs are made from, as JSON.';
COMMENT ON COLUMN ablations.settings IS 'Seeds, arms, what a seed reseeds and the ceiling''s samples, as JSON.';
COMMENT ON COLUMN ablations.heal_version IS 'Version of HEAL that compared them first.';
COMMENT ON COLUMN ablations.git_revision IS 'Its revision; null outside of a repository.';

CREATE TABLE ablation_runs (
    ablation_run_id VARCHAR NOT NULL,
    ablation_id VARCHAR NOT NULL,
    position INTEGER NOT NULL,
    seed INTEGER NOT NULL,
    run_id VARCHAR NOT NULL
);
COMMENT ON TABLE ablation_runs IS 'The runs of an ablation, one per seed.';
COMMENT ON COLUMN ablation_runs.ablation_run_id IS 'Content key.';
COMMENT ON COLUMN ablation_runs.ablation_id IS 'The ablation.';
COMMENT ON COLUMN ablation_runs.position IS 'Order of the seeds, from 0.';
COMMENT ON COLUMN ablation_runs.seed IS 'The seed.';
COMMENT ON COLUMN ablation_runs.run_id IS 'Its run.';

CREATE TABLE ablation_scores (
    ablation_score_id VARCHAR NOT NULL,
    ablation_id VARCHAR NOT NULL,
    arm VARCHAR NOT NULL,
    band VARCHAR NOT NULL,
    k INTEGER NOT NULL,
    num_seeds INTEGER NOT NULL,
    num_problems INTEGER NOT NULL,
    avg_at_k DOUBLE NOT NULL,
    low DOUBLE,
    high DOUBLE,
    gap_closed DOUBLE,
    truncated_share DOUBLE NOT NULL,
    num_beyond_teacher DOUBLE NOT NULL
);
COMMENT ON TABLE ablation_scores IS 'Scores on the held-out problems over all seeds of an ablation, per arm and band.';
COMMENT ON COLUMN ablation_scores.ablation_score_id IS 'Content key.';
COMMENT ON COLUMN ablation_scores.ablation_id IS 'The ablation.';
COMMENT ON COLUMN ablation_scores.arm IS 'teacher, base (the untrained student), heal, or a control.';
COMMENT ON COLUMN ablation_scores.band IS 'all, or the band that the seed''s teacher gives the held-out problem.';
COMMENT ON COLUMN ablation_scores.k IS 'Samples per problem and seed.';
COMMENT ON COLUMN ablation_scores.num_seeds IS 'Seeds.';
COMMENT ON COLUMN ablation_scores.num_problems IS 'Distinct problems that are in the band with a seed at least.';
COMMENT ON COLUMN ablation_scores.avg_at_k IS 'Mean over seeds x problems of the share of correct samples, in [0, 1].';
COMMENT ON COLUMN ablation_scores.low IS 'Lower end of its 95 % bootstrap interval over seeds x problems; null for one problem.';
COMMENT ON COLUMN ablation_scores.high IS 'Upper end; null likewise.';
COMMENT ON COLUMN ablation_scores.gap_closed IS 'Share of the gap between untrained student (0) and teacher (1) that the arm closed; null where the teacher is not above the student.';
COMMENT ON COLUMN ablation_scores.truncated_share IS 'Share of samples cut at the limit or given up, in [0, 1].';
COMMENT ON COLUMN ablation_scores.num_beyond_teacher IS 'Held-out problems that the arm solved and the seed''s teacher never did in its k samples, mean over seeds.';

CREATE TABLE ablation_contrasts (
    ablation_contrast_id VARCHAR NOT NULL,
    ablation_id VARCHAR NOT NULL,
    measure VARCHAR NOT NULL,
    arm VARCHAR NOT NULL,
    against VARCHAR NOT NULL,
    band VARCHAR NOT NULL,
    num_seeds INTEGER NOT NULL,
    num_problems INTEGER NOT NULL,
    num_pairs INTEGER NOT NULL,
    value DOUBLE NOT NULL,
    value_against DOUBLE NOT NULL,
    difference DOUBLE NOT NULL,
    low DOUBLE,
    high DOUBLE,
    t_low DOUBLE,
    t_high DOUBLE,
    p_value DOUBLE,
    p_adjusted DOUBLE,
    is_primary BOOLEAN NOT NULL,
    is_claim BOOLEAN NOT NULL,
    minimum_detectable_difference DOUBLE,
    is_powered BOOLEAN NOT NULL
);
COMMENT ON TABLE ablation_contrasts IS 'HEAL minus a control over all seeds of an ablation, on the same problems with the same seeds (definition D12).';
COMMENT ON COLUMN ablation_contrasts.ablation_contrast_id IS 'Content key.';
COMMENT ON COLUMN ablation_contrasts.ablation_id IS 'The ablation.';
COMMENT ON COLUMN ablation_contrasts.measure IS 'avg@k: of the students on held-out problems. verified: the share of verified continuations of the wrong paths that both arms continued.';
COMMENT ON COLUMN ablation_contrasts.arm IS 'heal.';
COMMENT ON COLUMN ablation_contrasts.against IS 'base (the untrained student) or a control.';
COMMENT ON COLUMN ablation_contrasts.band IS 'all, or the band that the seed''s teacher gives the problem.';
COMMENT ON COLUMN ablation_contrasts.num_seeds IS 'Seeds with such problems.';
COMMENT ON COLUMN ablation_contrasts.num_problems IS 'Distinct problems.';
COMMENT ON COLUMN ablation_contrasts.num_pairs IS 'Seeds x problems that the difference is the mean of.';
COMMENT ON COLUMN ablation_contrasts.value IS 'Of HEAL, in [0, 1].';
COMMENT ON COLUMN ablation_contrasts.value_against IS 'Of the other, in [0, 1].';
COMMENT ON COLUMN ablation_contrasts.difference IS 'value minus value_against, in [-1, 1].';
COMMENT ON COLUMN ablation_contrasts.low IS 'Lower end of the 95 % bootstrap interval over seeds x problems; null where all differ alike.';
COMMENT ON COLUMN ablation_contrasts.high IS 'Upper end; null likewise.';
COMMENT ON COLUMN ablation_contrasts.t_low IS 'Lower end of the 95 % t interval over the means of seeds; null with one seed.';
COMMENT ON COLUMN ablation_contrasts.t_high IS 'Upper end; null likewise.';
COMMENT ON COLUMN ablation_contrasts.p_value IS 'Two-sided, of no difference, by the bootstrap; null where low is.';
COMMENT ON COLUMN ablation_contrasts.p_adjusted IS 'After Holm over the others of the measure; of the primary one p_value itself.';
COMMENT ON COLUMN ablation_contrasts.is_primary IS 'True for avg@k of heal against equal_tokens on the extremely hard, the contrast that was chosen beforehand.';
COMMENT ON COLUMN ablation_contrasts.is_claim IS 'Both intervals exclude 0 and p_adjusted is below 0.05.';
COMMENT ON COLUMN ablation_contrasts.minimum_detectable_difference IS 'Smallest true difference that this design finds with a power of 80 %; null where low is.';
COMMENT ON COLUMN ablation_contrasts.is_powered IS 'The difference is at least that large.';

COMMENT ON COLUMN run_rows.phase IS 'The phase that uses the row: rollouts, hints, repairs, guided, pure, equal_tokens, ceiling, control_hints, control_repairs, control_pure, training, evaluation or promotion; of a validity test validity_hints, validity_natural, validity_rationales, validity_built or validity_scores.';
COMMENT ON COLUMN run_rows.arm IS 'For training, evaluation and promotion: whose student; in the phases of controls: which control; of a validity test its validity_id; else an empty string.';
COMMENT ON COLUMN stage_examples.arm IS 'heal or a control: rejection_sampling, equal_tokens, without_repairs, unhinted, random_breakpoint, random_drop, shuffled, mismatched_hint, answer_told.';
COMMENT ON COLUMN decisions.phase IS 'band, breakpoint (of rollouts whose entropies are not exact), path, hint_gate, quota (per problem with hinted paths, where repair.quota is set), gate, gate_base (base rollouts, counted only), pure_score (of a run with pure.score: auto), pure_threshold (of the run), pure or cap; of controls control_path, control_hint_gate, control_gate, control_pure or control_cap.';
COMMENT ON COLUMN run_rows.kind IS 'rollout, hint, guided, repair, continuation, shortcut, score, control_score, validity_score (the last three in scores) or checkpoint.';
