"""What runs test programs in a sandbox of their own: the solution's functions are called over a socket.

The tests are a dataset's, not the model's; the solution is in another sandbox, and what it returns
arrives as plain data, so that it can neither patch what the tests use nor decide what is equal.
Its source is run by the sandbox's Python: only the standard library. Arguments: the descriptors of the
sockets to the solution and to who asked.
"""

from __future__ import annotations

import ast
import builtins
import json
import os
import sys
from collections.abc import Iterator
from typing import Any

from code_values import Handle, decode, encode  # type: ignore[import-not-found]


class NotSupportedError(Exception):
    """The test needs what cannot be passed to the solution."""


class SolutionError(Exception):
    """The solution raised something that is no built-in exception."""


def main() -> None:
    """Run the test programs in order, and tell of each how it ended."""
    sys.set_int_max_str_digits(0)  # integers of any length pass as text
    solution, asker = (os.fdopen(os.dup(int(fd)), "r+b", buffering=0) for fd in sys.argv[1:])
    with open("tests.json", encoding="utf-8") as file:
        given = json.load(file)
    told = Connection(asker)
    far = Connection(solution)
    far.receive()
    told.send({"ready": True})
    if "raised" in far.ask({"load": True}):
        told.send({"outcome": "not_loaded", "test": 0})
        return
    for number, program in enumerate(given["programs"]):
        told.send({"outcome": run(program, given["preamble"], given["entry_point"], far), "test": number})


def run(program: str, preamble: str, entry_point: str, far: Connection) -> str:
    """Return how a test program ended: passed, failed, raised, not_supported."""
    names: dict[str, Any] = {"__name__": "tests"}
    try:
        exec(compile(preamble, "preamble.py", "exec"), names)  # noqa: S102 - a dataset's, in the sandbox
        for name in [entry_point, *unknown_names(program, names)]:
            names[name] = RemoteFunction(far, name)
        exec(compile(program, "tests.py", "exec"), names)  # noqa: S102
    except AssertionError:
        return "failed"
    except NotSupportedError:
        return "not_supported"
    except Exception:  # noqa: BLE001 - of the solution, or of a test that its value does not suit
        return "raised"
    return "passed"


def unknown_names(program: str, names: dict[str, Any]) -> Iterator[str]:
    """Yield what a test program uses and does not define: classes and functions of the solution."""
    tree = ast.parse(program)
    defined = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    defined |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            defined.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            defined |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ExceptHandler) and node.name:
            defined.add(node.name)
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id not in defined | names.keys() and not hasattr(builtins, node.id):
            defined.add(node.id)
            yield node.id


class Connection:
    """Lines of JSON over a socket."""

    def __init__(self, file: Any) -> None:
        """Take over the socket."""
        self._file = file
        self._rest = b""

    def send(self, message: dict[str, Any]) -> None:
        """Write a line."""
        data = memoryview(json.dumps(message).encode() + b"\n")
        while data:
            data = data[self._file.write(data) :]

    def ask(self, message: dict[str, Any]) -> dict[str, Any]:
        """Write a line and return the one that answers it."""
        self.send(message)
        return self.receive()

    def receive(self) -> dict[str, Any]:
        """Return the next line."""
        while b"\n" not in self._rest:
            chunk = self._file.read(2**16)
            if not chunk:
                os._exit(3)  # the solution's process is gone, which whoever asked sees too
            self._rest += chunk
        line, _, self._rest = self._rest.partition(b"\n")
        answer = json.loads(line)
        return answer if isinstance(answer, dict) else {"raised": "ValueError"}


class RemoteFunction:
    """A function or class of the solution."""

    def __init__(self, far: Connection, name: str) -> None:
        """Say which one."""
        self._far = far
        self.__name__ = name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return what it returns, as plain data.

        Raises:
            NotSupportedError: If an argument is no plain data.
            BaseException: What the solution raised, where it is built in.
        """
        answer = self._far.ask(
            {
                "name": self.__name__,
                "args": [encode(value, refuse) for value in args],
                "kwargs": {name: encode(value, refuse) for name, value in kwargs.items()},
            }
        )
        if "raised" in answer:
            kind = getattr(builtins, str(answer["raised"]), None)
            if isinstance(kind, type) and issubclass(kind, Exception) and kind is not AssertionError:
                raise kind
            raise SolutionError(str(answer["raised"]))
        return decode(answer.get("value"), Handle)


def refuse(value: Any) -> int:
    """Refuse an argument that is no plain data."""
    raise NotSupportedError(type(value).__name__)


if __name__ == "__main__":
    main()
