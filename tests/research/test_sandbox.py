"""Hostile programs, in bubblewrap where it works and under the supervisor everywhere.

Every sample also bounds itself: it counts to an end, and an alarm ends it in a sandbox that does not.
"""

import errno
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import textwrap
import threading
import time
import tracemalloc
from pathlib import Path

import pytest

from lrd_jax.research.sandbox import Limits, Sandbox, SandboxError, Status, available, seccomp
from lrd_jax.research.sandbox.usage import LOOK_SECONDS, below, memory

pytestmark = pytest.mark.slow

LIMITS = Limits(cpu_seconds=1, output_bytes=100_000, scratch_bytes=4 << 20)
ALARM = "import signal\nsignal.alarm(60)\n"
GOOD = "print('good')"


def make(kind: str, limits: Limits = LIMITS) -> Sandbox:
    """A sandbox of one kind, or a skipped test."""
    if kind == "unsafe":
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(shutil, "which", lambda name: None)
            return Sandbox(limits, unsafe=True)
    try:
        return Sandbox(limits)
    except SandboxError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module", params=["bubblewrap", "unsafe"])
def sandbox(request):
    return make(request.param)


@pytest.fixture(scope="module")
def isolated():
    return make("bubblewrap")


@pytest.fixture
def still_good(request):
    """After the test the sandbox runs a good program as before."""
    yield
    name = "sandbox" if "sandbox" in request.fixturenames else "isolated"
    outcome = request.getfixturevalue(name).run(GOOD)
    assert (outcome.exit_code, outcome.output) == (0, "good\n")


hostile = pytest.mark.usefixtures("still_good")


# What every sandbox holds.


@hostile
def test_endless_loop(sandbox):
    outcome = sandbox.run(ALARM + "while True: pass")
    assert outcome.status is Status.CPU_TIME and outcome.exit_code is None


@hostile
def test_300_forks(sandbox):
    forks = (
        "import os, time\nfor i in range(300):\n    if os.fork() == 0:\n        time.sleep(5)\n        os._exit(0)\n"
    )
    assert sandbox.run(ALARM + forks + "time.sleep(5)").exit_code in (1, 128 + signal.SIGKILL)


@hostile
def test_4_gigabytes(sandbox):
    outcome = sandbox.run(ALARM + "block = bytearray(4 << 30)")
    assert outcome.exit_code == 1 and "MemoryError" in outcome.output


@hostile
def test_printing_a_gigabyte(sandbox):
    tracemalloc.start()
    outcome = sandbox.run(ALARM + "for i in range(1000): print('x' * 1_000_000)")
    held = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert outcome.status is Status.OUTPUT and outcome.output == "x" * LIMITS.output_bytes
    assert held < 20 * LIMITS.output_bytes


@hostile
def test_a_file_above_the_limit(sandbox):
    outcome = sandbox.run(ALARM + "with open('big', 'wb') as file: file.write(bytes(8 << 20))")
    assert outcome.exit_code == 1 and "OSError" in outcome.output


@hostile
def test_signalling_the_parent(sandbox, monkeypatch, tmp_path):
    """Without bubblewrap that is the supervisor, which takes the program along; in it a process that hears nothing."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    outcome = sandbox.run(ALARM + "import os, time\nos.kill(os.getppid(), 9)\ntime.sleep(1)\nraise SystemExit(3)")
    assert outcome.exit_code in (1, 3, 128 + signal.SIGKILL) and not list(tmp_path.iterdir())


def test_a_process_that_leaves_the_session_ends_with_the_program(sandbox):
    """It holds the pipe that the run reads to its end."""
    leaves = "import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(40)\n"
    outcome = sandbox.run(ALARM + leaves)
    assert outcome.exit_code == 0 and outcome.seconds < 30


def test_the_environment_is_empty(sandbox, monkeypatch):
    monkeypatch.setenv("SECRET", "42")
    seen = set(sandbox.run("import os\nprint(*os.environ)").output.split())
    settings = {"PYTHONHASHSEED", "PYTHONUTF8", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "HOME", "TMPDIR", "PWD"}
    assert seen <= settings | {"LC_CTYPE"}


def test_a_session_of_its_own(sandbox):
    session, group = map(int, sandbox.run("import os\nprint(os.getsid(0), os.getpgid(0))").output.split())
    assert session != os.getsid(0) and group != os.getpgid(0)


def test_installed_packages_can_be_imported(sandbox):
    if not Path(sysconfig.get_path("purelib"), "pip").is_dir():
        pytest.skip("pip is not installed in this environment")
    assert sandbox.run("import pip").exit_code == 0


def test_standard_input_is_empty(sandbox):
    assert "EOFError" in sandbox.run("input()").output


def test_the_program_is_not_main(sandbox):
    assert sandbox.run("if __name__ == '__main__': raise SystemExit(3)").exit_code == 0


@pytest.mark.parametrize(("source", "code"), [("raise SystemExit(7)", 7), ("import os; os.abort()", 134), ("1 +", 1)])
def test_exit_codes(sandbox, source, code):
    outcome = sandbox.run(source)
    assert outcome.status is Status.EXITED and outcome.exit_code == code


@pytest.mark.parametrize("source", ["\ud800", "\0", "x = '" + "y" * 200_000 + "'\nprint(len(x))"])
def test_any_text_is_an_outcome(sandbox, source):
    assert sandbox.run(source).status is Status.EXITED


def test_what_it_wrote_is_gone(sandbox):
    written = sandbox.run(
        "import os\nos.makedirs('a/b')\nopen('a/b/c', 'w').close()\nos.chmod('a', 0)\nprint(os.getcwd())"
    )
    assert written.exit_code == 0 and not Path(written.output.strip()).exists()


@pytest.mark.parametrize("kind", ["bubblewrap", "unsafe"])
def test_wall_time(kind):
    outcome = make(kind, Limits(wall_seconds=3)).run(ALARM + "print('waits', flush=True)\nimport time\ntime.sleep(30)")
    assert outcome.status is Status.WALL_TIME and outcome.output == "waits\n" and 3 <= outcome.seconds < 20


@pytest.mark.parametrize("kind", ["bubblewrap", "unsafe"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_interrupted_it_leaves_nothing(kind, number, tmp_path):
    make(kind)
    memory = (1 << 30) + os.getpid()  # a mark on the command line of every process inside
    caller = (
        "import shutil, signal, sys\nfrom lrd_jax.research.sandbox import *\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"shutil.which = shutil.which if {kind == 'bubblewrap'} else lambda name: None\n"
        f"sandbox = Sandbox(Limits(memory_bytes={memory}), unsafe=True)\nprint('runs', flush=True)\n"
        "sandbox.run('import os, time\\nif os.fork() == 0: os.setsid()\\ntime.sleep(50)')"
    )
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-c", caller], env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout.readline() == b"runs\n"
        until(lambda: len(holding(memory)) >= 2)
        process.send_signal(number)
    assert process.returncode == -number
    until(lambda: not holding(memory) and not list(tmp_path.iterdir()))


def until(condition) -> None:
    give_up = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.05)


def holding(mark: int) -> list[str]:
    """Processes whose command line has a number as an argument."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and str(mark).encode() in (folder / "cmdline").read_bytes().split(b"\0"):
                found.append(folder.name)
        except OSError:
            pass
    return found


# What only bubblewrap holds.


@hostile
def test_reading_the_home_folder(isolated, tmp_path):
    (tmp_path / "secret").write_text("42")
    for path in (tmp_path / "secret", "/etc/passwd"):
        outcome = isolated.run(f"print(open({str(path)!r}).read())")
        assert outcome.exit_code == 1 and "FileNotFoundError" in outcome.output


def test_the_home_folder_holds_at_most_the_interpreter(isolated):
    listing = f"import os\nhome = {str(Path.home())!r}\nprint(*(os.listdir(home) if os.path.isdir(home) else ()))"
    seen = set(isolated.run(listing).output.split())
    assert seen <= {Path(path).relative_to(Path.home()).parts[0] for path in sys_paths() if Path.home() in path.parents}


def sys_paths() -> list[Path]:
    return [Path(path) for path in (sys.base_prefix, os.path.realpath(sys.base_prefix), sys.prefix)]


@hostile
def test_writing_outside(isolated, tmp_path):
    name = f"lrd-sandbox-test-{os.getpid()}"
    for folder in (str(tmp_path), "/", "/usr", "/dev", "/dev/shm", "/tmp", os.path.realpath(sys.base_prefix)):
        path = Path(folder, name)
        try:
            outcome = isolated.run(f"open({str(path)!r}, 'w').close()")
            assert outcome.exit_code == 1 and not path.exists()
        finally:
            path.unlink(missing_ok=True)


@hostile
def test_many_files_fill_no_more_than_the_scratch_folder(isolated):
    outcome = isolated.run(ALARM + "for i in range(20): open(str(i), 'wb').write(bytes(1 << 20))")
    assert outcome.exit_code == 1 and "No space left" in outcome.output


@hostile
def test_connecting_to_loopback(isolated):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
        connect = f"import socket\nsocket.create_connection({address}, timeout=5)"
        outcome = isolated.run(ALARM + connect)
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()
    assert outcome.exit_code == 1 and "Address family not supported" in outcome.output


@hostile
def test_signalling_us(isolated):
    heard = []
    before = signal.signal(signal.SIGUSR1, lambda *_: heard.append(True))
    try:
        outcome = isolated.run(f"import os, signal\nos.kill({os.getpid()}, signal.SIGUSR1)")
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert not heard and "ProcessLookupError" in outcome.output


@pytest.mark.parametrize("processes", [1, 3])
def test_as_many_processes_as_allowed(processes):
    forks = "import os, time\nn = 1\nwhile n < 20:\n    print(n, flush=True)\n    if os.fork() == 0:\n"
    forks += "        time.sleep(3)\n        os._exit(0)\n    n += 1\n"
    outcome = make("bubblewrap", Limits(processes=processes)).run(ALARM + forks)
    assert outcome.output.splitlines()[:processes][-1] == str(processes) and "BlockingIOError" in outcome.output


# Memory and system calls, with bubblewrap and without.

CALLS = (
    "import ctypes, fcntl, mmap, os, socket, time\nlibc = ctypes.CDLL(None, use_errno=True)\nkept = []\n"
    "def checked(result):\n    if result < 0: raise OSError(ctypes.get_errno(), 'refused')\n    return result\n"
)


def taking(step: str) -> str:
    """A program that takes 16 MiB a step until it is refused, 2 GiB at most, and says how many MiB it has."""
    loop = f"for i in range(128):\n{textwrap.indent(step, ' ' * 8)}\n        got += 16\n"
    return f"{ALARM}{CALLS}got = 0\ntry:\n    {loop}except (OSError, MemoryError):\n    pass\nprint('MiB', got)\n"


UNCHARGED = {
    "memfd": "os.posix_fallocate(os.memfd_create(str(i)), 0, 16 << 20)",
    "memfd, written": "os.write(os.memfd_create(str(i)), bytes(16 << 20))",
    "memfd of C": "os.truncate(checked(libc.memfd_create(b'x', 0)), 16 << 20)",
    "memfd of huge pages": "os.truncate(checked(libc.memfd_create(b'x', 4)), 16 << 20)",
    "secret memory": "os.truncate(checked(libc.syscall(447, 0)), 16 << 20)",
    "System V": "checked(libc.shmget(0, 16 << 20, 0o1600))",
    "System V, attached": "libc.shmat(checked(libc.shmget(i + 1, 16 << 20, 0o1600)), None, 0)",
    "System V, messages": "checked(libc.msgget(0, 0o1600))",
    "System V, semaphores": "checked(libc.semget(0, 30000, 0o1600))",
    "POSIX messages": "checked(libc.mq_open(b'/x%d' % i, os.O_CREAT | os.O_RDWR, 0o600, None))",
}


@hostile
@pytest.mark.parametrize("way", UNCHARGED)
def test_memory_that_no_process_is_charged_for_is_refused(sandbox, way):
    outcome = sandbox.run(taking(UNCHARGED[way]))
    assert outcome.output == "MiB 0\n"


# Between two looks at all processes together, what they take is bounded by nothing: these take a step a look.
PACE = f"time.sleep({2 * LOOK_SECONDS})\n"

SHARED = {
    "one process": "kept.append(bytearray(16 << 20))",
    "one mapping after the other": "kept.append(mmap.mmap(-1, 16 << 20))\nkept[-1].write(bytes(16 << 20))",
    "eight processes": "kept.append(bytearray(16 << 20))\nif i == 0:\n    [os.fork() for _ in range(3)]",
    "a process for each piece": "if os.fork():\n    os.wait()\n    break\nkept = [bytearray(100 << 20)]",
    "grown and then forked": "kept.append(bytearray(16 << 20))\nif i == 3:\n    [os.fork() for _ in range(2)]",
    "handed on": "m = mmap.mmap(-1, 99 << 20)\nm.write(bytes(99 << 20))\nif os.fork(): time.sleep(2), os._exit(0)",
}


def is_a_copy(pid):
    """Whether a process is this one's copy, which has not become the sandbox yet and is as large as the tests are."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() == Path("/proc/self/cmdline").read_bytes()
    except OSError:  # it has ended
        return True


@hostile
@pytest.mark.parametrize("kind", ["bubblewrap", "unsafe"])
@pytest.mark.parametrize("way", SHARED)
def test_all_processes_together_hold_little_more_than_one_may(kind, way, isolated):
    limits = Limits(memory_bytes=256 << 20, cpu_seconds=4, wall_seconds=60)
    outcomes, most = [], 0
    sandbox = make(kind, limits)
    thread = threading.Thread(target=lambda: outcomes.append(sandbox.run(taking(PACE + SHARED[way]))))
    thread.start()
    while thread.is_alive():
        most = max(most, memory(pid for pid in below(os.getpid()) if not is_a_copy(pid)))
        time.sleep(0.01)
    assert (16 << 20) < most < 2 * limits.memory_bytes
    assert outcomes[0].status is Status.MEMORY or "MiB" in outcomes[0].output


KERNELS = {
    "pipes": "r, w = os.pipe()\nfcntl.fcntl(w, 1031, 1 << 20)\nos.set_blocking(w, False)\nos.write(w, bytes(1 << 20))",
    "sockets": "kept.append(socket.socketpair())\nkept[-1][0].setblocking(False)\nkept[-1][0].send(bytes(1 << 20))",
    "connections that nobody accepts": "s = s if i else socket.socket(1)\nif i == 0: s.bind('x'), s.listen(4096)\n"
    "for _ in range(64):\n    c = socket.socket(1)\n    c.connect('x'), c.setblocking(False), c.send(bytes(100_000))",
    "a connection with itself": "c = socket.socket()\nc.bind(('127.0.0.1', 0))\nc.connect(c.getsockname())\n"
    "kept.append(c)\nc.setblocking(False)\nc.send(bytes(16 << 20))",
    "datagrams": "a = socket.socket(2, socket.SOCK_DGRAM)\na.bind(('127.0.0.1', 0))\nkept.append(a)",
    "files": "open(str(i), 'wb').write(bytes(16 << 20))",
    "deleted files": "kept.append(open(str(i), 'wb'))\nos.unlink(str(i))\nkept[-1].write(bytes(16 << 20))",
    "empty files": "for k in range(16384): os.close(os.open(f'{i} {k}', os.O_CREAT))",
    "links": "for k in range(16384): os.symlink('x' * 200, f'{i} {k}')",
    "names of one file": "open('x', 'w')\nfor k in range(16384): os.link('x', f'{i} {k}')",
    "folders": "for k in range(16384): os.mkdir(f'{i} {k}')",
    "attributes": "for k in range(99): open(f'{i} {k}', 'w'), os.setxattr(f'{i} {k}', 'user.x', bytes(60000))",
}


@hostile
@pytest.mark.parametrize("way", KERNELS)
def test_what_the_kernel_keeps_for_a_program_is_bounded(isolated, way):
    limits = Limits(scratch_bytes=32 << 20, cpu_seconds=8, wall_seconds=60)
    outcome = make("bubblewrap", limits).run(taking(KERNELS[way]).replace("got += 16", "got += 1"))
    steps = int(outcome.output.split()[-1]) if outcome.status is Status.EXITED else 0
    assert outcome.status is Status.MEMORY or steps < 64, outcome


def test_memory_of_a_process_that_closes_itself_to_other_eyes_counts(isolated):
    limits = Limits(memory_bytes=256 << 20, cpu_seconds=4, wall_seconds=60)
    source = ALARM + CALLS + "libc.prctl(4, 0)\nif os.fork(): os.fork()\nm = bytearray(150 << 20)\ntime.sleep(20)"
    assert make("bubblewrap", limits).run(source).status is Status.MEMORY


NUMBERS = {name: numbers[os.uname().machine != "x86_64"] for name, numbers in seccomp._REFUSED.items()}
SYSTEM_CALLS = {
    **{name: f"libc.syscall({number}, 0, 0, 0, 0, 0, 0)" for name, number in NUMBERS.items()},
    "a user namespace": "os.unshare(0x10000000) if hasattr(os, 'unshare') else checked(libc.unshare(0x10000000))",
    "a clone into a user namespace": "libc.syscall({clone}, 0x10000011, 0, 0, 0, 0)",
    "a clone into a file system's": "libc.syscall({clone}, 0x00020011, 0, 0, 0, 0)",
    "sockets to the machine's host": "socket.socket(40, socket.SOCK_STREAM)",
    "sockets of ciphers": "socket.socket(38, socket.SOCK_SEQPACKET)",
    "sockets of the kernel": "socket.socket(16, socket.SOCK_RAW)",
    "raw packets": "socket.socket(17, socket.SOCK_RAW)",
    "a pair of another kind": "socket.socketpair(socket.AF_TIPC)",
    "the numbers of x32": "libc.syscall(0x40000000 + 39)",
}
REFUSALS = {errno.ENOSYS, errno.EPERM, errno.EAFNOSUPPORT}


def test_system_calls_are_refused(sandbox):
    calls = [
        call.replace("{clone}", str(seccomp._CLONE[os.uname().machine != "x86_64"])) for call in SYSTEM_CALLS.values()
    ]
    source = f"{ALARM}{CALLS}me = os.getpid()\nfor call in {calls!r}:\n    try:\n        checked(eval(call))\n"
    source += "        if os.getpid() != me: os._exit(0)\n        print('done')\n"
    source += "    except OSError as error:\n        print(error.errno)"
    answers = dict(zip(SYSTEM_CALLS, sandbox.run(source).output.split(), strict=True))
    if os.uname().machine != "x86_64":
        answers.pop("the numbers of x32")
    assert not {name: answer for name, answer in answers.items() if answer not in map(str, REFUSALS)}


def test_another_table_of_system_calls_ends_the_program(sandbox):
    """The 32-bit one, where `memfd_create` has another number."""
    if os.uname().machine != "x86_64":
        pytest.skip("machine code of x86-64")
    code = bytes([0xB8, 20, 0, 0, 0, 0xCD, 0x80, 0xC3])  # mov eax, 20 (getpid); int 0x80; ret
    source = f"{ALARM}{CALLS}m = mmap.mmap(-1, 4096, prot=7)\nm.write({code!r})\n"
    source += "ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(m)))()\nprint('done')"
    assert sandbox.run(source).exit_code == 128 + signal.SIGSYS


@pytest.mark.parametrize(
    "source",
    [
        "from concurrent.futures import *\nwith ThreadPoolExecutor(2) as pool: print(*pool.map(abs, [-1, -2]))",
        "import subprocess, sys\nprint(subprocess.run([sys.executable, '-S', '-c', 'print(1)'], check=True))",
        "import asyncio\nprint(asyncio.run(asyncio.sleep(0, 3)))",
        "import socket\na, b = socket.socketpair()\na.send(b'x')\nprint(b.recv(1))",
        "import os\npid = os.fork()\nif pid: print(os.waitpid(pid, 0)[1] == 0)",
        "import tempfile\nwith tempfile.TemporaryFile() as file: print(file.write(b'x'))",
        "import sqlite3\nprint(sqlite3.connect(':memory:').execute('select 1').fetchall())",
    ],
)
def test_what_programs_use_works(sandbox, source):
    outcome = sandbox.run(source)
    assert outcome.exit_code == 0 and outcome.output, outcome


# Whether there is a sandbox at all.


def fake_bwrap(folder: Path, says: str) -> None:
    """A bubblewrap that is there and does not work."""
    (folder / "bwrap").write_text(f"#!/bin/sh\necho '{says}' >&2\nexit 1\n")
    (folder / "bwrap").chmod(0o755)


def test_without_bubblewrap_it_refuses(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(SandboxError, match=r"not installed.*--unsafe-code"):
        Sandbox()
    assert not available()


def test_bubblewrap_that_does_not_work_counts_as_absent(monkeypatch, tmp_path):
    fake_bwrap(tmp_path, "bwrap: no user namespaces here")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(SandboxError, match="no user namespaces here"):
        Sandbox()
    sandbox = Sandbox(unsafe=True)
    assert not sandbox.isolated and sandbox.run(GOOD).output == "good\n"


def test_a_sandbox_that_breaks_later_is_no_outcome(tmp_path):
    fake_bwrap(tmp_path, "bwrap: out of namespaces")
    sandbox = make("unsafe")
    sandbox.isolated, sandbox._bwrap = True, str(tmp_path / "bwrap")
    with pytest.raises(SandboxError, match=r"did not start.*out of namespaces"):
        sandbox.run(GOOD)


def test_limits_too_tight_for_python_are_an_error():
    with pytest.raises(SandboxError, match="no generated code can be run here"):
        Sandbox(Limits(memory_bytes=1 << 20), unsafe=True)


@pytest.mark.parametrize("bad", [{"wall_seconds": 0}, {"cpu_seconds": 1.5}, {"processes": 0}, {"output_bytes": True}])
def test_bad_limits_are_named(bad):
    (field,) = bad
    with pytest.raises(ValueError, match=rf"Limits\.{field}="):
        Limits(**bad)


def test_the_package_needs_no_jax():
    source = "import sys, lrd_jax.research.sandbox\nassert not {'jax', 'numpy', 'flax'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", source], check=True)
