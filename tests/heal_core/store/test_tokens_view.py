from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from heal_core.plan import Slot
from heal_core.store.parts import ENTROPY_RADII, list_parts, write_part
from heal_core.store.reads import read_tokens
from heal_core.store.store import Store
from heal_core.store.workspace import Workspace

LATE = {"entropy_source", "num_cached_tokens", ENTROPY_RADII.name}
"""What parts from before schema 0008 lack."""


def append(store: Store, rows: list[dict[str, Any]]) -> None:
    store.append("trajectories", rows)
    store.publish(force=True)


def radii_of(store: Store) -> dict[str, Any]:
    return {row["trajectory_id"]: row["entropy_radii"] for row in store.rows("FROM tokens ORDER BY trajectory_id")}


def test_radii_are_shown_beside_parts_that_lack_them(
    workspace: Workspace, make_slot: Callable[..., Slot], make_rows: Callable[..., list[dict[str, Any]]]
) -> None:
    (old,), (exact,), (served,) = (make_rows([make_slot(index=index)]) for index in range(3))
    with workspace.lock(), Store(workspace) as store:
        append(store, [old])
    (part,) = list_parts(workspace.parts)
    table = pq.read_table(part.path)
    aged = table.select([name for name in table.column_names if name not in LATE])
    workspace.writer_database.unlink()
    part.path.unlink()
    write_part(workspace.parts, "trajectories", aged, 1, "0007_imports")
    with workspace.lock(), Store(workspace) as store:
        assert radii_of(store) == {old["trajectory_id"]: None}
        append(store, [exact])
        assert radii_of(store) == {old["trajectory_id"]: None, exact["trajectory_id"]: None}
        radii = np.full(len(served["token_ids"]), 0.25, dtype=np.float32)
        append(store, [served | {"entropy_source": "top_20", "entropy_radii": radii}])
        found = radii_of(store)
        assert found[served["trajectory_id"]] == [0.25] * len(radii)
        assert [found[row["trajectory_id"]] for row in (old, exact)] == [None, None]
        tokens = read_tokens(store, [row["trajectory_id"] for row in (old, exact, served)])
    assert tokens[old["trajectory_id"]].entropy_source == "exact"
    assert tokens[served["trajectory_id"]].entropy_source == "top_20"
    assert tokens[served["trajectory_id"]].entropy_radii is not None
