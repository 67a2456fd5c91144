"""The filter of system calls around a program, as instructions of classic BPF for `prctl(PR_SET_SECCOMP)`.

It refuses what walls and limits of the kernel's other kinds let through: memory that no process is charged for, further
namespaces with file systems of their own, a look into other processes, and interfaces of the kernel that a program of a
benchmark has no use for. Refused calls fail with an error as if the kernel did not have them.
"""

import errno
import os
import socket
import struct
from collections.abc import Iterable

_ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}  # AUDIT_ARCH_*, and the column below

# Numbers of arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h.
_REFUSED = {
    # memory that stays when it is unmapped, outside of every limit
    "shmget": (29, 194),
    "shmat": (30, 196),
    "semget": (64, 190),
    "msgget": (68, 186),
    "mq_open": (240, 180),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "vmsplice": (278, 75),  # a pipe holds whole huge pages of it
    "io_setup": (206, 0),
    "io_uring_setup": (425, 425),
    "listen": (50, 201),  # what is sent to a connection that nobody accepts stays, when its sender has closed it
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    # other processes
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
    # namespaces and file systems
    "unshare": (272, 97),
    "setns": (308, 268),
    "clone3": (435, 435),  # its flags lie in memory, where no filter sees them; libraries then use clone
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsmount": (432, 432),
    "mount_setattr": (442, 442),
    # doors to the kernel
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
}
_CLONE, _SOCKET, _SOCKETPAIR = (56, 220), (41, 198), (53, 199)
_NEW_NAMESPACES = 0x7E020000  # CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET
_NETWORK = (socket.AF_INET, socket.AF_INET6)
_X32 = 0x40000000  # the first number of x86-64's second table

_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _JUMP_ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data; the low half of the argument
_ALLOW, _ERRNO, _KILL_PROCESS = 0x7FFF0000, 0x00050000, 0x80000000


def supported() -> bool:
    """Whether there is a table for this machine."""
    return os.uname().machine in _ARCHITECTURES


def instructions(*, network: bool) -> bytes:
    """The filter for this machine; eight bytes an instruction.

    Args:
      network: whether there may be sockets of the internet. A namespace without a network still has them, with buffers
        of many megabytes; and it does not hold the rarer kinds, so that none but Unix's are left.
    """
    families = (socket.AF_UNIX, *(_NETWORK if network else ()))
    architecture, column = _ARCHITECTURES[os.uname().machine]
    code = [
        _instruction(_LOAD, _ARCHITECTURE),
        _instruction(_JUMP_EQUAL, architecture, 1, 0),
        _instruction(_RETURN, _KILL_PROCESS),
        _instruction(_LOAD, _NUMBER),
        *_refuse_if(_JUMP_AT_LEAST, _X32, errno.ENOSYS),
    ]
    for numbers in _REFUSED.values():
        code += _refuse_if(_JUMP_EQUAL, numbers[column], errno.ENOSYS)
    code += _first_argument(_CLONE[column], _refuse_if(_JUMP_ANY_BIT, _NEW_NAMESPACES, errno.EPERM))
    for numbers in (_SOCKET, _SOCKETPAIR):
        known = [_instruction(_JUMP_EQUAL, family, left, 0) for left, family in _counting_down(families)]
        code += _first_argument(numbers[column], [*known, _instruction(_RETURN, _ERRNO | errno.EAFNOSUPPORT)])
    return b"".join([*code, _instruction(_RETURN, _ALLOW)])


def _instruction(operation: int, operand: int, if_true: int = 0, if_false: int = 0) -> bytes:
    """A `struct sock_filter`; the jumps are over so many instructions."""
    return struct.pack("=HBBI", operation, if_true, if_false, operand)


def _refuse_if(jump: int, operand: int, error: int) -> list[bytes]:
    return [_instruction(jump, operand, 0, 1), _instruction(_RETURN, _ERRNO | error)]


def _first_argument(number: int, checks: list[bytes]) -> list[bytes]:
    """Checks on the first argument of one call, and then the call's number again."""
    code = [_instruction(_LOAD, _FIRST_ARGUMENT), *checks, _instruction(_LOAD, _NUMBER)]
    return [_instruction(_JUMP_EQUAL, number, 0, len(code)), *code]


def _counting_down(items: tuple[int, ...]) -> Iterable[tuple[int, int]]:
    """Each item with how many instructions lie between it and the one after the refusal."""
    return zip(range(len(items), 0, -1), items, strict=True)
