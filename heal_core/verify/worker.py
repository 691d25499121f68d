"""The child's side of the verifier pool: `python -m heal_core.verify.worker FD MEMORY_BYTES LOAD_GYM`.

Reads (text, reference) from the socket FD and answers each with a `Verdict`, until the parent
closes its end. Time limits are the parent's (`pool`), which kills this process.
"""

from __future__ import annotations

import logging
import resource
import signal
import sys
from collections.abc import Sequence
from multiprocessing.connection import Connection

from heal_core.gym.library import import_library
from heal_core.reference import Reference
from heal_core.verify.grade import grade

READY = "ready"


def main(arguments: Sequence[str]) -> None:
    """Grade what comes in, after limiting the address space and importing what grades."""
    file_descriptor, max_memory_bytes, load_gym = map(int, arguments)
    resource.setrlimit(resource.RLIMIT_AS, (max_memory_bytes, max_memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    logging.getLogger("math_verify").setLevel(logging.CRITICAL)  # warns that its time limits are off
    grade(r"\boxed{x + 1}", Reference("1 + x"))  # imports sympy and builds the grammar's tables
    if load_gym:
        import_library()
    with Connection(file_descriptor) as connection:
        connection.send(READY)
        while True:
            try:
                text, reference = connection.recv()
            except EOFError:
                return
            connection.send(grade(text, reference))


if __name__ == "__main__":
    main(sys.argv[1:])
