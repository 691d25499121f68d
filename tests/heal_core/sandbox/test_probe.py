"""A sandbox is believed to work only where one was seen to."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from heal_core.children import child_environment
from heal_core.errors import SandboxError
from heal_core.sandbox import probe
from heal_core.sandbox.bubblewrap import find_programs
from heal_core.sandbox.config import SandboxConfig
from heal_core.sandbox.run import Sandbox

BROKEN = "echo 'No permissions to create new namespace' >&2; exit 1"
OPEN = """
import os, sys
os.close(int(sys.argv[sys.argv.index("--info-fd") + 1]))
os.execv(sys.executable, [sys.executable, *sys.argv[sys.argv.index("--") + 2 :]])
"""


def program(folder: Path, script: str, interpreter: str = "/bin/sh") -> Path:
    """Return something else that calls itself bubblewrap."""
    path = folder / "bwrap"
    path.write_text(f"#!{interpreter}\n{script}\n")
    path.chmod(0o755)
    return path


def test_it_works_here() -> None:
    assert probe.find_working_program() in find_programs()


def test_the_one_on_the_path_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = program(tmp_path, BROKEN)
    monkeypatch.setenv("PATH", str(tmp_path))
    programs = find_programs()
    assert programs[0] == own and len(programs) == 2
    assert probe.find_working_program() == programs[1]  # the package's, since the first does not work


def test_without_any_the_remedy_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "find_programs", lambda: [])
    with pytest.raises(SandboxError, match=r"no bubblewrap is on PATH.*--unsafe-no-sandbox"):
        probe.find_working_program()


def test_one_that_cannot_set_up_is_told_with_its_words(tmp_path: Path) -> None:
    assert "No permissions to create new namespace" in str(probe.find_fault(program(tmp_path, BROKEN)))


def test_one_that_shuts_nothing_in_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("heal_core.sandbox.bubblewrap._namespace_of_users", lambda process_id: None)
    monkeypatch.setattr("heal_core.sandbox.run.PYTHON", sys.executable)
    fault = probe.find_fault(program(tmp_path, OPEN, sys.executable))
    assert fault is not None
    assert "it shares the network" in fault and "it sees /proc" in fault
    assert ("it can write outside /tmp" in fault) == os.access("/", os.W_OK)


def test_a_config_without_sandbox_needs_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "find_programs", lambda: [])
    sandbox = Sandbox(SandboxConfig(kind="none"))
    assert sandbox.run([sandbox.python, "-c", "print(1)"]).stdout == b"1\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root is bound by no limit on processes")
@pytest.mark.parametrize(
    ("before", "fault"),
    [
        ("true", "its processes are not limited"),  # a namespace with root alone, who is root outside too
        ("echo 0 > /proc/sys/user/max_user_namespaces", "Creating new namespace failed"),
    ],
)
def test_a_machine_that_lacks_something_is_told_what(before: str, fault: str) -> None:
    command = f"{before}; exec {shlex.quote(sys.executable)} -m heal_core.sandbox.probe"
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "sh", "-c", command],
        env=child_environment(),
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        pytest.skip(f"no user namespace can be made here: {done.stderr.strip()}")
    assert fault in json.loads(done.stdout)["fault"]
