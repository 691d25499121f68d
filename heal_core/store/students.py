"""Links by which people find trained students: `students/ARM/stage-I` of the newest run, and `students/latest`.

They follow from the store, and are made anew whenever it says so. What does not belong
here: deciding what is promoted (`heal_core.promotion`).
"""

from __future__ import annotations

import os
from pathlib import Path

from heal_core.store.reads import read_promoted
from heal_core.store.store import Store


def link_stages(store: Store, run_id: str) -> None:
    """Let `students/ARM/stage-STAGE` lead to the stages of a run, as far as they are trained."""
    rows = store.rows(
        "SELECT r.arm, c.stage, c.folder FROM run_rows r JOIN checkpoints c ON c.checkpoint_id = r.row_id "
        "WHERE r.run_id = ? AND r.phase = 'training' ORDER BY ALL",
        [run_id],
    )
    for row in rows:
        _link(store.workspace.students / row["arm"] / f"stage-{row['stage']}", store.workspace.root / row["folder"])


def link_newest(store: Store) -> None:
    """Make all links anew: to the stages of the last run that trained any, and to the latest promoted student."""
    runs = store.rows(
        "SELECT run_id FROM runs WHERE run_id IN (SELECT run_id FROM run_rows WHERE phase = 'training') "
        "ORDER BY rowid DESC LIMIT 1"
    )
    for run in runs:
        link_stages(store, run["run_id"])
    link_latest(store)


def link_latest(store: Store) -> None:
    """Let `students/latest` lead to the student that was promoted last."""
    link, promoted = store.workspace.students / "latest", read_promoted(store)
    if promoted is not None:
        _link(link, store.workspace.checkpoints / promoted["checkpoint_id"])
    if link.is_symlink() and not link.exists():
        link.unlink()


def _link(link: Path, folder: Path) -> None:
    """Replace a link atomically; a folder that is gone gets none."""
    if not folder.is_dir():
        return
    link.parent.mkdir(parents=True, exist_ok=True)
    temporary = link.with_name(f"{link.name}.tmp")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(os.path.relpath(folder, link.parent))
    temporary.replace(link)
