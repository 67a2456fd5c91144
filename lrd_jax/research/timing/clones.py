"""What the folders that `--reference` names are: repositories whose layouts are known, and where their code lies."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lrd_jax.errors import Refused
from lrd_jax.research.timing.decoders import DLLM, SPARSE, Canvas


def _nothing(canvas: Canvas) -> dict[str, Any]:
    return {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kind:
    """A repository, or some of one layout.

    Attributes:
      name: what it is called; a reference that asks to be settled is a key of `SETTLERS` in the runner.
      generate: where the file of its generate functions may be.
      modeling: where the file of its LLaDA class may be.
      package: by what name its code imports the modeling file's folder.
      borrows: whether LLaDA's released modeling code does where it has none.
      grouped: whether its code knows heads that share keys.
      settings: what it is told with the weights, beside what its functions are called with.
    """

    name: str
    generate: tuple[str, ...]
    modeling: tuple[str, ...]
    package: str = "model"
    borrows: bool = False
    grouped: bool = True
    settings: Callable[[Canvas], dict[str, Any]] = _nothing


LLADA = Kind(
    name="LLaDA or Fast-dLLM",
    generate=("generate.py", "llada/generate.py", "v1/llada/generate.py"),
    modeling=tuple(f"{place}modeling_llada.py" for place in ("", "model/", "llada/model/", "v1/llada/model/")),
    borrows=True,
)
DLLM_CACHE = Kind(
    name="dLLM-Cache",
    generate=("utils/generate_function.py",),
    modeling=("mmada_models/modeling_llada.py",),
    borrows=True,
    grouped=False,
    settings=lambda canvas: {
        "prompt_interval_steps": DLLM.prompt_every,
        "gen_interval_steps": DLLM.response_every,
        "transfer_ratio": DLLM.rho,
    },
)
SPARSE_DLLM = Kind(
    name="Sparse-dLLM",
    generate=("opencompass/models/sparse_dllm/llada_generate.py",),
    modeling=("opencompass/models/sparse_dllm/modeling_llada.py",),
    settings=lambda canvas: {
        "block_len": canvas.window,
        "kernel_size": SPARSE.kernel_size,
        "keep_ratio": SPARSE.keep_ratio,
    },
)
DKV_CACHE = Kind(
    name="dKV-Cache",
    generate=("generation_utils/llada_dkv_cache_decode.py",),
    modeling=("models/modeling_llada_dkv_cache_decode.py",),
    package="models",
    grouped=False,
)
KINDS = (LLADA, DLLM_CACHE, SPARSE_DLLM, DKV_CACHE)
_NAMES = "LLaDA, Fast-dLLM, dLLM-Cache, Sparse-dLLM or dKV-Cache"


@dataclasses.dataclass(frozen=True)
class Clone:
    """A folder with generate functions.

    Attributes:
      folder: as the user named it.
      generate: the file of the functions.
      modeling: the file of the class that they run; another folder's where it has none of its own.
    """

    folder: Path
    kind: Kind
    generate: Path
    modeling: Path

    @property
    def name(self) -> str:
        return self.folder.resolve().name


def pair_up(folders: Sequence[Path]) -> list[Clone]:
    """The folders with generate functions, each with its own modeling code, else with the first that any lends.

    Raises:
      ValueError: a folder with neither, none to run, or no modeling code.
    """
    found = [(folder, *_kind_of(folder)) for folder in folders]
    lent = [code for folder in folders if (code := _find(folder, LLADA.modeling))]
    for folder, kind, _ in found:
        if kind is None and not _find(folder, LLADA.modeling):
            raise Refused(f"reference {folder} has no generate.py and no modeling_llada.py: name a clone of {_NAMES}")
    clones = []
    for folder, kind, generate in found:
        if kind is None:
            continue
        modeling = _find(folder, kind.modeling) or next(iter(lent if kind.borrows else ()), None)
        if modeling is None:
            raise Refused(f"reference {folder} has no {Path(kind.modeling[0]).name}: {_what_to_do(kind)}")
        clones.append(Clone(folder, kind, generate, modeling))
    if folders and not clones:
        raise Refused(f"reference {folders[0]} has no generate.py: name a clone of {_NAMES} beside it")
    return clones


def _what_to_do(kind: Kind) -> str:
    if kind.borrows:
        return "name a folder that has one too, a clone of Fast-dLLM or the files of a released LLaDA model"
    return f"name a whole clone of {kind.name}"


def _kind_of(folder: Path) -> tuple[Kind, Path] | tuple[None, None]:
    for kind in KINDS:
        if generate := _find(folder, kind.generate):
            return kind, generate
    return None, None


def _find(folder: Path, places: Sequence[str]) -> Path | None:
    return next((file.resolve() for place in places if (file := folder / place).is_file()), None)
