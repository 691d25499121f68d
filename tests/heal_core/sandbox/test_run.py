"""What a run of a program takes and gives, with the sandbox and without."""

from __future__ import annotations

import os
import platform
import resource
import socket
import threading
from typing import Any, Literal

import pytest
from pydantic import ValidationError

from heal_core.errors import SandboxError
from heal_core.sandbox import seccomp
from heal_core.sandbox.config import SandboxConfig
from heal_core.sandbox.run import Sandbox
from heal_core.sandbox.running import Ended

KINDS: list[Literal["bubblewrap", "none"]] = ["bubblewrap", "none"]

both = pytest.mark.parametrize("kind", KINDS)


def sandbox(kind: Any, **limits: Any) -> Sandbox:
    return Sandbox(SandboxConfig(kind=kind, **limits))


def python(box: Sandbox, code: str) -> list[str]:
    return [box.python, "-I", "-S", "-c", code]


@both
def test_input_output_and_exit_code(kind: str) -> None:
    box = sandbox(kind)
    code = "import sys; print(sys.stdin.read().upper()); print('oh', file=sys.stderr); sys.exit(3)"
    result = box.run(python(box, code), stdin="ä".encode() * 100_000)
    assert (result.ended, result.exit_code) == (Ended.EXITED, 3)
    assert result.stdout.decode() == "Ä" * 100_000 + "\n"
    assert result.stderr == b"oh\n"
    assert result.seconds > 0


@both
def test_files_lie_in_the_working_folder(kind: str) -> None:
    box = sandbox(kind)
    files = {"one.py": b"import two", "two.py": b"print('two')"}
    assert box.run([box.python, "one.py"], files=files).stdout == b"two\n"


@both
def test_a_death_by_a_signal_is_told_as_a_shell_does(kind: str) -> None:
    box = sandbox(kind)
    result = box.run(python(box, "import os; os.abort()"))
    assert (result.ended, result.exit_code) == (Ended.EXITED, 134)


@both
def test_a_process_with_many_open_files_can_run_one(kind: str) -> None:
    box = sandbox(kind)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= hard < 1200:
        pytest.skip("this user may not open 1,200 files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1200) if soft >= 0 else soft, hard))
    files = [os.open(os.devnull, os.O_RDONLY) for _ in range(1050)]
    try:
        assert box.run(python(box, "print('here')")).stdout == b"here\n"
    finally:
        for fd in files:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@both
def test_a_descriptor_can_be_given(kind: str) -> None:
    ours, theirs = socket.socketpair()
    box = sandbox(kind)
    with ours, theirs:
        code = f"import os; os.write({theirs.fileno()}, os.read({theirs.fileno()}, 10) + b'!')"
        ours.sendall(b"hello")
        assert box.run(python(box, code), pass_fds=[theirs.fileno()]).exit_code == 0
        assert ours.recv(10) == b"hello!"


@both
def test_limits_end_it(kind: str) -> None:
    slow = sandbox(kind, wall_seconds=0.5)
    assert slow.run(python(slow, "import time; time.sleep(600)")).ended is Ended.WALL
    loud = sandbox(kind, max_output_kib=1)
    assert loud.run(python(loud, "print('x' * 2000)")).stdout == b"x" * 1024
    large = sandbox(kind, max_memory_mib=100)
    assert b"MemoryError" in large.run(python(large, "bytearray(2**30)")).stderr


@both
@pytest.mark.parametrize("delay_seconds", [0, 0.5])
def test_it_can_be_stopped_from_elsewhere(kind: str, delay_seconds: float) -> None:
    box = sandbox(kind, wall_seconds=600)
    with box.start(python(box, "import time; time.sleep(600)")) as program:
        threading.Timer(delay_seconds, program.stop).start()
        assert program.wait().ended is Ended.STOPPED


@both
def test_a_context_that_is_left_early_ends_it(kind: str) -> None:
    box = sandbox(kind)
    with box.start(python(box, "import time; time.sleep(600)")) as program:
        pass
    assert program._process.returncode == -9


@both
def test_no_descriptor_is_lost(kind: str) -> None:
    box = sandbox(kind)
    box.run(python(box, "pass"))
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        box.run(python(box, "pass"), files={"a": b"b"})
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_command_that_is_not_there_is_its_own_fault() -> None:
    box = sandbox("bubblewrap")
    result = box.run(["/usr/bin/none"])
    assert (result.ended, result.exit_code) == (Ended.EXITED, 1)
    assert b"FileNotFoundError" in result.stderr


def test_a_machine_without_known_calls_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "mips")
    with pytest.raises(SandboxError, match=r"x86_64 and aarch64, found mips"):
        seccomp.build_filter()


def test_the_config_names_what_it_does_not_know() -> None:
    with pytest.raises(ValidationError, match="kind"):
        SandboxConfig.model_validate({"kind": "docker"})
