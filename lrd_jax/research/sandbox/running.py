"""One process inside, from its start to its end, and what it wrote."""

import enum
import importlib.util
import marshal
import os
import secrets
import selectors
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lrd_jax.research.sandbox import bubblewrap, launcher, seccomp, usage
from lrd_jax.research.sandbox.limits import Limits

_END_SECONDS = 5.0  # for a sandbox that was told to end
_INTERPRETER_OPTIONS = ("-s", "-S", "-P", "-B")  # no site, no folder of ours on the path, no .pyc files
_ENVIRONMENT = {"PYTHONHASHSEED": "0", "PYTHONUTF8": "1", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
_SENT = "lrd_jax.research.sandbox."


class Status(enum.StrEnum):
    """How a run ended."""

    EXITED = "exited"  # by itself or by a signal: see the exit code
    WALL_TIME = "wall time"
    CPU_TIME = "cpu time"
    MEMORY = "memory"  # of all its processes together, or of its files
    OUTPUT = "output"


class Running:
    """A process that was started behind the walls; leaving the context ends it and removes what is left.

    Args:
      bwrap: the path of bubblewrap, or None to go without.
      limits: of this process and of what it starts.
      task: a function of a module of this package, "module.function".
      arguments: of the function.
      descriptors: of ours, to be open inside under the same numbers.
      secret: whether nobody else may look into the process, as far as the system can hold that.

    Attributes:
      status: how it ended, None for as long as it runs.
    """

    def __init__(
        self,
        bwrap: str | None,
        limits: Limits,
        task: str,
        arguments: Sequence[Any],
        descriptors: Sequence[int] = (),
        *,
        secret: bool = False,
    ):
        self.status: Status | None = None
        self._limits, self._isolated = limits, bwrap is not None
        self._output = bytearray()
        self._scratch = os.path.join(tempfile.gettempdir(), f"lrd-sandbox-{secrets.token_hex(8)}")
        filter_ = seccomp.instructions(network=bwrap is None) if seccomp.supported() else b""
        module, _, function = task.partition(".")
        modules = {_SENT + name: _text(_SENT + name) for name in ("values", module)}
        sent = (filter_, modules, (_SENT + module, function), tuple(arguments), secret)
        with os.fdopen(os.memfd_create("task"), "wb") as file:  # a pipe would have to be fed while we read
            file.write(marshal.dumps(sent))
            file.seek(0)
            self._process = subprocess.Popen(
                self._command(bwrap),
                stdin=file,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd="/",
                env={**_ENVIRONMENT, "HOME": self._scratch, "TMPDIR": self._scratch},
                start_new_session=True,
                pass_fds=descriptors,
            )

    def _command(self, bwrap: str | None) -> list[str]:
        limits = self._limits
        if bwrap is None:
            around, processes, user, parent = [], limits.processes, 0, os.getpid()
        else:
            around = bubblewrap.command(bwrap, limits.scratch_bytes)
            self._scratch = bubblewrap.SCRATCH
            user, parent = bubblewrap.user(), 0
            processes = bubblewrap.process_limit(limits.processes, user)
        numbers = (limits.cpu_seconds, limits.memory_bytes, limits.scratch_bytes, processes, user, parent)
        return [
            *(*around, bubblewrap.interpreter(), *_INTERPRETER_OPTIONS, "-c", Path(launcher.__file__).read_text()),
            *(self._scratch, os.pathsep.join(bubblewrap.packages()), *map(str, numbers)),
        ]

    def __enter__(self) -> "Running":
        return self

    def __exit__(self, *_) -> None:
        self._end()

    @property
    def started(self) -> bool:
        """Whether it came as far as its task."""
        return self._output.startswith(launcher.STARTED)

    @property
    def output(self) -> bytes:
        """What it wrote so far, at most `Limits.output_bytes` of it."""
        return bytes(self._output.removeprefix(launcher.STARTED)[: self._limits.output_bytes])

    @property
    def exit_code(self) -> int | None:
        """128 more than the number for a signal; None if it runs or was ended."""
        if self.status is not Status.EXITED:
            return None
        code = self._process.returncode
        return code if code >= 0 else 128 - code

    def fileno(self) -> int:
        return self._process.stdout.fileno()

    def read(self) -> None:
        """Takes what there is to read; where that is the end, or too much, so is the status."""
        chunk = os.read(self.fileno(), 1 << 16)
        self._output += chunk
        if not chunk:
            self._process.wait()
            self.status = Status.EXITED
            if self.exit_code == 128 + signal.SIGXCPU:
                self.status = Status.CPU_TIME
        elif len(self._output) > len(launcher.STARTED) + self._limits.output_bytes:
            self.status = Status.OUTPUT

    def look(self) -> None:
        """Where its processes together hold too much, or it has too many files, so is the status."""
        if not self.started:
            return
        pids = list(usage.below(self._process.pid))
        alone = 2 if self._isolated else 1  # bubblewrap has a process inside; one of the program's has its own limit
        if len(pids) > alone and usage.memory(pids) > self._limits.memory_bytes:
            self.status = Status.MEMORY
        elif self._isolated and pids:
            files = usage.files(pids[-1], self._scratch)
            if files * usage.BYTES_OF_A_FILE > self._limits.scratch_bytes:
                self.status = Status.MEMORY

    def _end(self) -> None:
        """Leaves nothing of a run, however far it came."""
        process = self._process
        try:
            if process.poll() is None:
                if self._isolated:
                    os.killpg(process.pid, signal.SIGKILL)
                else:
                    process.terminate()  # the supervisor ends the rest
                self._wait_for_the_last()
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            process.stdout.close()
            if not self._isolated and os.path.lexists(self._scratch):
                launcher.remove(self._scratch)

    def _wait_for_the_last(self) -> None:
        give_up = time.monotonic() + _END_SECONDS
        with selectors.DefaultSelector() as selector:
            selector.register(self, selectors.EVENT_READ)
            while (left := give_up - time.monotonic()) > 0:
                if selector.select(left) and not os.read(self.fileno(), 1 << 16):
                    return


def follow(running: Sequence[Running], deadline: float, done: Callable[[], bool]) -> None:
    """Reads until everything in all of them has ended, which closes their pipes, or `done`, or one meets a bound."""
    with selectors.DefaultSelector() as selector:
        for one in running:
            selector.register(one, selectors.EVENT_READ)
        look = time.monotonic()
        while selector.get_map() and not done():
            now = time.monotonic()
            alive = [key.fileobj for key in selector.get_map().values()]
            for one in alive:
                if now >= deadline:
                    one.status = Status.WALL_TIME
                elif now >= look:
                    one.look()
            if any(one.status is not None for one in alive):
                return
            if now >= look:
                look = now + usage.LOOK_SECONDS
            for key, _ in selector.select(max(0.0, min(deadline, look) - now)):
                one = key.fileobj
                one.read()
                if one.status is Status.OUTPUT:
                    return
                if one.status is not None:
                    selector.unregister(one)


def _text(module: str) -> str:
    return Path(importlib.util.find_spec(module).origin).read_text()
