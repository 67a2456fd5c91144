"""The other side of a comparison: PyTorch generate functions in clones that the user has, in a process of their own."""

import contextlib
import dataclasses
import json
import os
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import jax
import numpy as np

from lrd_jax.errors import Refused
from lrd_jax.research.timing.clones import DKV_CACHE, DLLM_CACHE, LLADA, SPARSE_DLLM, Clone, Kind
from lrd_jax.research.timing.decoders import DKV, Canvas
from lrd_jax.research.timing.measure import Run

_RUNNER = Path(__file__).with_name("reference_runner.py")
_NEEDS = "torch 'transformers<5' einops"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Counterpart:
    """A function of a reference that does the same work as a decoder.

    Attributes:
      decoder: a key of `lrd_jax.research.timing.decoders.DECODERS`.
      kind: of the clones that have it.
      function: one of their generate functions.
      threshold: commits by confidence; a function without such a parameter is no counterpart.
      also: what else the function is called with.
    """

    decoder: str
    kind: Kind = LLADA
    function: str = "generate"
    threshold: bool = False
    also: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def arguments(self, canvas: Canvas, mask_id: int) -> dict[str, Any]:
        """What the function is called with, beside model and prompt."""
        arguments = {
            "steps": canvas.steps,
            "gen_length": canvas.gen_length,
            "block_length": canvas.window,
            "temperature": 0.0,
            "mask_id": mask_id,
        }
        return arguments | self.also | ({"threshold": canvas.threshold} if self.threshold else {})


COUNTERPARTS = (
    Counterpart(decoder="llada"),
    Counterpart(decoder="threshold", threshold=True),
    Counterpart(decoder="prefix", function="generate_with_prefix_cache"),
    Counterpart(decoder="dual", function="generate_with_dual_cache"),
    Counterpart(decoder="threshold+prefix", function="generate_with_prefix_cache", threshold=True),
    Counterpart(decoder="threshold+dual", function="generate_with_dual_cache", threshold=True),
    Counterpart(decoder="dllm", kind=DLLM_CACHE),
    Counterpart(decoder="sparse", kind=SPARSE_DLLM),
    Counterpart(decoder="dkv", kind=DKV_CACHE, also={"enable_cache": True, "cache_reloading_step": DKV.refresh_every}),
)


class Reference:
    """A clone whose code runs in a process of its own; a context manager that ends the process."""

    def __init__(self, clone: Clone, python: str):
        """Starts the process and imports the clone's code.

        Args:
          python: a Python with torch.

        Raises:
          ValueError: it cannot be run, or lacks what the clone imports.
        """
        self.name, self.kind, self._python = clone.name, clone.kind, python
        with contextlib.ExitStack() as stack:
            self._noise = stack.enter_context(tempfile.TemporaryFile("w+"))
            self._process = self._start()
            stack.callback(self._process.communicate)  # closes what it reads and writes
            stack.callback(self._process.kill)
            where = {"clone": clone.folder.resolve(), "generate": clone.generate, "modeling": clone.modeling}
            paths = {name: str(path) for name, path in where.items()}
            answer = self._ask(do="open", threads=cores(), package=clone.kind.package, **paths)
            self._end = stack.pop_all()
        self.functions: dict[str, list[str]] = answer["functions"]
        self.versions: dict[str, str] = answer["versions"]

    def can(self, counterpart: Counterpart) -> bool:
        """Whether the clone has this function."""
        if counterpart.kind is not self.kind:
            return False
        parameters = self.functions.get(counterpart.function, [])
        return bool(parameters) and (not counterpart.threshold or "threshold" in parameters)

    def load(self, folder: Path, dtype: str, canvas: Canvas) -> None:
        """Loads a Hugging Face folder with the clone's own code, on a GPU where this process decodes on one."""
        device = "cuda" if jax.default_backend() == "gpu" else "cpu"
        settle = {"kind": self.kind.name, "settings": self.kind.settings(canvas)}
        self._ask(do="load", folder=str(folder), dtype=dtype, device=device, **settle)

    def run(self, function: str, prompt: np.ndarray, arguments: dict[str, Any]) -> Run:
        """One call of a function."""
        return Run(**self._ask(do="run", function=function, prompt=prompt.tolist(), arguments=arguments))

    def _ask(self, **request: Any) -> dict[str, Any]:
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            self._noise.seek(0)
            last = self._noise.read().strip().rpartition("\n")[2]
            raise Refused(f"reference {self.name} ended ({self._python}): {last or 'it said nothing'}")
        answer = json.loads(line)
        if "missing" in answer:
            raise Refused(
                f"reference {self.name} needs {answer['missing']}, which {self._python} lacks: install it there "
                f"({self._python} -m pip install {_NEEDS}), or name a Python that has it with --reference-python"
            )
        if "error" in answer:
            raise Refused(f"reference {self.name} failed: {answer['error']}")
        return answer

    def _start(self) -> subprocess.Popen:
        try:
            return subprocess.Popen(
                [self._python, str(_RUNNER)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._noise,
                text=True,
                env={**os.environ, "HF_HUB_OFFLINE": "1"},  # everything is at hand
            )
        except OSError as error:
            raise Refused(f"reference_python={self._python} cannot be run: {error.strerror}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        self._end.close()


def cores() -> int:
    """Cores that this process may use, and so the threads of both sides."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
