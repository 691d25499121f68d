"""The view `tokens`: token arrays of the trajectories, read from the parts that hold them.

What does not belong here: the other views (`views.sql`), and reading arrays for the pipeline (`reads`).
"""

from __future__ import annotations

import duckdb

from heal_core.errors import StoreError
from heal_core.store import durable
from heal_core.store.database import is_disk_full
from heal_core.store.workspace import Workspace

PARTS_VARIABLE = "heal_parts"
"""DuckDB variable that tells the view another place of the trajectory parts than the writer's."""

_ARRAYS = "token_ids, logprobs, entropies, token_starts"
_EMPTY = """
SELECT NULL::VARCHAR AS trajectory_id, NULL::INT[] AS token_ids, NULL::FLOAT[] AS logprobs,
       NULL::FLOAT[] AS entropies, NULL::INT[] AS token_starts, NULL::FLOAT[] AS entropy_radii
WHERE false
"""
_COMMENTS = """
COMMENT ON VIEW tokens IS 'Token arrays of each trajectory, aligned, one entry per sampled token; read from the parts.';
COMMENT ON COLUMN tokens.trajectory_id IS 'The trajectory.';
COMMENT ON COLUMN tokens.token_ids IS 'Sampled token ids, the end-of-turn token not included.';
COMMENT ON COLUMN tokens.logprobs IS 'Log-probability of each token at temperature 1 before top-p, nats.';
COMMENT ON COLUMN tokens.entropies IS 'Entropy of the next-token distribution at temperature 1 (definition D3), nats.';
COMMENT ON COLUMN tokens.token_starts IS 'Character of the text at which each token begins, from 0.';
COMMENT ON COLUMN tokens.entropy_radii IS 'Half the width of its certified interval, nats; null where it is exact.';
"""


def define_tokens_view(connection: duckdb.DuckDBPyConnection, workspace: Workspace) -> None:
    """Point the view at the trajectory parts; without any it has no rows.

    Two parts may hold the same row; only the one that was merged first counts. A reader of
    a copy that was moved says with a variable where the parts are now.

    Raises:
        StoreError: If a part cannot be read, or the disk is full.
    """
    folder = workspace.parts / "trajectories"
    try:
        source = _source(connection, workspace) if any(folder.glob("*.parquet")) else _EMPTY
        connection.execute(f"CREATE OR REPLACE VIEW tokens AS {source}; {_COMMENTS}")
    except duckdb.Error as error:
        if is_disk_full(error):
            raise durable.disk_full(workspace.writer_database) from error
        raise StoreError(
            f"a part in {folder} cannot be read ({str(error).splitlines()[0]}). `heal store check --workspace "
            f"{workspace.root}` says which one and what to do."
        ) from error


def _source(connection: duckdb.DuckDBPyConnection, workspace: Workspace) -> str:
    pattern = str(workspace.parts / "trajectories" / "*.parquet").replace("'", "''")
    files = f"coalesce(getvariable('{PARTS_VARIABLE}'), '{pattern}')"
    # parts from before schema 0008 lack the radii, and to bring files of several kinds together all must be opened
    # for every query: seven times the time, so that it is done only where a row has any
    has_radii = connection.execute("SELECT 1 FROM trajectories WHERE entropy_source <> 'exact' LIMIT 1").fetchone()
    radii, union = ("entropy_radii", "true") if has_radii else ("NULL::FLOAT[] AS entropy_radii", "false")
    return (
        f"SELECT trajectory_id, {_ARRAYS}, {radii} FROM trajectories t "
        f"JOIN read_parquet({files}, union_by_name = {union}, filename = true) p USING (trajectory_id) "
        "WHERE parse_filename(p.filename, true) = t.part_name"
    )
