"""The child's side of the verifier pool: `python -m heal_core.verify.worker FD CONFIG LOAD_GYM`.

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
from heal_core.verify.config import VerifyConfig
from heal_core.verify.grade import grade

READY = "ready"


def main(arguments: Sequence[str]) -> None:
    """Grade what comes in, after limiting the address space and importing what grades."""
    file_descriptor, config = int(arguments[0]), VerifyConfig.model_validate_json(arguments[1])
    load_gym = int(arguments[2])
    # not the hard limit: what runs in a sandbox has limits of its own
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (int(config.max_memory_gib * 2**30), hard))
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
            except (EOFError, ConnectionResetError):  # reset where the parent went without reading an answer
                return
            connection.send(grade(text, reference, config))


if __name__ == "__main__":
    main(sys.argv[1:])
