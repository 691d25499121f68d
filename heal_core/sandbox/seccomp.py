"""The filter of system calls for model-written code, as a program of classic BPF.

It closes what limits and namespaces leave open: memory that no limit counts (memfd, System V),
vsock, which knows no network namespace, and parts of the kernel that a solution of a problem
never needs. What does not belong here: anything that an ordinary Python program calls.
"""

from __future__ import annotations

import errno
import platform
import struct
from dataclasses import dataclass

from heal_core.errors import SandboxError

_DENIED = {
    # name: number on x86-64, on 64-bit ARM
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "shmat": (30, 196),
    "shmctl": (31, 195),
    "semget": (64, 190),
    "msgget": (68, 186),
    "mq_open": (240, 180),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "pidfd_getfd": (438, 438),
    "kcmp": (312, 272),
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "fanotify_init": (300, 262),
    "quotactl": (179, 60),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "personality": (135, 92),
    "acct": (163, 89),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "reboot": (169, 142),
    "syslog": (103, 116),
    "vhangup": (153, 58),
}
_CLONE3 = 435  # its flags lie in memory, where a filter cannot look; glibc then takes clone
_NAMESPACE_FLAGS = 0x7E020000  # CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET
_FAMILIES = (1, 2, 10)  # of sockets: unix, inet, inet6
_X32 = 0x40000000  # x86-64 has each call a second time from here on

_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000


@dataclass(frozen=True)
class _Architecture:
    audit_id: int
    column: int
    clone: int
    socket: int


_ARCHITECTURES = {
    "x86_64": _Architecture(0xC000003E, 0, 56, 41),
    "aarch64": _Architecture(0xC00000B7, 1, 220, 198),
}


def build_filter() -> bytes:
    """Return the filter for this machine, an array of `struct sock_filter`.

    Raises:
        SandboxError: If the numbers of this machine's system calls are not known here.
    """
    machine = platform.machine()
    if machine not in _ARCHITECTURES:
        raise SandboxError(
            f"the sandbox knows the system calls of {' and '.join(_ARCHITECTURES)}, found {machine}. "
            "Grade code on such a machine."
        )
    architecture = _ARCHITECTURES[machine]
    program = [
        _instruction(_LOAD, _ARCHITECTURE),
        _instruction(_EQUAL, architecture.audit_id, if_true=1),
        _instruction(_RETURN, _KILL),
        _instruction(_LOAD, _NUMBER),
        *_refuse(_AT_LEAST, _X32, errno.ENOSYS),
        *_refuse(_EQUAL, _CLONE3, errno.ENOSYS),
    ]
    for numbers in _DENIED.values():
        program += _refuse(_EQUAL, numbers[architecture.column], errno.EPERM)
    program += [
        _instruction(_EQUAL, architecture.clone, if_false=3),
        _instruction(_LOAD, _FIRST_ARGUMENT),
        *_refuse(_ANY_BIT, _NAMESPACE_FLAGS, errno.EPERM),
        _instruction(_LOAD, _NUMBER),
        _instruction(_EQUAL, architecture.socket, if_true=1),
        _instruction(_RETURN, _ALLOW),
        _instruction(_LOAD, _FIRST_ARGUMENT),
        *(_instruction(_EQUAL, family, if_true=len(_FAMILIES) - place) for place, family in enumerate(_FAMILIES)),
        _instruction(_RETURN, _ERRNO | errno.EAFNOSUPPORT),
        _instruction(_RETURN, _ALLOW),
    ]
    return b"".join(program)


def _refuse(test: int, value: int, error: int) -> list[bytes]:
    return [_instruction(test, value, if_false=1), _instruction(_RETURN, _ERRNO | error)]


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    """Return one instruction; jumps say how many instructions are skipped."""
    return struct.pack("=HBBI", code, if_true, if_false, value)
