"""What the processes of one run hold together, which no limit of one process bounds: looked at from outside."""

import os
import re
from collections.abc import Iterable

from lrd_jax.research.sandbox.launcher import children

LOOK_SECONDS = 0.05
BYTES_OF_A_FILE = 1024  # of the kernel's memory, however empty it is

_OWN = re.compile(rb"^(?:Pss_|Rss)(?:Anon|Shmem):\s+(\d+) kB", re.MULTILINE)


def below(pid: int) -> Iterable[int]:
    """The processes that descend from one."""
    for child in children(pid):
        yield child
        yield from below(child)


def memory(pids: Iterable[int]) -> int:
    """Bytes that processes hold.

    What they share counts once, but for a process that closes itself to other eyes; 0 for one that has ended.
    """
    return sum(int(kib) << 10 for pid in pids for kib in _OWN.findall(_held(pid)))


def _held(pid: int) -> bytes:
    for name in ("smaps_rollup", "status"):
        try:
            with open(f"/proc/{pid}/{name}", "rb") as file:
                return file.read()
        except OSError:
            continue
    return b""


def files(pid: int, folder: str) -> int:
    """How many files there are in a file system that a process sees; 0 if it has ended."""
    try:
        found = os.statvfs(f"/proc/{pid}/root{folder}")
    except OSError:
        return 0
    return found.f_files - found.f_ffree
