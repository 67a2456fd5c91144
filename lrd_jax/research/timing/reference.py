"""The other side of a comparison: PyTorch generate functions in clones that the user has, in a process of their own."""

import contextlib
import dataclasses
import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import jax
import numpy as np

from lrd_jax.errors import Refused
from lrd_jax.research.timing.decoders import Canvas
from lrd_jax.research.timing.measure import Run

_RUNNER = Path(__file__).with_name("reference_runner.py")
_PLACES = ("", "llada", "v1/llada")  # of LLaDA's code within the clones
_NEEDS = "torch 'transformers<5' einops"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Counterpart:
    """A function of a reference that does the same work as a decoder.

    Attributes:
      decoder: a key of `lrd_jax.research.timing.decoders.DECODERS`.
      function: a function of generate.py.
      threshold: commits by confidence; a function without such a parameter is no counterpart.
    """

    decoder: str
    function: str
    threshold: bool = False

    def arguments(self, canvas: Canvas, mask_id: int) -> dict[str, Any]:
        """What the function is called with, beside model and prompt."""
        arguments = {
            "steps": canvas.steps,
            "gen_length": canvas.gen_length,
            "block_length": canvas.block_length or canvas.gen_length,
            "temperature": 0.0,
            "mask_id": mask_id,
        }
        return arguments | ({"threshold": canvas.threshold} if self.threshold else {})


COUNTERPARTS = (
    Counterpart(decoder="llada", function="generate"),
    Counterpart(decoder="threshold", function="generate", threshold=True),
    Counterpart(decoder="prefix", function="generate_with_prefix_cache"),
    Counterpart(decoder="dual", function="generate_with_dual_cache"),
    Counterpart(decoder="threshold+prefix", function="generate_with_prefix_cache", threshold=True),
    Counterpart(decoder="threshold+dual", function="generate_with_dual_cache", threshold=True),
)


class Reference:
    """A clone whose generate.py runs in a process of its own; a context manager that ends the process."""

    def __init__(self, clone: Path, modeling: Path, python: str):
        """Starts the process and imports the clone's code.

        Args:
          clone: a folder that `find_generate` finds something in.
          modeling: the folder of a modeling_llada.py.
          python: a Python with torch.

        Raises:
          ValueError: it cannot be run, or lacks what the clone imports.
        """
        self.name, self._python = clone.resolve().name, python
        with contextlib.ExitStack() as stack:
            self._noise = stack.enter_context(tempfile.TemporaryFile("w+"))
            self._process = self._start()
            stack.callback(self._process.communicate)  # closes what it reads and writes
            stack.callback(self._process.kill)
            where = {"generate": str(find_generate(clone)), "modeling": str(modeling)}
            answer = self._ask(do="open", threads=cores(), **where)
            self._end = stack.pop_all()
        self.functions: dict[str, list[str]] = answer["functions"]
        self.versions: dict[str, str] = answer["versions"]

    def can(self, counterpart: Counterpart) -> bool:
        """Whether the clone has this function."""
        parameters = self.functions.get(counterpart.function, [])
        return bool(parameters) and (not counterpart.threshold or "threshold" in parameters)

    def load(self, folder: Path, dtype: str) -> None:
        """Loads a Hugging Face folder with the clone's own code, on a GPU where this process decodes on one."""
        device = "cuda" if jax.default_backend() == "gpu" else "cpu"
        self._ask(do="load", folder=str(folder), dtype=dtype, device=device)

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


def find_generate(clone: Path) -> Path | None:
    """The generate.py of a clone."""
    return _find(clone, "generate.py", _PLACES)


def find_modeling(folder: Path) -> Path | None:
    """The folder of modeling_llada.py in a clone, or in the folder of a released model."""
    file = _find(folder, "modeling_llada.py", ("", "model", *(f"{place}/model" for place in _PLACES[1:])))
    return file and file.parent


def pair_up(folders: Sequence[Path]) -> list[tuple[Path, Path]]:
    """Clones with a generate.py, each with its own modeling code, else with the first that any of the folders has.

    Raises:
      ValueError: a folder with neither, none to run, or no modeling code.
    """
    for folder in folders:
        if find_generate(folder) is None and find_modeling(folder) is None:
            raise Refused(
                f"reference {folder} has no generate.py and no modeling_llada.py: "
                "name a clone of the LLaDA or the Fast-dLLM repository"
            )
    clones = [folder for folder in folders if find_generate(folder) is not None]
    if folders and not clones:
        raise Refused(f"reference {folders[0]} has no generate.py: name a clone of LLaDA or Fast-dLLM beside it")
    codes = [code for code in map(find_modeling, folders) if code is not None]
    if clones and not codes:
        raise Refused(
            f"reference {clones[0]} has no modeling_llada.py: name a folder that has one too, "
            "a clone of Fast-dLLM or the files of a released LLaDA model"
        )
    return [(clone, find_modeling(clone) or codes[0]) for clone in clones]


def _find(folder: Path, name: str, places: Sequence[str]) -> Path | None:
    return next((file.resolve() for place in places if (file := folder / place / name).is_file()), None)
