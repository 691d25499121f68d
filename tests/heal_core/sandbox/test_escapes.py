"""Programs that try to get out of the sandbox, or to take the machine down; each is seen to fail.

Where root runs the tests, all of them run a second time as nobody.
"""

from __future__ import annotations

import os
import shlex
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from heal_core.sandbox.config import SandboxConfig
from heal_core.sandbox.guard import kill_marked
from heal_core.sandbox.run import Sandbox
from heal_core.sandbox.running import Ended, SandboxResult

ROOT = Path(__file__).parents[3]
DEATH_SECONDS = 30

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="bubblewrap is of Linux")

TRY = """
import os, sys
def attempt(name, action):
    try:
        print(name, "DONE", action())
    except Exception as error:
        print(name, type(error).__name__, getattr(error, "errno", ""))
"""


def run(code: str, *arguments: str, **limits: Any) -> SandboxResult:
    """Return what became of a program in the sandbox."""
    sandbox = Sandbox(SandboxConfig(**limits))
    command = [sandbox.python, "-I", "-S", "solution.py", *arguments]
    return sandbox.run(command, files={"solution.py": (TRY + code).encode()})


def says(result: SandboxResult) -> list[str]:
    assert (result.ended, result.exit_code) == (Ended.EXITED, 0), result
    return result.stdout.decode().splitlines()


def find_processes(token: str) -> list[int]:
    """Return the processes of this machine whose command line has the token."""
    found = []
    for place in Path("/proc").iterdir():
        if place.name.isdecimal() and int(place.name) != os.getpid():
            try:
                command = (place / "cmdline").read_bytes()
            except OSError:
                continue
            if token.encode() in command:
                found.append(int(place.name))
    return found


@pytest.fixture
def token() -> str:
    return f"token-{uuid.uuid4().hex}"


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        yield server


def test_an_ordinary_program_runs() -> None:
    result = run("import json, math, random, re, collections; print(input(), sum(range(4)), os.getcwd())")
    assert result.exit_code == 1  # no input
    sandbox = Sandbox(SandboxConfig())
    result = sandbox.run([sandbox.python, "-I", "-S", "-c", "print(input()[::-1])"], stdin=b"abc\n")
    assert says(result) == ["cba"]


# ---- what it can see


def test_files_of_this_machine_are_not_there(tmp_path: Path) -> None:
    planted = tmp_path / "planted.txt"
    planted.write_text("a secret")
    places = [
        planted,
        tmp_path,
        ROOT,
        Path.home(),
        "/root",
        "/home",
        "/etc",
        "/var",
        "/mnt",
        "/run",
        "/sys",
        "/usr/bin",
    ]
    lines = says(run("for place in sys.argv[1:]: attempt(place, lambda: os.stat(place))", *map(str, places)))
    assert lines == [f"{place} FileNotFoundError 2" for place in places]


def test_its_root_holds_only_what_python_needs() -> None:
    (line,) = says(run("print(*sorted(os.listdir('/')), *sorted(os.listdir('/tmp')), *sorted(os.listdir('/dev')))"))
    found = set(line.split())
    assert found - {"lib32", "lib64", "libx32"} == {
        *("dev", "lib", "python", "tmp", "usr", "solution.py"),
        *("full", "null", "random", "urandom", "zero"),
    }


def test_the_environment_of_the_parent_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEAL_TEST_API_KEY", "a-planted-secret")
    result = run("print(sorted(os.environ)); attempt('1', lambda: open('/proc/1/environ').read())")
    names, proc = says(result)
    assert "API_KEY" not in names and "HOME" in names
    assert proc == "1 FileNotFoundError 2"


def test_proc_of_this_machine_is_not_there() -> None:
    assert says(run("print(os.path.exists('/proc'), os.getpid() < 10)")) == ["False True"]


def test_no_descriptor_of_the_parent_is_open() -> None:
    reader, writer = os.pipe()
    os.set_inheritable(reader, True)
    code = "for fd in range(3, 1024): attempt(fd, lambda: os.fstat(fd))"
    try:
        assert [line for line in says(run(code)) if "DONE" in line] == []
    finally:
        os.close(reader)
        os.close(writer)


def test_links_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "planted.txt").write_text("a secret")
    code = f"""
target = {str(tmp_path / "planted.txt")!r}
os.symlink(target, "link"); os.symlink("../../../../../../..", "up")
attempt("link", lambda: open("link").read())
attempt("up", lambda: open("up" + target).read())
attempt("up", lambda: sorted(os.listdir("up")) == sorted(os.listdir("/")))
attempt("hard", lambda: os.link("/usr/lib/os-release", "hard"))
attempt("node", lambda: os.mknod("disk", 0o60600, os.makedev(254, 0)))
"""
    link, up, root, hard, node = says(run(code))
    assert (link, up) == ("link FileNotFoundError 2", "up FileNotFoundError 2")
    assert root == "up DONE True"
    assert "DONE" not in hard and node == "node PermissionError 1"


# ---- the network


def connects(result: SandboxResult) -> bool:
    return "connect DONE" in result.stdout.decode()


def test_a_listener_of_this_machine_is_out_of_reach(listener: socket.socket) -> None:
    code = f"import socket; attempt('connect', lambda: socket.create_connection({listener.getsockname()!r}, 5))"
    assert connects(run(code, kind="none"))  # outside it can be reached
    listener.accept()[0].close()
    assert not connects(run(code))
    with pytest.raises(BlockingIOError):
        listener.accept()


def test_the_world_is_out_of_reach() -> None:
    code = """
import socket
attempt("tcp", lambda: socket.create_connection(("192.0.2.1", 80), 5))
attempt("udp", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("192.0.2.1", 53)))
attempt("name", lambda: socket.getaddrinfo("example.org", 80))
attempt("vsock", lambda: socket.socket(socket.AF_VSOCK))
attempt("netlink", lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW))
attempt("packet", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
attempt("raw", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP))
"""
    lines = says(run(code))
    assert lines[:2] == ["tcp OSError 101", "udp OSError 101"]  # network is unreachable
    assert lines[2].startswith("name gaierror")
    assert lines[3:6] == [f"{name} OSError 97" for name in ("vsock", "netlink", "packet")]  # no such family
    assert lines[6] == "raw PermissionError 1"


# ---- what it can use up


MULTIPLY = """
import os
held, num = os.pipe(), 0
try:
    while num < 500:
        if os.fork() == 0:
            os.read(held[0], 1); os._exit(0)
        num += 1
except BlockingIOError:
    print(num, flush=True)
"""


def test_a_fork_bomb_is_bounded() -> None:
    (num,) = says(run(MULTIPLY, max_processes=12))
    assert 1 <= int(num) <= 11


FORKED = """
import os, sys
from heal_core.sandbox.config import SandboxConfig
from heal_core.sandbox.run import Sandbox
code = sys.argv[1] + "import time; time.sleep(1)"  # while the other's runs
sandbox = Sandbox(SandboxConfig(max_processes=12))
sandbox.run([sandbox.python, "-I", "-S", "-c", ""])
child = os.fork()
print(sandbox.run([sandbox.python, "-I", "-S", "-c", code]).stdout.decode(), end="", flush=True)
if child != 0:
    os.waitpid(child, 0)
"""


def test_programs_of_a_fork_have_processes_of_their_own() -> None:
    command = [sys.executable, "-c", FORKED, MULTIPLY]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    nums = [int(line) for line in done.stdout.split()]
    assert len(nums) == 2 and min(nums) >= 8, done


def test_a_fork_bomb_that_goes_on_is_ended(token: str) -> None:
    code = """
while True:
    try: os.fork()
    except OSError: pass
"""
    result = run(code, token, wall_seconds=2, max_processes=32)
    assert result.ended is Ended.WALL
    assert find_processes(token) == []


def test_the_disk_cannot_be_filled() -> None:
    code = """
block, written = bytes(2**20), 0
def fill():
    global written
    for name in range(100):
        with open(f"/tmp/{name}", "wb", buffering=0) as file:
            for _ in range(4):
                written += file.write(block)
attempt("many", fill)
print(written)
os.truncate("/tmp/0", 0); os.truncate("/tmp/1", 0); os.truncate("/tmp/2", 0)
def grow():
    with open("/tmp/0", "wb", buffering=0) as file:
        while True: file.write(block)
attempt("one", grow)
attempt("sparse", lambda: os.truncate("/tmp/0", 2**40))
"""
    many, written, one, sparse = says(run(code, max_tmp_mib=16, max_file_mib=5))
    assert many == "many OSError 28"  # no space left
    assert int(written) <= 16 * 2**20
    assert (one, sparse) == ("one OSError 27", "sparse OSError 27")  # file too large


def test_files_without_number_are_ended() -> None:
    code = "for name in range(10**7): os.close(os.open(f'/tmp/{name}', os.O_CREAT | os.O_WRONLY))"
    result = run(code, max_memory_mib=64, wall_seconds=60, cpu_seconds=60)  # 64 Ki of them
    assert result.ended is Ended.MEMORY


def test_memory_of_a_process_is_bounded() -> None:
    code = """
import mmap
attempt("bytes", lambda: bytearray(2**30))
attempt("map", lambda: mmap.mmap(-1, 2**30))
"""
    assert [line.split()[1] for line in says(run(code, max_memory_mib=256))] == ["MemoryError", "OSError"]


def test_memory_of_many_processes_is_bounded_together() -> None:
    code = """
import time
for _ in range(8):
    if os.fork() == 0:
        held = b"x" * (100 * 2**20)
        time.sleep(60)
time.sleep(60)
"""
    result = run(code, max_memory_mib=256, wall_seconds=30)
    assert result.ended is Ended.MEMORY


def test_memory_that_no_limit_counts_is_not_to_be_had() -> None:
    code = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
attempt("memfd", lambda: os.memfd_create("x"))
print("shm", libc.shmget(0, 2**20, 0o1600), ctypes.get_errno())
"""
    assert says(run(code)) == ["memfd PermissionError 1", "shm -1 1"]


def test_sleep_is_ended_at_the_limit(token: str) -> None:
    result = run("import time; print('here', flush=True); time.sleep(10**6)", token, wall_seconds=1)
    assert (result.ended, result.exit_code, result.stdout) == (Ended.WALL, None, b"here\n")
    assert find_processes(token) == []


def test_a_busy_loop_is_ended_at_the_limit() -> None:
    assert run("while True: pass", cpu_seconds=1, wall_seconds=120).ended is Ended.CPU


def test_a_busy_loop_cannot_ignore_the_limit() -> None:
    code = "import signal; signal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass"
    result = run(code, cpu_seconds=1, wall_seconds=120)
    assert (result.ended, result.exit_code) == (Ended.EXITED, 128 + signal.SIGKILL)


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_gigabyte_of_output_is_cut(stream: str) -> None:
    code = f"block = 'x' * 2**20\nfor _ in range(1024): sys.{stream}.write(block)"
    result = run(code, max_output_kib=100)
    assert result.ended is Ended.OUTPUT
    assert len(getattr(result, stream)) == 100 * 1024


def test_it_cannot_raise_its_limits() -> None:
    code = """
import resource
for name in ("AS", "CPU", "NPROC", "FSIZE", "NOFILE", "CORE"):
    kind = getattr(resource, "RLIMIT_" + name)
    hard = resource.getrlimit(kind)[1]
    attempt(name, lambda: resource.setrlimit(kind, (hard + 1, hard + 1)))
    attempt(name, lambda: resource.setrlimit(kind, (-1, -1)))
"""
    lines = says(run(code))
    assert len(lines) == 12 and not [line for line in lines if line.split()[1] != "ValueError"], lines


# ---- what it can do to others


def test_nothing_outside_tmp_can_be_written() -> None:
    code = """
for place in ("/", "/usr", "/usr/lib", "/python", "/python/lib", "/python/bin", "/dev"):
    attempt(place, lambda: open(place + "/planted", "w"))
attempt("python", lambda: open(sys.executable, "r+b"))
attempt("mode", lambda: os.chmod("/python/lib", 0o777))
"""
    lines = says(run(code))
    assert [line.split()[1:] for line in lines[:7]] == [["OSError", "30"]] * 7, lines  # read-only
    assert not [line for line in lines[7:] if "DONE" in line]


def test_it_can_kill_neither_its_parent_nor_others(token: str) -> None:
    bystander = subprocess.Popen([sys.executable, "-I", "-S", "-c", "import time; time.sleep(600)", token])
    try:
        code = f"""
attempt("parent", lambda: os.kill(os.getppid(), 9))
attempt("first", lambda: os.kill(1, 9))
attempt("other", lambda: os.kill({bystander.pid}, 9))
attempt("all", lambda: os.kill(-1, 9))
print("alive")
"""
        lines = says(run(code))
        assert lines[2] == "other ProcessLookupError 3"
        assert lines[-1] == "alive"
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_a_daemon_is_gone_at_the_end(token: str) -> None:
    code = """
import time
reader, writer = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for fd in (0, 1, 2): os.close(fd)
        os.write(writer, b"x")
        time.sleep(600)
    os._exit(0)
os.read(reader, 1)
print("left one")
"""
    assert says(run(code, token)) == ["left one"]
    assert find_processes(token) == []


def test_the_kernel_offers_less() -> None:
    code = """
import ctypes, platform
libc = ctypes.CDLL(None, use_errno=True)
def call(name, *arguments):
    print(name, getattr(libc, name)(*arguments), ctypes.get_errno())
call("ptrace", 16, os.getppid(), 0, 0)  # PTRACE_ATTACH
call("ptrace", 0, 0, 0, 0)
call("unshare", 0x10000000)
call("setns", 0, 0)
call("mount", b"/tmp", b"/tmp", None, 4096, None)
call("chroot", b"/tmp")
call("personality", 0)
print("clone", libc.syscall(56 if platform.machine() == "x86_64" else 220, 0x10000011, 0, 0, 0, 0), ctypes.get_errno())
print("clone3", libc.syscall(435, 0, 0), ctypes.get_errno())
"""
    lines = says(run(code))
    assert lines[:-1] == [f"{line.split()[0]} -1 1" for line in lines[:-1]]
    assert lines[-1] == "clone3 -1 38"


def test_it_has_no_capabilities_and_is_not_root() -> None:
    code = """
import ctypes
header, data = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
ctypes.CDLL(None).syscall(125 if os.uname().machine == "x86_64" else 90, header, data)
effective, permitted = data[0] | data[3], data[1] | data[4]
print(effective, permitted, 0 in (os.getuid(), os.geteuid(), os.getgid()), ctypes.CDLL(None).prctl(39, 0, 0, 0, 0))
attempt("root", lambda: os.setuid(0))
attempt("groups", lambda: os.setgroups([0]))
"""
    facts, root, groups = says(run(code))
    assert facts == "0 0 False 1"  # no new privileges either
    assert "DONE" not in root and groups == "groups PermissionError 1"


PARENT = """
import sys
from heal_core.sandbox.config import SandboxConfig
from heal_core.sandbox.run import Sandbox
sandbox = Sandbox(SandboxConfig(wall_seconds=600))
code = '''
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(600)
    os._exit(0)
time.sleep(600)
'''
sandbox.run([sandbox.python, "-I", "-S", "-c", code, sys.argv[1]])
"""


@pytest.mark.parametrize("num_processes", [2, 3, 4, 5])
def test_nothing_is_left_when_the_parent_is_killed(token: str, num_processes: int) -> None:
    """It is killed at several moments, which need not be hit: the last one is."""
    parent = subprocess.Popen([sys.executable, "-c", PARENT, token], cwd=ROOT, start_new_session=True)
    try:
        # the parent, two of bubblewrap, the program and its daemon
        wait_until(lambda: len(find_processes(token)) >= num_processes)
        parent.send_signal(signal.SIGKILL)
    finally:
        parent.kill()
        parent.wait()
    wait_until(lambda: find_processes(token) == [])


HELD = """
import os, sys, time
from heal_core.children import start_child
from heal_core.sandbox.guard import guarded_mark
from heal_core.sandbox.probe import find_working_program
token, is_guarded = os.environ["TOKEN"], sys.argv[1]
leave, giving_leave = os.pipe()  # which stays open in bubblewrap itself, so that no end of a parent gives it
_, info = os.pipe()
options = ["--die-with-parent", "--unshare-user", "--unshare-pid", "--ro-bind", "/", "/", "--unsetenv", token]
options += ["--userns-block-fd", str(leave), "--info-fd", str(info)]
options += ["--unsetenv", guarded_mark()] if is_guarded == "True" else []
start_child([str(find_working_program()), *options, "true"], pass_fds=[leave, giving_leave, info])
time.sleep(600)
"""


@pytest.mark.parametrize("is_guarded", [True, False])
def test_what_bubblewrap_had_not_let_begin_is_killed_by_the_guard(token: str, is_guarded: bool) -> None:
    """Held in the moment between its first process and its leave, bubblewrap leaves that one behind for ever."""
    parent = subprocess.Popen(
        [sys.executable, "-c", HELD, str(is_guarded)],
        cwd=ROOT,
        env={**os.environ, "TOKEN": token},  # only bubblewrap's two are to have it on the command line
        start_new_session=True,
    )
    try:
        wait_until(lambda: len(find_processes(token)) == 2)
        parent.kill()
        parent.wait()
        left = 0 if is_guarded else 1
        wait_until(lambda: len(find_processes(token)) == left)
        time.sleep(0.1)
        assert len(find_processes(token)) == left
    finally:
        parent.kill()
        parent.wait()
        kill_marked(token)  # else it would wait for ever


OUTLIVED = """
import os, time
from heal_core.sandbox.guard import guarded_mark
mark = guarded_mark()
if os.fork() == 0:
    print(mark, flush=True)
time.sleep(600)
"""


def test_the_guard_does_not_wait_for_a_fork_of_who_was_killed() -> None:
    command = [sys.executable, "-c", OUTLIVED]
    parent = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        assert parent.stdout is not None
        mark = parent.stdout.readline().strip()
        parent.kill()
        parent.wait()
        wait_until(lambda: find_processes(mark) == [])
        os.killpg(parent.pid, 0)  # the fork lives
    finally:
        os.killpg(parent.pid, signal.SIGKILL)


def wait_until(condition: Any) -> None:
    deadline = time.monotonic() + DEATH_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


# ---- the same without root


@pytest.mark.skipif(os.geteuid() != 0, reason="the tests run without root already")
def test_all_of_this_as_nobody() -> None:
    with tempfile.TemporaryDirectory(prefix="heal-nobody-") as name:
        folder = Path(name)
        folder.chmod(0o777)
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            f"--basetemp={folder}/tests",
            __file__,
        ]
        nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "env", "PYTHONDONTWRITEBYTECODE=1"]
        script = show_to_all([sys.base_prefix, sys.prefix, str(ROOT)], folder)
        script += [f"cd {shlex.quote(str(ROOT))}", f"exec {shlex.join(nobody + command)}"]
        shell = ["unshare", "--mount", "sh", "-euc", "\n".join(script)]
        done = subprocess.run(shell, capture_output=True, text=True, timeout=600)
    if "unshare failed" in done.stderr:
        pytest.skip(f"this root may not mount: {done.stderr.strip()}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout and "failed" not in done.stdout


def show_to_all(trees: list[str], folder: Path) -> list[str]:
    """Return shell commands that let everyone reach the trees under their own names, in a mount namespace."""
    blocked = {
        str(parent) for tree in trees for parent in Path(tree).parents if not parent.stat().st_mode & stat.S_IXOTH
    }
    lines = []
    for number, tree in enumerate(trees):
        (folder / str(number)).mkdir()
        lines.append(f"mount --bind {shlex.quote(tree)} {folder}/{number}")
    lines += [f"mount -t tmpfs -o mode=755 none {shlex.quote(parent)}" for parent in sorted(blocked, key=len)[:1]]
    for number, tree in enumerate(trees):
        if blocked & set(map(str, Path(tree).parents)):
            lines += [f"mkdir -p {shlex.quote(tree)}", f"mount --bind {folder}/{number} {shlex.quote(tree)}"]
    return lines
