"""One program, run once within bounds, and how it went."""

import dataclasses
import enum
import os
import secrets
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from lrd_jax.research.sandbox import bubblewrap, launcher
from lrd_jax.research.sandbox.limits import Limits

_END_SECONDS = 5.0  # for a sandbox that was told to end
_INTERPRETER_OPTIONS = ("-s", "-S", "-P", "-B")  # no site, no folder of ours on the path, no .pyc files
_ENVIRONMENT = {"PYTHONHASHSEED": "0", "PYTHONUTF8": "1", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


class SandboxError(OSError):
    """There is no sandbox that may be used here, or it did not start."""


class Status(enum.StrEnum):
    """How a run ended."""

    EXITED = "exited"  # by itself or by a signal: see the exit code
    WALL_TIME = "wall time"
    CPU_TIME = "cpu time"
    OUTPUT = "output"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How one program went.

    Attributes:
      status: what ended it.
      exit_code: of its first process, 128 more than the number for a signal; None if the sandbox ended it.
      output: standard output and error as they came, at most `Limits.output_bytes` of them.
      seconds: wall time of the whole run.
    """

    status: Status
    exit_code: int | None
    output: str
    seconds: float


class Sandbox:
    """Runs Python programs that nobody has read.

    With bubblewrap, a program has no network and no processes to see but its own, reads nothing but /usr and the
    interpreter with its packages, writes nothing but a scratch folder in memory, has an environment of settings alone,
    and keeps to `limits`. Whatever it started is gone when `run` returns, and also when we are killed.

    Where there is none and `unsafe` is set, a supervisor of our own bounds wall time, processor time, memory, processes
    (counted 20 times a second), output and the size of a file; ends every process that the program started, also when
    we are killed; and removes the scratch folder. The program is still the same user on the same machine. It can

    - read whatever this user can read, the home folder first, and write wherever it can write;
    - use the network and what listens on it;
    - signal this user's processes, us and the supervisor among them, and by that outlive the run;
    - fill the disk with many files, and pass its processor time on to a new process.

    Args:
      limits: bounds of every run.
      unsafe: go on without bubblewrap where it is absent or does not work. Where it works it is used all the same.

    Attributes:
      isolated: whether bubblewrap is used.

    Raises:
      SandboxError: bubblewrap is absent or does not work and `unsafe` is not set, or nothing works. Found out by
        running a trial program.
    """

    def __init__(self, limits: Limits = Limits(), *, unsafe: bool = False):  # noqa: B008
        self.limits = limits
        self.isolated = True
        if not sys.platform.startswith("linux"):
            raise SandboxError(f"the sandbox for generated code needs Linux, and this is {sys.platform}")
        self._bwrap = shutil.which("bwrap")
        problem = self._trial() if self._bwrap else "bubblewrap (the command bwrap) is not installed"
        if problem is None:
            return
        if not unsafe:
            raise SandboxError(
                f"no sandbox for generated code: {problem}. Install bubblewrap (as in: apt install bubblewrap) where "
                "user namespaces are allowed, or pass --unsafe-code (unsafe=True): the code then has limits on time, "
                "memory and output, but can read and write this user's files and use the network"
            )
        self.isolated = False
        problem = self._trial()
        if problem is not None:
            raise SandboxError(f"no generated code can be run here: {problem}")

    def run(self, source: str) -> Outcome:
        """Runs one program; may be called from several threads.

        Args:
          source: the text of a module, which is imported under the name `program`, in the scratch folder, with nothing
            on its standard input.

        Raises:
          SandboxError: the sandbox did not come as far as the program. What goes wrong in the program is an outcome.
        """
        scratch = os.path.join(tempfile.gettempdir(), f"lrd-sandbox-{secrets.token_hex(8)}")
        start = time.monotonic()
        process = self._start(source, scratch)
        try:
            status, output = self._follow(process, start + self.limits.wall_seconds)
            seconds = time.monotonic() - start
        finally:
            self._end(process, scratch)
        text = output.removeprefix(launcher.STARTED)[: self.limits.output_bytes].decode(errors="replace")
        if not output.startswith(launcher.STARTED):
            raise SandboxError(f"the sandbox did not start ({status}): {text.strip()[-500:] or 'no message'}")
        if status is not Status.EXITED:
            return Outcome(status, None, text, seconds)
        code = process.returncode if process.returncode >= 0 else 128 - process.returncode
        if code == 128 + signal.SIGXCPU:
            return Outcome(Status.CPU_TIME, None, text, seconds)
        return Outcome(status, code, text, seconds)

    def _start(self, source: str, scratch: str) -> subprocess.Popen:
        limits = self.limits
        if self.isolated:
            around = bubblewrap.command(self._bwrap, limits.scratch_bytes)
            scratch, processes, parent = bubblewrap.SCRATCH, bubblewrap.process_limit(limits.processes), 0
        else:
            around, processes, parent = [], limits.processes, os.getpid()
        numbers = (limits.cpu_seconds, limits.memory_bytes, limits.scratch_bytes, processes, parent)
        command = [
            *(*around, bubblewrap.interpreter(), *_INTERPRETER_OPTIONS, "-c", Path(launcher.__file__).read_text()),
            *(scratch, os.pathsep.join(bubblewrap.packages()), *map(str, numbers)),
        ]
        with os.fdopen(os.memfd_create("program"), "wb") as file:  # a pipe would have to be fed while we read
            file.write(source.encode(errors="surrogatepass"))
            file.seek(0)
            return subprocess.Popen(
                command,
                stdin=file,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd="/",
                env={**_ENVIRONMENT, "HOME": scratch, "TMPDIR": scratch},
                start_new_session=True,
            )

    def _follow(self, process: subprocess.Popen, deadline: float) -> tuple[Status, bytes]:
        """Reads until everything inside has ended, which closes the pipe, or a bound is reached."""
        output = bytearray()
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while (left := deadline - time.monotonic()) > 0:
                if not selector.select(left):
                    continue
                chunk = os.read(process.stdout.fileno(), 1 << 16)
                if not chunk:
                    process.wait()
                    return Status.EXITED, bytes(output)
                output += chunk
                if len(output) > len(launcher.STARTED) + self.limits.output_bytes:
                    return Status.OUTPUT, bytes(output)
        return Status.WALL_TIME, bytes(output)

    def _end(self, process: subprocess.Popen, scratch: str) -> None:
        """Leaves nothing of a run, however far it came."""
        try:
            if process.poll() is None:
                if self.isolated:
                    os.killpg(process.pid, signal.SIGKILL)
                else:
                    process.terminate()  # the supervisor ends the rest
                self._wait_for_the_last(process)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            process.stdout.close()
            if os.path.lexists(scratch):
                launcher.remove(scratch)

    @staticmethod
    def _wait_for_the_last(process: subprocess.Popen) -> None:
        give_up = time.monotonic() + _END_SECONDS
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while (left := give_up - time.monotonic()) > 0:
                if selector.select(left) and not os.read(process.stdout.fileno(), 1 << 16):
                    return

    def _trial(self) -> str | None:
        """Why a good program does not pass here; None if it does."""
        trial = "import math, random\nopen('trial', 'w').close()\n"
        if self.limits.processes > 1:
            trial += "import os\nif os.fork() == 0:\n    os._exit(0)\nos.wait()\n"
        try:
            outcome = self.run(trial)
        except OSError as error:
            problem = str(error)
        else:
            if outcome.exit_code == 0:
                return None
            problem = f"a trial program failed ({outcome.status}): {outcome.output.strip()[-500:]}"
        return f"bubblewrap ({self._bwrap}) does not work: {problem}" if self.isolated else problem


def available() -> bool:
    """Whether bubblewrap works here, so that `Sandbox()` can be made."""
    try:
        Sandbox()
    except SandboxError:
        return False
    return True
