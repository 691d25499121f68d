-- What every gate found in every text that was examined, and what people say of repairs (heal audit).

CREATE TABLE gate_results (
    gate_result_id VARCHAR NOT NULL,
    run_id VARCHAR NOT NULL,
    phase VARCHAR NOT NULL,
    arm VARCHAR,
    trajectory_id VARCHAR NOT NULL,
    problem_id VARCHAR NOT NULL,
    gates VARCHAR[] NOT NULL,
    refused BOOLEAN[] NOT NULL,
    gate_values DOUBLE[] NOT NULL,
    details VARCHAR[] NOT NULL
);
COMMENT ON TABLE gate_results IS 'What every gate found in a text, those that do not refuse in the run too. The view gate_findings has a row per gate.';
COMMENT ON COLUMN gate_results.gate_result_id IS 'Content key.';
COMMENT ON COLUMN gate_results.run_id IS 'The run.';
COMMENT ON COLUMN gate_results.phase IS 'Where the text is from, as in run_rows: hints, repairs, guided, rollouts (for comparison), control_hints or control_repairs.';
COMMENT ON COLUMN gate_results.arm IS 'For control_hints and control_repairs: which control; else null.';
COMMENT ON COLUMN gate_results.trajectory_id IS 'The text.';
COMMENT ON COLUMN gate_results.problem_id IS 'Its problem.';
COMMENT ON COLUMN gate_results.gates IS 'The gates in their order: G1, or empty, for a hint; G2 to G10 for a verified text.';
COMMENT ON COLUMN gate_results.refused IS 'For each gate whether it refuses the text; null where it says nothing.';
COMMENT ON COLUMN gate_results.gate_values IS 'For each gate what it measured; null where it only looks for something. See gate_findings.';
COMMENT ON COLUMN gate_results.details IS 'For each gate what it saw where it refuses; else null.';

CREATE TABLE audit_labels (
    audit_label_id VARCHAR NOT NULL,
    run_id VARCHAR NOT NULL,
    trajectory_id VARCHAR NOT NULL,
    problem_id VARCHAR NOT NULL,
    auditor VARCHAR NOT NULL,
    label VARCHAR NOT NULL,
    note VARCHAR,
    hint_shown BOOLEAN NOT NULL,
    labelled_at TIMESTAMPTZ NOT NULL
);
COMMENT ON TABLE audit_labels IS 'What people said of repairs that they read blind (heal audit). A label that was changed is a new row: the last one of an auditor counts.';
COMMENT ON COLUMN audit_labels.audit_label_id IS 'Unique id.';
COMMENT ON COLUMN audit_labels.run_id IS 'The run whose repairs were read.';
COMMENT ON COLUMN audit_labels.trajectory_id IS 'The repair.';
COMMENT ON COLUMN audit_labels.problem_id IS 'Its problem.';
COMMENT ON COLUMN audit_labels.auditor IS 'Who read it, as the option --auditor names them.';
COMMENT ON COLUMN audit_labels.label IS 'genuine (it reasons its way to the answer), shortcut (it leans on the answer) or unsure.';
COMMENT ON COLUMN audit_labels.note IS 'What the auditor wrote to it; null without.';
COMMENT ON COLUMN audit_labels.hint_shown IS 'Whether the hint had been shown before the label was given.';
COMMENT ON COLUMN audit_labels.labelled_at IS 'When.';
