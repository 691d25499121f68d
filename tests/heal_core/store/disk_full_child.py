"""Fill a small disk by storing rows, then free some of it and go on. Run by `test_disk_full` in a tmpfs of its own.

Prints JSON: what was said at each refusal, and whether the store was whole afterwards.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from heal_core.errors import StoreError
from heal_core.store.check import check_store
from heal_core.store.store import Store
from heal_core.store.workspace import Workspace

NUM_BYTES = 100_000


def row(number: int) -> dict[str, Any]:
    """Return a row that does not compress."""
    return {
        "quarantine_id": f"q{number}", "run_id": "run", "source": "s", "line": number, "reason": "r",
        "raw": os.urandom(NUM_BYTES // 2).hex(), "problem_id": None, "phase": None, "work": None,
        "quarantined_at": None,
    }  # fmt: skip


def fill(workspace: Workspace) -> tuple[int, str]:
    """Return how many rows were acknowledged, and what was said when no more would fit."""
    stored = 0
    try:
        with Store(workspace) as store:
            for stored in range(10_000):
                store.append("quarantine", [row(stored)])
    except StoreError as error:
        return stored, str(error)
    raise AssertionError("the disk is too large for this test")


def main(disk: Path) -> None:
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(9 * 2**20))
    workspace = Workspace(disk / "workspace")
    workspace.create()
    stored, said = fill(workspace)
    again = fill(workspace)[1]  # as long as nothing is freed it is refused, and no row is lost
    ballast.unlink()
    with Store(workspace) as store:
        found = {r["quarantine_id"] for r in store.rows("SELECT quarantine_id FROM quarantine")}
        store.append("quarantine", [row(stored)])
    findings = [f.what for f in check_store(workspace).findings if "run_id" not in f.what]
    lost = sorted({f"q{number}" for number in range(stored)} - found)
    sys.stdout.write(json.dumps({"stored": stored, "said": [said, again], "lost": lost, "findings": findings}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
