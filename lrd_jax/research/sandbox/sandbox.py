"""Programs that nobody has read, run within bounds, and how they went."""

import contextlib
import dataclasses
import os
import secrets
import shutil
import sys
import time

from lrd_jax.errors import Refused
from lrd_jax.research.sandbox import seccomp
from lrd_jax.research.sandbox.exam import Exam
from lrd_jax.research.sandbox.judging import GONE
from lrd_jax.research.sandbox.limits import Limits
from lrd_jax.research.sandbox.running import Running, Status, follow


class SandboxError(OSError):
    """There is no sandbox that may be used here, or it did not start."""


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


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Whether a program passed its tests, and how its run went."""

    passed: bool
    outcome: Outcome


class Sandbox:
    """Runs Python programs that nobody has read.

    With bubblewrap, a program has no network and no processes to see but its own, reads nothing but /usr and the
    interpreter with its packages, writes nothing but a scratch folder in memory, has an environment of settings alone,
    and keeps to `limits`. Whatever it started is gone when `run` returns, and also when we are killed. Tests of a
    program run behind the same walls, in another sandbox.

    Where there is none and `unsafe` is set, a supervisor of our own bounds wall time, processor time, memory, processes
    (counted 20 times a second), output and the size of a file; ends every process that the program started, also when
    we are killed; and removes the scratch folder. The same system calls are refused. The program is still the same user
    on the same machine. It can

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
      ValueError: limits that are none.
      SandboxError: bubblewrap is absent or does not work and `unsafe` is not set, or nothing works. Found out by
        running a trial program.
    """

    def __init__(self, limits: Limits = Limits(), *, unsafe: bool = False):  # noqa: B008
        if not isinstance(limits, Limits):
            raise Refused(f"limits must be Limits, got a {type(limits).__name__}")
        self.limits = limits
        self.isolated = True
        if not sys.platform.startswith("linux"):
            raise SandboxError(f"the sandbox for generated code needs Linux, and this is {sys.platform}")
        self._bwrap = shutil.which("bwrap")
        problem = self._missing() or self._trial()
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
          ValueError: the source is no text.
          SandboxError: the sandbox did not come as far as the program. What goes wrong in the program is an outcome.
        """
        if not isinstance(source, str):
            raise Refused(f"source must be the text of a program, got a {type(source).__name__}")
        start = time.monotonic()
        with Running(self._walls(), self.limits, "answering.run", (source,)) as program:
            follow([program], start + self.limits.wall_seconds, lambda: False)
            seconds = time.monotonic() - start
        _check_started(program)
        return Outcome(program.status, program.exit_code, _text(program.output), seconds)

    def examine(self, exam: Exam) -> Verdict:
        """Runs a program and, behind walls of their own, its tests; may be called from several threads.

        The outcome is that of the tests; where the program met a limit or ended before them, the program's. Its output
        is what both wrote.

        Raises:
          SandboxError: the sandbox did not come as far as the program or its tests.
        """
        start = time.monotonic()
        token = secrets.token_hex(16)
        with contextlib.ExitStack() as stack:
            (questions, asks), (answers, tells) = pipes = (os.pipe(), os.pipe())
            try:
                asks_with = (exam.given, exam.tests, exam.asked(), exam.modules(), token, answers, asks)
                tests = stack.enter_context(
                    Running(self._walls(), self.limits, "judging.judge", asks_with, (answers, asks), secret=True)
                )
                answers_with = (exam.program, questions, tells)
                program = stack.enter_context(
                    Running(self._walls(), self.limits, "answering.answer", answers_with, (questions, tells))
                )
            finally:
                for end in (end for pipe in pipes for end in pipe):
                    os.close(end)

            def judged() -> bool:
                return tests.status is not None and tests.exit_code != GONE

            follow([tests, program], start + self.limits.wall_seconds, judged)
            seconds = time.monotonic() - start
        for side in (program, tests):
            _check_started(side)
        passed = tests.exit_code == 0 and tests.output.endswith(token.encode())
        output = _text(program.output + tests.output.removesuffix(token.encode()))
        if passed:
            return Verdict(True, Outcome(Status.EXITED, 0, output, seconds))
        for side in (program, tests):
            if side.status not in (None, Status.EXITED):
                return Verdict(False, Outcome(side.status, None, output, seconds))
        ended = program if tests.exit_code == GONE else tests
        return Verdict(False, Outcome(Status.EXITED, ended.exit_code, output, seconds))

    def _walls(self) -> str | None:
        return self._bwrap if self.isolated else None

    def _missing(self) -> str | None:
        if not self._bwrap:
            return "bubblewrap (the command bwrap) is not installed"
        if not seccomp.supported():
            return f"which system calls to refuse is not known for {os.uname().machine}"
        return None

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


def _check_started(running: Running) -> None:
    if running.status is not None and not running.started:
        said = _text(running.output).strip()[-500:] or "no message"
        raise SandboxError(f"the sandbox did not start ({running.status}): {said}")


def _text(output: bytes) -> str:
    return output.decode(errors="replace")


def available() -> bool:
    """Whether bubblewrap works here, so that `Sandbox()` can be made."""
    try:
        Sandbox()
    except SandboxError:
        return False
    return True
