"""Hostile programs, in bubblewrap where it works and under the supervisor everywhere.

Every sample also bounds itself: it counts to an end, and an alarm ends it in a sandbox that does not.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
import tracemalloc
from pathlib import Path

import pytest

from lrd_jax.research.sandbox import Limits, Sandbox, SandboxError, Status, available

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
    assert outcome.exit_code == 1 and "ConnectionRefusedError" in outcome.output


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
