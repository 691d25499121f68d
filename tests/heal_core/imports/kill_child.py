"""Import a file of rollouts and kill this process with SIGKILL once it has written its n-th part.

`python -m tests.heal_core.imports.kill_child WORKSPACE FILE N`
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from heal_core.imports import take_in
from heal_core.store import durable
from heal_core.store.workspace import Workspace
from tests.heal_core.imports.world import import_file


def main(workspace: str, file: str, fatal: int) -> None:
    write, taken = durable.write_atomically, 0

    def write_or_die(final: Path, fill: object) -> None:
        nonlocal taken
        write(final, fill)  # type: ignore[arg-type]
        if final.parent.parent.name == "parts":
            taken += 1
            if taken == fatal:
                os.kill(os.getpid(), signal.SIGKILL)

    durable.write_atomically = write_or_die
    take_in.MAX_SHARD_TEXTS = 2
    import_file(Workspace(workspace), Path(file))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
