"""What runs a solution in the sandbox: asked over a socket, it answers what the solution printed or returned.

Nothing here knows what is expected, so a solution that takes over this process, or forges its answers, has
to find the right ones all the same. Its source is run by the sandbox's Python: only the standard library.
Arguments: the socket's descriptor, and "programs" or "calls".
"""

from __future__ import annotations

import _sitebuiltins
import builtins
import json
import os
import runpy
import select
import signal
import sys
import time
from typing import Any

from code_values import decode, encode  # type: ignore[import-not-found]

PREAMBLE, SOLUTION = "preamble.py", "solution.py"
_MAX_ERROR_BYTES = 4096


def main() -> None:
    """Answer requests, a line of JSON each, until the other side is closed."""
    fd = int(sys.argv[1])
    prepare()
    reply(fd, {"ready": True})
    with os.fdopen(fd, "rb", closefd=False) as requests:
        if sys.argv[2] == "calls":
            serve_calls(fd, requests)
            return
        for line in requests:
            request = json.loads(line)
            if run_program(fd, request):
                break
        else:
            return
    # in the child that is to be the solution, which ends as any program does: with its threads, and its output written
    os.close(fd)
    sys.argv = [SOLUTION]
    run_solution("__main__")


def run_solution(name: str) -> dict[str, Any]:
    """Run the solution with what the problem gives it already defined, and return the names that are its own.

    The two are not one text, since a solution may begin with an import from __future__.
    """
    given = {key: value for key, value in runpy.run_path(PREAMBLE).items() if not key.startswith("__")}
    names = runpy.run_path(SOLUTION, given, name)
    return {key: value for key, value in names.items() if key not in given or value is not given[key]}


def prepare() -> None:
    """Have in place what programs expect: what `site` adds elsewhere, and integers of any length as text."""
    for name in ("exit", "quit"):
        setattr(builtins, name, _sitebuiltins.Quitter(name, "Ctrl-D"))
    sys.set_int_max_str_digits(0)


def reply(fd: int, answer: dict[str, Any]) -> None:
    """Write one line of JSON."""
    data = memoryview(json.dumps(answer).encode() + b"\n")
    while data:
        data = data[os.write(fd, data) :]


def run_program(fd: int, request: dict[str, Any]) -> bool:
    """Run the solution on an input and answer what it did; return whether this is the process to run it."""
    with open("input", "wb") as file:
        file.write(request["stdin"].encode())
    outputs = [os.pipe() for _ in range(2)]
    process_id = os.fork()
    if process_id == 0:
        standard_input = os.open("input", os.O_RDONLY)
        for source, target in ((standard_input, 0), (outputs[0][1], 1), (outputs[1][1], 2)):
            os.dup2(source, target)
        os.closerange(3, fd)
        os.closerange(fd + 1, 256)
        return True
    for _, writer in outputs:
        os.close(writer)
    stdout, stderr, ended = watch(process_id, outputs[0][0], outputs[1][0], request)
    for reader, _ in outputs:
        os.close(reader)
    status = os.waitstatus_to_exitcode(os.waitpid(process_id, 0)[1])
    reply(
        fd,
        {
            "stdout": stdout.decode(errors="replace"),
            "stderr": stderr.decode(errors="replace"),
            "exit_code": status,
            "ended": ended,
        },
    )
    return False


def watch(process_id: int, stdout: int, stderr: int, request: dict[str, Any]) -> tuple[bytes, bytes, str]:
    """Return what a child printed, the end of its errors, and how it ended: exited, late or large; it is dead then."""
    deadline = time.monotonic() + request["seconds"]
    read = {stdout: b"", stderr: b""}
    is_over = os.pidfd_open(process_id)
    open_fds = {stdout, stderr}
    ended = "exited"
    while True:
        ready = select.select([is_over, *open_fds], [], [], max(deadline - time.monotonic(), 0))[0]
        for fd in open_fds & set(ready):
            chunk = os.read(fd, 2**16)
            read[fd] += chunk
            if not chunk:
                open_fds.remove(fd)
        read[stderr] = read[stderr][-_MAX_ERROR_BYTES:]
        if ready == [is_over]:  # and nothing more to read, though a child of its may live
            break
        if time.monotonic() >= deadline or len(read[stdout]) > request["max_bytes"]:
            ended = "large" if len(read[stdout]) > request["max_bytes"] else "late"
            os.kill(process_id, signal.SIGKILL)
            break
    os.close(is_over)
    return read[stdout], read[stderr], ended


def serve_calls(fd: int, requests: Any) -> None:
    """Answer calls of the solution's functions."""
    names: dict[str, Any] = {}
    kept: list[Any] = []

    def keep(value: Any) -> int:
        kept.append(value)
        return len(kept) - 1

    def find_function(name: str) -> Any:
        if name in names:
            return names[name]
        return getattr(names["Solution"](), name)

    for line in requests:
        request = json.loads(line)
        try:
            if "load" in request:
                names.update(run_solution("solution"))
                answer: Any = None
            elif "name" in request and "args" not in request:
                answer = names[request["name"]]
            else:
                function = kept[request["handle"]] if "handle" in request else find_function(request["name"])
                args = [decode(value, kept.__getitem__) for value in request["args"]]
                kwargs = {name: decode(value, kept.__getitem__) for name, value in request.get("kwargs", {}).items()}
                answer = function(*args, **kwargs)
            told = {"value": encode(answer, keep)}
        except BaseException as error:  # noqa: BLE001 - SystemExit too is a failure of the solution
            told = {"raised": type(error).__name__}
        reply(fd, told)


if __name__ == "__main__":
    main()
