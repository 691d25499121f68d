-- Rollouts that were written elsewhere are taken in: from which files, and what became of each text.

CREATE TABLE imports (
    import_id VARCHAR NOT NULL,
    source VARCHAR NOT NULL,
    file_digest VARCHAR NOT NULL,
    format VARCHAR NOT NULL,
    model VARCHAR,
    teacher_key VARCHAR NOT NULL,
    problems_digest VARCHAR NOT NULL,
    num_read BIGINT NOT NULL,
    num_imported BIGINT NOT NULL,
    num_there BIGINT NOT NULL,
    num_unmatched BIGINT NOT NULL,
    num_quarantined BIGINT NOT NULL,
    imported_at TIMESTAMPTZ NOT NULL
);
COMMENT ON TABLE imports IS 'Each file of rollouts that was taken in to its end; num_read is the sum of the four others.';
COMMENT ON COLUMN imports.import_id IS 'Content key of the file''s place and bytes, format, model, teacher, problems, columns and version of HEAL: the same import again is the same row.';
COMMENT ON COLUMN imports.source IS 'The file, as it was named.';
COMMENT ON COLUMN imports.file_digest IS 'SHA-256 of its bytes, unpacked.';
COMMENT ON COLUMN imports.format IS 'openr1 or nemo-skills.';
COMMENT ON COLUMN imports.model IS 'Who wrote the texts, as the command said it; null where it was left to the rows.';
COMMENT ON COLUMN imports.teacher_key IS 'Content key of the teacher that read them; what it is stands in recipes.settings.';
COMMENT ON COLUMN imports.problems_digest IS 'Content key of the problems that they were looked up in.';
COMMENT ON COLUMN imports.num_read IS 'Generations read; a row that holds none counts as one.';
COMMENT ON COLUMN imports.num_imported IS 'Those that no import before had brought.';
COMMENT ON COLUMN imports.num_there IS 'Those that were there already.';
COMMENT ON COLUMN imports.num_unmatched IS 'Those of other problems, or with another reference answer.';
COMMENT ON COLUMN imports.num_quarantined IS 'Those in import_quarantine.';
COMMENT ON COLUMN imports.imported_at IS 'When the import came to its end.';

CREATE TABLE import_rows (
    import_row_id VARCHAR NOT NULL,
    import_id VARCHAR NOT NULL,
    source VARCHAR NOT NULL,
    line BIGINT NOT NULL,
    generation_index INTEGER NOT NULL,
    trajectory_id VARCHAR NOT NULL
);
COMMENT ON TABLE import_rows IS 'Where each imported rollout stands; one that several imports met has a row for each.';
COMMENT ON COLUMN import_rows.import_row_id IS 'Content key.';
COMMENT ON COLUMN import_rows.import_id IS 'The import; it is in imports once it came to its end.';
COMMENT ON COLUMN import_rows.source IS 'The file, as it was named.';
COMMENT ON COLUMN import_rows.line IS 'Line of a text file, else the row''s number, from 1.';
COMMENT ON COLUMN import_rows.generation_index IS 'Which of the row''s generations, from 0.';
COMMENT ON COLUMN import_rows.trajectory_id IS 'The rollout.';

CREATE TABLE import_quarantine (
    import_quarantine_id VARCHAR NOT NULL,
    import_id VARCHAR NOT NULL,
    source VARCHAR NOT NULL,
    line BIGINT NOT NULL,
    generation_index INTEGER NOT NULL,
    reason VARCHAR NOT NULL,
    raw VARCHAR NOT NULL
);
COMMENT ON TABLE import_quarantine IS 'Generations that could not be taken in.';
COMMENT ON COLUMN import_quarantine.import_quarantine_id IS 'Content key.';
COMMENT ON COLUMN import_quarantine.import_id IS 'The import; it is in imports once it came to its end.';
COMMENT ON COLUMN import_quarantine.source IS 'The file, as it was named.';
COMMENT ON COLUMN import_quarantine.line IS 'Line of a text file, else the row''s number, from 1.';
COMMENT ON COLUMN import_quarantine.generation_index IS 'Which of the row''s generations, from 0.';
COMMENT ON COLUMN import_quarantine.reason IS 'What is wrong with it: a code, and what was seen.';
COMMENT ON COLUMN import_quarantine.raw IS 'The text, or the row where it could not be read; bounded.';

COMMENT ON COLUMN recipes.recipe_id IS 'Content key of the settings.';
COMMENT ON COLUMN recipes.kind IS 'rollout, hint, guided, repair, score, or imported: texts that were written elsewhere.';
COMMENT ON COLUMN recipes.model_name_or_path IS 'The model as the first run that used the recipe named it; of imported texts the one that is said to have written them.';
COMMENT ON COLUMN trajectories.slot_id IS 'Content key of kind, parents, recipe and sample_index: the place a sample fills. Of an imported rollout: of problem, recipe, text, and how often the text came before in its file.';
COMMENT ON COLUMN trajectories.sample_index IS 'Which of the samples of the same parents and recipe, from 0; imported ones in the order in which they came.';
COMMENT ON COLUMN trajectories.limit_tokens IS 'The limit on sampled tokens of this attempt; 0 for imported rollouts, of which nobody knows it.';
COMMENT ON COLUMN trajectories.recipe_id IS 'How it was sampled, or that it was imported.';
COMMENT ON COLUMN trajectories.seconds IS 'Its share of the batch''s wall time; of an imported rollout, that of reading it.';
