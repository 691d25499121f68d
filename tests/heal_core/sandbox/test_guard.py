from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from heal_core.sandbox.guard import guarded_mark, kill_marked

ROOT = Path(__file__).parents[3]
PATIENCE_SECONDS = 30

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="bubblewrap is of Linux")

# prints its mark, and kills itself once something has been said to it
OWNER = """
import os, signal, sys
from heal_core.sandbox.guard import guarded_mark
print(guarded_mark(), flush=True)
sys.stdin.readline()
os.kill(os.getpid(), signal.SIGKILL)
"""


def find_guards(mark: str) -> list[int]:
    found = []
    for place in Path("/proc").iterdir():
        if place.name.isdecimal():
            try:
                arguments = (place / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if mark.encode() in arguments and any(argument.endswith(b"/guard.py") for argument in arguments):
                found.append(int(place.name))
    return found


def start_sleeper(word: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", word])


def wait_until_there(mark: str) -> int:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (found := find_guards(mark)) and time.monotonic() < deadline:
        time.sleep(0.02)
    (guard_id,) = found
    return guard_id


def test_what_is_marked_lives_as_long_as_its_owner_and_nothing_else_is_touched() -> None:
    owner = subprocess.Popen([sys.executable, "-c", OWNER], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert owner.stdin is not None and owner.stdout is not None
    mark = owner.stdout.readline().decode().strip()
    marked, other = start_sleeper(mark), start_sleeper(mark[:-1])
    try:
        time.sleep(0.3)
        assert marked.poll() is None
        owner.stdin.write(b"end\n")
        owner.stdin.flush()
        assert owner.wait(PATIENCE_SECONDS) == -signal.SIGKILL
        assert marked.wait(PATIENCE_SECONDS) == -signal.SIGKILL
        assert other.poll() is None
    finally:
        for process in (owner, marked, other):
            process.kill()
            process.communicate()


def test_threads_that_ask_at_once_share_a_mark_and_its_guard() -> None:
    marks: list[str] = []
    threads = [threading.Thread(target=lambda: marks.append(guarded_mark())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(marks) == 8 and len(set(marks)) == 1
    wait_until_there(marks[0])


def test_a_guard_that_was_killed_has_a_successor_under_the_same_mark() -> None:
    mark = guarded_mark()
    first = wait_until_there(mark)
    os.kill(first, signal.SIGKILL)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while find_guards(mark) == [first] and time.monotonic() < deadline:
        time.sleep(0.02)
    assert guarded_mark() == mark
    assert wait_until_there(mark) != first


def test_killing_ends_when_none_is_left() -> None:
    sleepers = [start_sleeper(f"word-of-{os.getpid()}") for _ in range(2)]
    try:
        kill_marked(f"word-of-{os.getpid()}")
        assert [sleeper.wait(PATIENCE_SECONDS) for sleeper in sleepers] == [-signal.SIGKILL, -signal.SIGKILL]
    finally:
        for sleeper in sleepers:
            sleeper.kill()
            sleeper.wait()
