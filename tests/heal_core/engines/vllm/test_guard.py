"""The guard with real trees of processes: nothing may be left, whoever is killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from heal_core.engines.vllm import guard

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and prctl")]

# a child, and a grandchild in a session of its own that takes no notice of SIGTERM: as hard to end as they come
TREE = """
import os, signal, subprocess, sys, time
folder = sys.argv[1]
stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(300)"
inner = subprocess.Popen([sys.executable, "-c", stubborn], start_new_session=True, stdout=subprocess.PIPE)
inner.stdout.readline()
open(folder + "/ids.tmp", "w").write(f"{os.getpid()} {inner.pid}")
os.rename(folder + "/ids.tmp", folder + "/ids")
if len(sys.argv) > 2:
    sys.exit(int(sys.argv[2]))
time.sleep(300)
"""
PARENT = """
import signal, sys, time
from heal_core.children import start_child
start_child([sys.executable, "-P", *sys.argv[1:]], own_session=True, death_signal=signal.SIGTERM)
time.sleep(300)
"""


def is_running(process_id: int) -> bool:
    try:
        state = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_for_ids(folder: Path) -> list[int]:
    deadline = time.monotonic() + 20
    while not (folder / "ids").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return [int(word) for word in (folder / "ids").read_text().split()]


def wait_until_gone(process_ids: list[int], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while any(map(is_running, process_ids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not any(map(is_running, process_ids))


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The guard of a tree, without the interpreter; the grace is short."""
    tree, short = tmp_path / "tree.py", tmp_path / "guard.py"
    tree.write_text(TREE)
    short.write_text(Path(guard.__file__).read_text().replace("_GRACE_SECONDS = 10.0", "_GRACE_SECONDS = 0.5"))
    assert "_GRACE_SECONDS = 0.5" in short.read_text()
    (tmp_path / "own").mkdir()
    return [str(short), str(tmp_path / "own"), sys.executable, str(tree), str(tmp_path)]


def test_nothing_is_left_when_the_parent_is_killed(tmp_path: Path, command: list[str]) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, *command])
    ids = wait_for_ids(tmp_path)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    assert wait_until_gone(ids, 10)
    deadline = time.monotonic() + 5
    while (tmp_path / "own").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not (tmp_path / "own").exists()


def test_nothing_is_left_when_the_command_is_killed(tmp_path: Path, command: list[str]) -> None:
    process = subprocess.Popen([sys.executable, "-P", *command])
    main_id, inner_id = wait_for_ids(tmp_path)
    os.kill(main_id, signal.SIGKILL)
    assert process.wait(10) == 128 + signal.SIGKILL
    assert not is_running(inner_id)


def test_it_ends_as_the_command_does_and_with_all_that_it_left(tmp_path: Path, command: list[str]) -> None:
    process = subprocess.Popen([sys.executable, "-P", *command, "7"])
    assert process.wait(10) == 7
    assert not is_running(wait_for_ids(tmp_path)[1])


def test_asked_to_end_it_first_asks_the_command(tmp_path: Path, command: list[str]) -> None:
    polite = "import signal, time; signal.signal(signal.SIGTERM, lambda *_: exit(3)); print(flush=True); time.sleep(9)"
    process = subprocess.Popen(
        [sys.executable, "-P", *command[:2], sys.executable, "-c", polite], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.terminate()
    assert process.wait(10) == 3


def test_shared_memory_goes_with_a_command_that_has_to_be_killed(command: list[str]) -> None:
    # two killed servers left 840 MB in /dev/shm: what removes it was killed with them
    stubborn = (
        "import signal, time; from multiprocessing.shared_memory import SharedMemory; "
        "signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        "print(SharedMemory(create=True, size=4096).name, flush=True); time.sleep(300)"
    )
    process = subprocess.Popen(
        [sys.executable, "-P", *command[:2], sys.executable, "-c", stubborn], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    shared = Path("/dev/shm") / process.stdout.readline().decode().strip()
    assert shared.is_file()
    process.terminate()
    assert process.wait(15) == 128 + signal.SIGKILL
    assert not shared.exists()
