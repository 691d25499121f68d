-- Problems come from any number of sources, of whose rows some are left out on purpose.

CREATE TABLE run_sources (
    run_source_id VARCHAR NOT NULL,
    run_id VARCHAR NOT NULL,
    position INTEGER NOT NULL,
    source VARCHAR NOT NULL,
    split VARCHAR NOT NULL,
    num_read BIGINT NOT NULL,
    num_filtered_out BIGINT NOT NULL,
    num_not_sampled BIGINT NOT NULL,
    num_quarantined BIGINT NOT NULL,
    num_problems BIGINT NOT NULL
);
COMMENT ON TABLE run_sources IS 'What became of the rows of each source when the run first started; num_read is the sum of the four others.';
COMMENT ON COLUMN run_sources.run_source_id IS 'Content key.';
COMMENT ON COLUMN run_sources.run_id IS 'The run.';
COMMENT ON COLUMN run_sources.position IS 'Order of the sources in the settings, from 0.';
COMMENT ON COLUMN run_sources.source IS 'Its path, dataset or function.';
COMMENT ON COLUMN run_sources.split IS 'The side its problems are on: train, held_out, or hash where the problem decides.';
COMMENT ON COLUMN run_sources.num_read IS 'Rows read.';
COMMENT ON COLUMN run_sources.num_filtered_out IS 'Rows for which the filter is not true.';
COMMENT ON COLUMN run_sources.num_not_sampled IS 'Rows that passed the filter and were not drawn.';
COMMENT ON COLUMN run_sources.num_quarantined IS 'Rows in quarantine: unreadable, no problem, the same as another, or one that would leak a held-out problem.';
COMMENT ON COLUMN run_sources.num_problems IS 'Rows that are problems of the run.';
COMMENT ON COLUMN quarantine.source IS 'The file, URL, dataset or function.';
COMMENT ON COLUMN quarantine.line IS 'Line of a text file in which the row begins, else its number, from 1; null for a problem.';
