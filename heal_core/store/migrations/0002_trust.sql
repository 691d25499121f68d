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
