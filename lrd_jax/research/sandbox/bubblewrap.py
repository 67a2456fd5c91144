"""The command that puts a program into namespaces of its own with bubblewrap.

The program sees /usr, the interpreter with its packages, a minimal /dev, all read-only, and an empty scratch folder
in memory. It has no network, not even the machine's loopback, no /proc, and no process but its own. Everything it
started dies with bubblewrap, and bubblewrap with us.
"""

import os
import random
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path

SCRATCH = "/scratch"

_NAMESPACES = ("--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try")
_SYSTEM = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
_NOBODY, _UNUSED = 65534, range(0x70000000, 0x7FFFFFFF)  # uids that systemd's table of them gives to nothing
_FOR_THE_LOADER = ("/etc/ld.so.cache", "/etc/alternatives")


def interpreter() -> str:
    """The Python that programs run on: the one below our virtual environment, if there is one."""
    return os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)


def packages() -> list[str]:
    """Folders of installed packages that programs may import; code in their .pth files does not run."""
    return list(dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib")))


def command(bwrap: str, scratch_bytes: int) -> list[str]:
    """What precedes the interpreter on the command line.

    Root needs no user namespace, and would not be held by a limit on processes in one: its program becomes another
    user, see `user`, for which the launcher keeps two capabilities until it has done so.
    """
    if os.getuid() == 0:
        namespaces = (*_NAMESPACES, "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID")
    else:
        namespaces = ("--unshare-all", "--unshare-user", "--disable-userns")
    return [
        *(bwrap, "--die-with-parent", "--new-session", *namespaces),
        *_system(),
        *_read_only(dict.fromkeys((sys.base_prefix, os.path.realpath(sys.base_prefix), *packages()))),
        *("--dev", "/dev", "--perms", "0777", "--size", str(scratch_bytes), "--tmpfs", SCRATCH),
        *("--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/", "--"),
    ]


def _system() -> Iterable[str]:
    yield from ("--ro-bind", "/usr", "/usr")
    for path in (f"/{name}" for name in _SYSTEM):
        if os.path.islink(path):
            yield from ("--symlink", os.readlink(path), path)
        elif os.path.isdir(path):
            yield from ("--ro-bind", path, path)
    yield from ("--perms", "0755", "--dir", "/etc")
    for path in _FOR_THE_LOADER:
        yield from ("--ro-bind-try", path, path)


def _read_only(folders: Iterable[str]) -> Iterable[str]:
    shown = ["/usr"]
    for folder in folders:
        if not os.path.isdir(folder) or any(os.path.commonpath((above, folder)) == above for above in shown):
            continue
        for parent in reversed(Path(folder).parents[:-1]):  # bubblewrap's own would be closed to `nobody`
            yield from ("--perms", "0755", "--dir", str(parent))
        yield from ("--ro-bind", folder, folder)
        shown.append(folder)


def user() -> int:
    """Who root's program becomes: a user of its own, or `nobody` where a container has no more; 0 for who is not root.

    A limit on processes counts those of a user, so that programs with one user would count each other's.
    """
    if os.getuid() != 0:
        return 0
    with open("/proc/self/uid_map") as file:
        mapped = [range(int(first), int(first) + int(count)) for first, _, count in map(str.split, file)]
    own = random.SystemRandom().choice(_UNUSED)
    return own if any(own in uids for uids in mapped) else _NOBODY


def process_limit(processes: int, uid: int) -> int:
    """What RLIMIT_NPROC must be inside for `processes` of the program of a user.

    A user namespace counts its own, of which bubblewrap's reaper is one; for `nobody` the whole machine's count.
    """
    return processes + (_tasks_of(uid) if uid else 1)


def _tasks_of(uid: int) -> int:
    count = 0
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.stat(f"/proc/{name}").st_uid == uid:
                count += len(os.listdir(f"/proc/{name}/task"))
        except (FileNotFoundError, ProcessLookupError):
            pass  # it has just ended
    return count
