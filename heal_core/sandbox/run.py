"""Run a program that nobody trusts: shut in, limited, its output bounded, and no process of it left afterwards.

What does not belong here: what is mounted (`bubblewrap`), which system calls exist (`seccomp`), waiting
for the program (`running`), what an output means (`heal_core.verify.code`).
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from heal_core.children import start_child
from heal_core.errors import SandboxError
from heal_core.sandbox.bubblewrap import FOLDER, PYTHON, Boundary, build_boundary, environment
from heal_core.sandbox.config import SandboxConfig
from heal_core.sandbox.running import Pipes, RunningProgram, SandboxResult
from heal_core.sandbox.seccomp import build_filter

_MAX_OPEN_FILES = 128
_LAUNCHER = Path(__file__).with_name("launcher.py")


class Sandbox:
    """Runs programs within one set of limits."""

    def __init__(self, config: SandboxConfig, program: Path | None = None) -> None:
        """Say the limits, and which bubblewrap; by default it is the first of this machine that works (`probe`)."""
        self._config = config
        self._program = program

    @property
    def python(self) -> str:
        """Return the path of the interpreter for commands."""
        return PYTHON if self._config.kind == "bubblewrap" else os.path.realpath(sys.executable)

    def run(
        self,
        command: Sequence[str],
        stdin: bytes = b"",
        files: Mapping[str, bytes] | None = None,
        pass_fds: Sequence[int] = (),
    ) -> SandboxResult:
        """Return how a command ended; none of its processes is left then.

        Args:
            command: Program and arguments; `[sandbox.python, "-I", "-S", "solution.py"]`.
            stdin: Its input.
            files: Files in its working folder, by name.
            pass_fds: Descriptors that stay open in it, under the same numbers.

        Raises:
            SandboxError: If the sandbox could not be set up; the command did not start then.
        """
        with self.start(command, stdin, files, pass_fds) as program:
            return program.wait()

    def start(
        self,
        command: Sequence[str],
        stdin: bytes = b"",
        files: Mapping[str, bytes] | None = None,
        pass_fds: Sequence[int] = (),
    ) -> RunningProgram:
        """Return a command that runs, as `run` does; its limits act while it is waited for.

        Raises:
            SandboxError: If the sandbox could not be started.
        """
        program = self._find_program()
        with ExitStack() as ends, ExitStack() as resources:
            try:
                stdout, stdout_end = _pipe(resources, ends)
                stderr, stderr_end = _pipe(resources, ends)
                started, started_end = _pipe(resources, ends)
                info, info_end = _pipe(resources, ends)
                go_end, go = _pipe(ends, resources)
                if program is None:
                    folder = resources.enter_context(tempfile.TemporaryDirectory(prefix="heal-code-"))
                    for name, content in (files or {}).items():
                        Path(folder, name).write_bytes(content)
                    boundary = Boundary((), (), 0)
                else:
                    folder = FOLDER
                    given = {name: _memory_file(content, ends) for name, content in (files or {}).items()}
                    filter_fd = _memory_file(build_filter(), ends)
                    boundary = build_boundary(program, self._config, given, filter_fd, info_end)
                settings = {
                    "folder": folder,
                    "user_id": boundary.user_id,
                    "started_fd": started_end,
                    "go_fd": go_end,
                    "kept_fds": list(pass_fds),
                    "limits": self._limits(),
                }
                process = start_child(
                    [
                        *boundary.options,
                        *(self.python, "-I", "-S", "-c", _LAUNCHER.read_text(), json.dumps(settings)),
                        *command,
                    ],
                    pass_fds=[*boundary.pass_fds, started_end, go_end, *pass_fds],
                    # bubblewrap's own environment is that of the sandbox's first process
                    env=environment(folder) if program is None else {},
                    stdin=_memory_file(stdin, ends),
                    stdout=stdout_end,
                    stderr=stderr_end,
                    own_session=True,
                )
            except OSError as error:
                raise SandboxError(f"the sandbox could not be started: {error}. See docs/sandbox.md") from error
            ends.close()
            pipes = Pipes(stdout, stderr, started, go, None if program is None else info)
            return RunningProgram(self._config, process, pipes, resources.pop_all())

    def _find_program(self) -> Path | None:
        if self._config.kind == "none" or self._program is not None:
            return self._program
        from heal_core.sandbox.probe import find_working_program  # which runs something in a sandbox itself

        return find_working_program()

    def _limits(self) -> dict[str, tuple[int, int]]:
        """Return the soft and the hard limits of the command."""
        memory_bytes = self._config.max_memory_mib * 2**20
        file_bytes = self._config.max_file_mib * 2**20
        limits = {
            "RLIMIT_AS": memory_bytes,
            "RLIMIT_NPROC": self._config.max_processes,
            "RLIMIT_FSIZE": file_bytes,
            "RLIMIT_NOFILE": _MAX_OPEN_FILES,
            "RLIMIT_CORE": 0,
            "RLIMIT_MSGQUEUE": 0,
            "RLIMIT_MEMLOCK": 0,
        }
        if self._config.kind == "none":
            del limits["RLIMIT_NPROC"]  # it would count all processes of the user
        # the soft limit tells what it is by its signal, which a program can ignore; the hard one kills
        cpu = {"RLIMIT_CPU": (self._config.cpu_seconds, self._config.cpu_seconds + 1)}
        return {**{name: (value, value) for name, value in limits.items()}, **cpu}


def _pipe(resources: ExitStack, ends: ExitStack) -> tuple[int, int]:
    """Return a pipe to read from and to write to; the one is closed with `resources`, the other with `ends`."""
    reader, writer = os.pipe()
    resources.callback(os.close, reader)
    ends.callback(os.close, writer)
    return reader, writer


def _memory_file(content: bytes, resources: ExitStack) -> int:
    """Return a descriptor that reads `content`, which cannot be changed; closed with `resources`."""
    fd = os.memfd_create("input", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    resources.callback(os.close, fd)
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd
