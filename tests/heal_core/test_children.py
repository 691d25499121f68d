import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from heal_core.children import start_child

ROOT = Path(__file__).parents[2]

PARENT = """
import sys, time
from heal_core.children import start_child
child = start_child([sys.executable, "-c", "import time; time.sleep(60)"])
print(child.pid, flush=True)
time.sleep(60)
"""

THREADS = """
import threading, time
from concurrent.futures import ThreadPoolExecutor
from heal_core import children
def slow_executor(**settings):
    time.sleep(0.2)  # so that all threads ask before the first has its answer
    return ThreadPoolExecutor(**settings)
children.ThreadPoolExecutor = slow_executor
started = []
threads = [threading.Thread(target=lambda: started.append(children.start_child(["sleep", "30"]))) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
time.sleep(0.3)
print([child.poll() for child in started])
"""


def is_running(process_id: int) -> bool:
    try:
        state = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_until_gone(process_id: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while is_running(process_id) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not is_running(process_id)


@pytest.mark.slow
def test_a_child_dies_when_its_parent_is_killed() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    child_id = int(parent.stdout.readline())
    assert is_running(child_id)
    parent.send_signal(signal.SIGKILL)
    parent.communicate()
    assert wait_until_gone(child_id, 10)


def test_a_child_survives_the_thread_that_asked_for_it() -> None:
    # the kernel binds the death signal to the forking thread; a task's worker thread may retire any time
    children = []
    thread = threading.Thread(target=lambda: children.append(start_child(["sleep", "30"])))
    thread.start()
    thread.join()
    time.sleep(0.2)
    assert children[0].poll() is None
    children[0].kill()
    assert children[0].wait() == -signal.SIGKILL


def test_children_of_threads_that_ask_at_once_live() -> None:
    """Each thread had got a starter of its own once, and the children of those that were not kept died with them."""
    assert subprocess.check_output([sys.executable, "-c", THREADS], cwd=ROOT, text=True) == "[None, None, None, None]\n"


def test_descriptors_environment_and_streams_reach_the_child() -> None:
    reading, writing = os.pipe()
    code = "import os, sys; os.write(int(sys.argv[1]), os.environ['WORD'].encode()); print('out')"
    child = start_child(
        [sys.executable, "-c", code, str(writing)],
        pass_fds=(writing,),
        env={"WORD": "ping"},
        stdout=subprocess.PIPE,
    )
    os.close(writing)
    output, _ = child.communicate()
    assert (child.returncode, output) == (0, b"out\n")
    assert os.read(reading, 10) == b"ping"
    os.close(reading)


def test_arguments_are_not_read_by_a_shell() -> None:
    child = start_child(["echo", "$HOME; false"], stdout=subprocess.PIPE)
    assert child.communicate()[0] == b"$HOME; false\n"


def test_a_missing_program_is_an_error_of_the_parent() -> None:
    with pytest.raises(FileNotFoundError):
        start_child(["/no/such/program"])


def test_a_child_with_a_session_of_its_own_is_out_of_the_terminals_reach_and_hears_its_own_interrupt() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell starts what runs in the background
    try:
        child = start_child(["sleep", "60"], own_session=True)
    finally:
        signal.signal(signal.SIGINT, before)
    assert os.getsid(child.pid) == child.pid != os.getsid(0)
    child.send_signal(signal.SIGINT)
    assert child.wait(10) == -signal.SIGINT
