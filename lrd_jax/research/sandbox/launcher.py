"""What runs inside, as the text of `python -c`: it takes the limits upon itself, then does its task.

The task arrives on standard input: modules of this package as text, and which function of them to call with what.
Where there is no bubblewrap, the process first splits: the task runs in a child, and a supervisor stays to end and tidy
up whatever happens to either side.

Imports only what starts fast, and nothing of this package, of which only what was sent is there inside.
"""

import ctypes
import marshal
import os
import resource
import signal
import sys
import time
import types

STARTED = b"\x1e"  # the first byte of the output, once every limit holds
KILLED = 128 + signal.SIGKILL
POLL_SECONDS, END_SECONDS = 0.05, 2.0

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 1, 4, 22, 36, 38
_SECCOMP_MODE_FILTER = 2


def main() -> None:
    """Arguments: scratch folder; package folders joined by os.pathsep; cpu seconds; bytes of memory; bytes of a file;
    processes; the user to become, 0 for none; the process whose end is also ours, 0 where bubblewrap sees to that."""
    scratch, packages, *numbers = sys.argv[1:]
    cpu, memory, file_bytes, processes, user, parent = map(int, numbers)
    prctl(_PR_SET_DUMPABLE, 0)  # nobody of the same user reads what now arrives
    filter_, modules, (module, function), arguments, secret = marshal.loads(sys.stdin.buffer.read())
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.umask(0o022)
    if parent:
        supervise(parent, scratch, processes)
    else:
        if user:
            become(user)
        limit(resource.RLIMIT_NPROC, processes, processes)
    prctl(_PR_SET_DUMPABLE, int(not secret))
    os.chdir(scratch)
    for kind, soft, hard in (
        (resource.RLIMIT_CPU, cpu, cpu + 1),  # SIGXCPU, which tells why, then SIGKILL
        (resource.RLIMIT_AS, memory, memory),
        (resource.RLIMIT_FSIZE, file_bytes, file_bytes),
        (resource.RLIMIT_NOFILE, 64, 64),
        (resource.RLIMIT_CORE, 0, 0),
    ):
        limit(kind, soft, hard)
    refuse(filter_)
    sys.argv = ["program.py"]
    own = [] if secret else [scratch]  # nothing is imported from a folder that the program may reach
    sys.path = [*own, *sys.path, *packages.split(os.pathsep)]
    for name, text in modules.items():
        sys.modules[name] = types.ModuleType(name)
        exec(compile(text, name, "exec"), vars(sys.modules[name]))
    os.write(1, STARTED)
    getattr(sys.modules[module], function)(*arguments)


def prctl(*arguments: int) -> None:
    padded = (*arguments, 0, 0, 0, 0)[:5]
    if ctypes.CDLL(None, use_errno=True).prctl(*map(ctypes.c_ulong, padded)):
        raise OSError(ctypes.get_errno(), f"prctl{arguments}: {os.strerror(ctypes.get_errno())}")


def refuse(filter_: bytes) -> None:
    """Installs a seccomp filter, see `seccomp`; none where it is empty."""

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))

    prctl(_PR_SET_NO_NEW_PRIVS, 1)
    if filter_:
        program = Program(len(filter_) // 8, filter_)
        prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(program))


def limit(kind: int, soft: int, hard: int) -> None:
    """Sets a limit, or keeps what is tighter already and could not be raised."""
    present = resource.getrlimit(kind)[1]
    if present != resource.RLIM_INFINITY:
        hard = min(hard, present)
    resource.setrlimit(kind, (min(soft, hard), hard))


def become(user: int) -> None:
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)


def supervise(parent: int, scratch: str, processes: int) -> None:
    """Makes the scratch folder and returns in a child, in a session of its own. The other side never returns.

    It ends everything that descends from it, whatever session that went to, when the child ends, when there are too
    many processes, on SIGTERM, and when `parent` dies; removes the scratch folder; and exits as the child did, with
    128 more than the signal's number for a signal.
    """
    awaited = {signal.SIGTERM, signal.SIGCHLD}
    for number in awaited:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_BLOCK, awaited)
    prctl(_PR_SET_CHILD_SUBREAPER, 1)
    prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it died before we could ask to be told
        os._exit(1)
    os.mkdir(scratch, 0o700)
    supervisor = os.getpid()
    child = os.fork()
    if child == 0:
        os.setsid()
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        if os.getppid() != supervisor:
            os._exit(1)
        return
    status = KILLED
    try:
        status = wait_for(child, awaited, processes)
    finally:
        end_descendants(child)
        remove(scratch)
        os._exit(status)


def wait_for(child: int, awaited: set[signal.Signals], processes: int) -> int:
    """The exit status of the child; that of a killed one if it was asked to end, or if there were too many of it."""
    while True:
        received = signal.sigtimedwait(awaited, POLL_SECONDS)
        if received is not None and received.si_signo == signal.SIGTERM:
            return KILLED
        pid, status = os.waitpid(-1, os.WNOHANG)
        while pid:
            if pid == child:
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else 128 - code
            pid, status = os.waitpid(-1, os.WNOHANG)
        if tasks_below(os.getpid()) > processes:
            os.write(1, b"\nmore than %d processes\n" % processes)
            return KILLED


def children(pid: int) -> list[int]:
    found = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children") as file:
                found += map(int, file.read().split())
    except (FileNotFoundError, ProcessLookupError):
        return []  # it has just ended
    return found


def tasks_below(pid: int) -> int:
    """How many processes and threads descend from a process."""
    count = 0
    for child in children(pid):
        try:
            count += len(os.listdir(f"/proc/{child}/task")) + tasks_below(child)
        except FileNotFoundError:
            continue
    return count


def end_descendants(child: int) -> None:
    """Kills and reaps all that descends from us: first a whole group at once, then whoever left it."""
    give_up = time.monotonic() + END_SECONDS
    kill(-child)
    while time.monotonic() < give_up:
        for pid in children(os.getpid()):
            kill(pid)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def remove(folder: str) -> None:
    """Removes a folder however deep it is and whatever its permissions are."""
    for command in (["chmod", "-Rf", "u+rwx", folder], ["rm", "-rf", folder]):
        os.waitpid(os.posix_spawnp(command[0], command, {}), 0)


if __name__ == "__main__":
    main()
