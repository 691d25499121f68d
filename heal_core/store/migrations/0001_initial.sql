-- The first schema. A migration is never edited after a release: add the next one.
-- Rows are only ever inserted; every table's first column is its content key.

CREATE TABLE parts (
    part_name VARCHAR NOT NULL,
    table_name VARCHAR NOT NULL,
    num_rows BIGINT NOT NULL,
    num_bytes BIGINT NOT NULL,
    merged_at TIMESTAMPTZ NOT NULL
);
COMMENT ON TABLE parts IS 'Ledger of the Parquet parts merged into this database; the parts are the durable truth.';
COMMENT ON COLUMN parts.part_name IS 'SHA-256 of the part''s bytes, 64 hexadecimal digits; the file is parts/<table_name>/<part_name>.parquet.';
COMMENT ON COLUMN parts.table_name IS 'Table its rows belong to.';
COMMENT ON COLUMN parts.num_rows IS 'Rows in the file; rows that were already known are not inserted again.';
COMMENT ON COLUMN parts.num_bytes IS 'Size of the file in bytes.';
COMMENT ON COLUMN parts.merged_at IS 'When the part was merged.';

CREATE TABLE problems (
    problem_id VARCHAR NOT NULL,
    question VARCHAR NOT NULL,
    answer VARCHAR NOT NULL,
    source VARCHAR NOT NULL,
    uuid VARCHAR NOT NULL,
    problem_type VARCHAR NOT NULL,
    chunk_index INTEGER NOT NULL
);
COMMENT ON TABLE problems IS 'One row per distinct problem ever loaded into this workspace.';
COMMENT ON COLUMN problems.problem_id IS 'Content key of question, answer and problem type.';
COMMENT ON COLUMN problems.question IS 'The problem text as it stands in the prompt.';
COMMENT ON COLUMN problems.answer IS 'The reference answer.';
COMMENT ON COLUMN problems.source IS 'Where the problem came from.';
COMMENT ON COLUMN problems.uuid IS 'The source''s own id, or an empty string.';
COMMENT ON COLUMN problems.problem_type IS 'How an answer is compared: math, numeric or exact.';
COMMENT ON COLUMN problems.chunk_index IS 'The group of problems it is worked on with; permanent.';

CREATE TABLE recipes (
    recipe_id VARCHAR NOT NULL,
    kind VARCHAR NOT NULL,
    model_name_or_path VARCHAR NOT NULL,
    settings JSON NOT NULL
);
COMMENT ON TABLE recipes IS 'What shapes a sampled text: model, weights, template, sampling, seed.';
COMMENT ON COLUMN recipes.recipe_id IS 'Content key of the settings.';
COMMENT ON COLUMN recipes.kind IS 'rollout, hint, guided, repair or score.';
COMMENT ON COLUMN recipes.model_name_or_path IS 'The model as the first run that used the recipe named it.';
COMMENT ON COLUMN recipes.settings IS 'Everything that is in the key.';

CREATE TABLE trajectories (
    trajectory_id VARCHAR NOT NULL,
    slot_id VARCHAR NOT NULL,
    kind VARCHAR NOT NULL,
    problem_id VARCHAR NOT NULL,
    parent_id VARCHAR,
    hint_id VARCHAR,
    recipe_id VARCHAR NOT NULL,
    sample_index INTEGER NOT NULL,
    limit_tokens INTEGER NOT NULL,
    prefix VARCHAR NOT NULL,
    text VARCHAR NOT NULL,
    finish_reason VARCHAR NOT NULL,
    num_prefix_tokens INTEGER NOT NULL,
    num_tokens INTEGER NOT NULL,
    num_prompt_tokens INTEGER NOT NULL,
    mean_entropy_nats DOUBLE,
    mean_logprob_nats DOUBLE,
    seconds DOUBLE NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    part_name VARCHAR NOT NULL
);
COMMENT ON TABLE trajectories IS 'Every sampled text: rollouts (of teacher and students), hints, guided samples, repairs.';
COMMENT ON COLUMN trajectories.trajectory_id IS 'Content key of slot_id and limit_tokens: one attempt at filling a slot.';
COMMENT ON COLUMN trajectories.slot_id IS 'Content key of kind, parents, recipe and sample_index: the place a sample fills.';
COMMENT ON COLUMN trajectories.kind IS 'rollout, hint, guided or repair.';
COMMENT ON COLUMN trajectories.problem_id IS 'The problem it is about.';
COMMENT ON COLUMN trajectories.parent_id IS 'For hints and repairs: the wrong rollout they belong to.';
COMMENT ON COLUMN trajectories.hint_id IS 'For repairs: the hint that was in the prompt.';
COMMENT ON COLUMN trajectories.recipe_id IS 'How it was sampled.';
COMMENT ON COLUMN trajectories.sample_index IS 'Which of the samples of the same parents, from 0.';
COMMENT ON COLUMN trajectories.limit_tokens IS 'The limit on sampled tokens of this attempt.';
COMMENT ON COLUMN trajectories.prefix IS 'For repairs: the kept steps of the wrong rollout; else empty.';
COMMENT ON COLUMN trajectories.text IS 'The sampled text; the whole response is prefix || text.';
COMMENT ON COLUMN trajectories.finish_reason IS 'stop (the model ended its turn) or length (cut at the limit).';
COMMENT ON COLUMN trajectories.num_prefix_tokens IS 'Tokens of the prefix.';
COMMENT ON COLUMN trajectories.num_tokens IS 'Sampled tokens, without the end-of-turn token.';
COMMENT ON COLUMN trajectories.num_prompt_tokens IS 'Tokens of the rendered prompt and prefix.';
COMMENT ON COLUMN trajectories.mean_entropy_nats IS 'Mean token entropy (definition D3), nats; null when no token was sampled.';
COMMENT ON COLUMN trajectories.mean_logprob_nats IS 'Mean log-probability of the sampled tokens at temperature 1, nats.';
COMMENT ON COLUMN trajectories.seconds IS 'Its share of the batch''s wall time.';
COMMENT ON COLUMN trajectories.created_at IS 'When it was stored.';
COMMENT ON COLUMN trajectories.part_name IS 'The part that holds its token arrays (see the view tokens).';

CREATE TABLE verdicts (
    verdict_id VARCHAR NOT NULL,
    trajectory_id VARCHAR NOT NULL,
    label VARCHAR NOT NULL,
    extracted VARCHAR,
    reason VARCHAR,
    verifier VARCHAR NOT NULL,
    verifier_version VARCHAR NOT NULL,
    seconds DOUBLE NOT NULL
);
COMMENT ON TABLE verdicts IS 'What a verifier said of a trajectory''s whole response.';
COMMENT ON COLUMN verdicts.verdict_id IS 'Content key of trajectory, verifier and version.';
COMMENT ON COLUMN verdicts.trajectory_id IS 'The trajectory.';
COMMENT ON COLUMN verdicts.label IS 'correct, wrong or unverifiable.';
COMMENT ON COLUMN verdicts.extracted IS 'The answer that was read from the text; null when there was none.';
COMMENT ON COLUMN verdicts.reason IS 'Why it is not correct; null when it is.';
COMMENT ON COLUMN verdicts.verifier IS 'Which verifier.';
COMMENT ON COLUMN verdicts.verifier_version IS 'Its version.';
COMMENT ON COLUMN verdicts.seconds IS 'Time it took.';

CREATE TABLE profiles (
    profile_id VARCHAR NOT NULL,
    trajectory_id VARCHAR NOT NULL,
    separator VARCHAR NOT NULL,
    num_steps INTEGER NOT NULL,
    step_start_chars INTEGER[] NOT NULL,
    step_start_tokens INTEGER[] NOT NULL,
    step_entropies DOUBLE[] NOT NULL,
    breakpoint_step INTEGER,
    surge_nats DOUBLE,
    window_size INTEGER,
    z_score DOUBLE,
    flat BOOLEAN
);
COMMENT ON TABLE profiles IS 'Entropy profile of a rollout: its steps, their mean entropies, and where it breaks.';
COMMENT ON COLUMN profiles.profile_id IS 'Content key of trajectory, step and breakpoint settings.';
COMMENT ON COLUMN profiles.trajectory_id IS 'The rollout.';
COMMENT ON COLUMN profiles.separator IS 'The step separator that was used.';
COMMENT ON COLUMN profiles.num_steps IS 'K, the number of steps.';
COMMENT ON COLUMN profiles.step_start_chars IS 'First character of each step.';
COMMENT ON COLUMN profiles.step_start_tokens IS 'First token of each step.';
COMMENT ON COLUMN profiles.step_entropies IS 'Mean token entropy of each step, nats (definition D5).';
COMMENT ON COLUMN profiles.breakpoint_step IS 'Index of the step with the largest surge, from 0; null when there is none.';
COMMENT ON COLUMN profiles.surge_nats IS 'The rise of mean entropy at the breakpoint, nats.';
COMMENT ON COLUMN profiles.window_size IS 'How many steps could have been chosen.';
COMMENT ON COLUMN profiles.z_score IS 'The surge against the others of its window.';
COMMENT ON COLUMN profiles.flat IS 'True when no rise was positive and the position is a convention.';

CREATE TABLE scores (
    score_id VARCHAR NOT NULL,
    trajectory_id VARCHAR NOT NULL,
    recipe_id VARCHAR NOT NULL,
    ratio DOUBLE,
    jump DOUBLE,
    reliance DOUBLE,
    step_perplexities DOUBLE[] NOT NULL,
    answer_uncertainties DOUBLE[] NOT NULL,
    span_start INTEGER NOT NULL,
    span_end INTEGER NOT NULL,
    reject_reason VARCHAR,
    num_scored_tokens INTEGER NOT NULL
);
COMMENT ON TABLE scores IS 'PURE terms and scores of a verified repair; higher means more shortcut-like.';
COMMENT ON COLUMN scores.score_id IS 'Content key of trajectory, scorer and settings.';
COMMENT ON COLUMN scores.trajectory_id IS 'What was scored.';
COMMENT ON COLUMN scores.recipe_id IS 'The scorer and its settings.';
COMMENT ON COLUMN scores.ratio IS 'Mean over the span of P_k / (U_k + epsilon) (definition D8).';
COMMENT ON COLUMN scores.jump IS 'Largest fall of answer uncertainty weighted by surprisal (definition D8).';
COMMENT ON COLUMN scores.reliance IS 'Mean gain in log-probability from the hint, nats per token (definition D8).';
COMMENT ON COLUMN scores.step_perplexities IS 'P_k of each step.';
COMMENT ON COLUMN scores.answer_uncertainties IS 'U_0 .. U_S over the S steps, nats per token.';
COMMENT ON COLUMN scores.span_start IS 'First step of the span (definition D7), from 0.';
COMMENT ON COLUMN scores.span_end IS 'One past its last step.';
COMMENT ON COLUMN scores.reject_reason IS 'Why no score could be given; null when there is one.';
COMMENT ON COLUMN scores.num_scored_tokens IS 'Tokens the scorer read for it.';

CREATE TABLE checkpoints (
    checkpoint_id VARCHAR NOT NULL,
    parent_checkpoint_id VARCHAR,
    stage VARCHAR NOT NULL,
    folder VARCHAR NOT NULL,
    num_examples INTEGER NOT NULL,
    num_dropped_over_long INTEGER NOT NULL,
    num_optimizer_steps INTEGER NOT NULL,
    num_tokens BIGINT NOT NULL,
    loss_first DOUBLE,
    loss_last DOUBLE,
    seconds DOUBLE NOT NULL,
    result JSON NOT NULL
);
COMMENT ON TABLE checkpoints IS 'One trained stage of SFT.';
COMMENT ON COLUMN checkpoints.checkpoint_id IS 'Content key of parent, ordered examples and settings.';
COMMENT ON COLUMN checkpoints.parent_checkpoint_id IS 'The stage before; null when it started from the base student.';
COMMENT ON COLUMN checkpoints.stage IS 'I, II or III.';
COMMENT ON COLUMN checkpoints.folder IS 'Hugging Face folder, relative to the workspace.';
COMMENT ON COLUMN checkpoints.num_examples IS 'Distinct examples trained on.';
COMMENT ON COLUMN checkpoints.num_dropped_over_long IS 'Examples longer than max_length, dropped.';
COMMENT ON COLUMN checkpoints.num_optimizer_steps IS 'Optimizer steps taken.';
COMMENT ON COLUMN checkpoints.num_tokens IS 'Tokens read, prompts included.';
COMMENT ON COLUMN checkpoints.loss_first IS 'Training loss at the first logged step, nats per token.';
COMMENT ON COLUMN checkpoints.loss_last IS 'Training loss at the last logged step, nats per token.';
COMMENT ON COLUMN checkpoints.seconds IS 'Wall time of the stage.';
COMMENT ON COLUMN checkpoints.result IS 'The child''s whole report: pre-flight, loss curve, versions.';

CREATE TABLE runs (
    run_id VARCHAR NOT NULL,
    config JSON NOT NULL,
    problems_digest VARCHAR NOT NULL,
    seed BIGINT NOT NULL,
    heal_version VARCHAR NOT NULL,
    git_revision VARCHAR,
    started_at TIMESTAMPTZ NOT NULL
);
COMMENT ON TABLE runs IS 'One row per distinct run: the same config on the same problems is the same run, resumed.';
COMMENT ON COLUMN runs.run_id IS 'Content key of config, problems and stage versions.';
COMMENT ON COLUMN runs.config IS 'The resolved config.';
COMMENT ON COLUMN runs.problems_digest IS 'Content key of the loaded problems and their splits.';
COMMENT ON COLUMN runs.seed IS 'The run''s seed.';
COMMENT ON COLUMN runs.heal_version IS 'Version of this package.';
COMMENT ON COLUMN runs.git_revision IS 'Commit of the working tree it was first started from; null outside one.';
COMMENT ON COLUMN runs.started_at IS 'When it was first started.';

CREATE TABLE run_events (
    event_id VARCHAR NOT NULL,
    run_id VARCHAR NOT NULL,
    event VARCHAR NOT NULL,
    phase VARCHAR,
    detail JSON,
    happened_at TIMESTAMPTZ NOT NULL
);
COMMENT ON TABLE run_events IS 'What happened to a run: started, phase, completed, failed.';
COMMENT ON COLUMN run_events.event_id IS 'Unique id.';
COMMENT ON COLUMN run_events.run_id IS 'The run.';
COMMENT ON COLUMN run_events.event IS 'started, phase, completed or failed.';
COMMENT ON COLUMN run_events.phase IS 'The phase that closed, for event phase.';
COMMENT ON COLUMN run_events.detail IS 'Counts, seconds or the error.';
COMMENT ON COLUMN run_events.happened_at IS 'When.';

CREATE TABLE run_problems (
    run_problem_id VARCHAR NOT NULL,
    run_id VARCHAR NOT NULL,
    problem_id VARCHAR NOT NULL,
    split VARCHAR NOT NULL,
    cluster_id VARCHAR NOT NULL
);
COMMENT ON TABLE run_problems IS 'The problems of a run and their split (definition D1).';
COMMENT ON COLUMN run_problems.run_problem_id IS 'Content key.';
COMMENT ON COLUMN run_problems.run_id IS 'The run.';
COMMENT ON COLUMN run_problems.problem_id IS 'The problem.';
COMMENT ON COLUMN run_problems.split IS 'train or held_out.';
COMMENT ON COLUMN run_problems.cluster_id IS 'Near-duplicates share it.';

CREATE TABLE run_rows (
    run_row_id VARCHAR NOT NULL,
    run_id VARCHAR NOT NULL,
    phase VARCHAR NOT NULL,
    arm VARCHAR NOT NULL,
    kind VARCHAR NOT NULL,
    row_id VARCHAR NOT NULL,
    cut BOOLEAN NOT NULL
);
COMMENT ON TABLE run_rows IS 'Which rows a run uses, written when a phase closes.';
COMMENT ON COLUMN run_rows.run_row_id IS 'Content key.';
COMMENT ON COLUMN run_rows.run_id IS 'The run.';
COMMENT ON COLUMN run_rows.phase IS 'The phase that uses the row: rollouts, hints, repairs, guided, equal_tokens, pure, training or evaluation.';
COMMENT ON COLUMN run_rows.arm IS 'For training and evaluation: the arm; else an empty string.';
COMMENT ON COLUMN run_rows.kind IS 'rollout, hint, guided, repair, score or checkpoint.';
COMMENT ON COLUMN run_rows.row_id IS 'trajectory_id, score_id or checkpoint_id.';
COMMENT ON COLUMN run_rows.cut IS 'The row counts as truncated in this run.';

CREATE TABLE decisions (
    decision_id VARCHAR NOT NULL,
    run_id VARCHAR NOT NULL,
    phase VARCHAR NOT NULL,
    subject_id VARCHAR NOT NULL,
    problem_id VARCHAR NOT NULL,
    decision VARCHAR NOT NULL,
    reason VARCHAR,
    value DOUBLE
);
COMMENT ON TABLE decisions IS 'Set-level decisions of a run: bands, gates, PURE, cap.';
COMMENT ON COLUMN decisions.decision_id IS 'Content key.';
COMMENT ON COLUMN decisions.run_id IS 'The run.';
COMMENT ON COLUMN decisions.phase IS 'band, path, hint_gate, gate, gate_base (base rollouts, counted only), pure_threshold (of the run), pure or cap.';
COMMENT ON COLUMN decisions.subject_id IS 'The problem or trajectory decided on.';
COMMENT ON COLUMN decisions.problem_id IS 'Its problem.';
COMMENT ON COLUMN decisions.decision IS 'A band, or kept or dropped.';
COMMENT ON COLUMN decisions.reason IS 'Why it was dropped; null when kept.';
COMMENT ON COLUMN decisions.value IS 'The number it rests on: pass rate, PURE score.';

CREATE TABLE stage_examples (
    stage_example_id VARCHAR NOT NULL,
    run_id VARCHAR NOT NULL,
    arm VARCHAR NOT NULL,
    stage VARCHAR NOT NULL,
    position INTEGER NOT NULL,
    trajectory_id VARCHAR NOT NULL,
    problem_id VARCHAR NOT NULL
);
COMMENT ON TABLE stage_examples IS 'What each stage of each arm trains on, in order.';
COMMENT ON COLUMN stage_examples.stage_example_id IS 'Content key.';
COMMENT ON COLUMN stage_examples.run_id IS 'The run.';
COMMENT ON COLUMN stage_examples.arm IS 'heal, rejection_sampling or equal_tokens.';
COMMENT ON COLUMN stage_examples.stage IS 'I, II or III.';
COMMENT ON COLUMN stage_examples.position IS 'Place in the stage''s order, from 0.';
COMMENT ON COLUMN stage_examples.trajectory_id IS 'The example.';
COMMENT ON COLUMN stage_examples.problem_id IS 'Its problem.';

CREATE TABLE evaluations (
    evaluation_id VARCHAR NOT NULL,
    run_id VARCHAR NOT NULL,
    arm VARCHAR NOT NULL,
    band VARCHAR NOT NULL,
    k INTEGER NOT NULL,
    num_problems INTEGER NOT NULL,
    avg_at_k DOUBLE NOT NULL,
    standard_error DOUBLE,
    pass_at_k DOUBLE NOT NULL,
    truncated_share DOUBLE NOT NULL,
    no_answer_share DOUBLE NOT NULL
);
COMMENT ON TABLE evaluations IS 'Scores on the held-out problems, per arm and band.';
COMMENT ON COLUMN evaluations.evaluation_id IS 'Content key.';
COMMENT ON COLUMN evaluations.run_id IS 'The run.';
COMMENT ON COLUMN evaluations.arm IS 'teacher, base, rejection_sampling, equal_tokens or heal.';
COMMENT ON COLUMN evaluations.band IS 'all, or the teacher''s band of the held-out problems.';
COMMENT ON COLUMN evaluations.k IS 'Samples per problem.';
COMMENT ON COLUMN evaluations.num_problems IS 'Problems averaged over.';
COMMENT ON COLUMN evaluations.avg_at_k IS 'Mean share of correct samples, in [0, 1].';
COMMENT ON COLUMN evaluations.standard_error IS 'Standard deviation of per-problem means over sqrt(problems); null for one problem.';
COMMENT ON COLUMN evaluations.pass_at_k IS 'Share of problems with at least one correct sample.';
COMMENT ON COLUMN evaluations.truncated_share IS 'Share of samples cut at max_tokens.';
COMMENT ON COLUMN evaluations.no_answer_share IS 'Share of samples without an answer.';

CREATE TABLE quarantine (
    quarantine_id VARCHAR NOT NULL,
    run_id VARCHAR NOT NULL,
    source VARCHAR NOT NULL,
    line INTEGER NOT NULL,
    reason VARCHAR NOT NULL,
    raw VARCHAR NOT NULL
);
COMMENT ON TABLE quarantine IS 'Rows of a source that could not become problems.';
COMMENT ON COLUMN quarantine.quarantine_id IS 'Content key.';
COMMENT ON COLUMN quarantine.run_id IS 'The run that met it.';
COMMENT ON COLUMN quarantine.source IS 'The file.';
COMMENT ON COLUMN quarantine.line IS 'Line, from 1.';
COMMENT ON COLUMN quarantine.reason IS 'What is wrong with it.';
COMMENT ON COLUMN quarantine.raw IS 'The row as it stands, bounded.';
