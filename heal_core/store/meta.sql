-- What a database knows of itself; made before any migration is applied.

CREATE TABLE IF NOT EXISTS migrations (name VARCHAR, applied_at TIMESTAMPTZ);
COMMENT ON TABLE migrations IS 'The changes of the schema that this database has seen.';
COMMENT ON COLUMN migrations.name IS 'File name of the migration, without .sql.';
COMMENT ON COLUMN migrations.applied_at IS 'When it was applied.';

CREATE TABLE IF NOT EXISTS meta (key VARCHAR, value VARCHAR);
COMMENT ON TABLE meta IS 'Facts about this database file.';
COMMENT ON COLUMN meta.key IS 'store_epoch: names this file; a rebuilt one has another. views: digest of the script that defined them.';
COMMENT ON COLUMN meta.value IS 'Its value.';
