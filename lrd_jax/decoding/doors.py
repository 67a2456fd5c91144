"""What else a decoder is handed, checked where it comes in: models, parameters, states; see `request` for prompts."""

import functools
from typing import Any

import jax
from jax.sharding import Mesh

from lrd_jax.decoding.compiling import on_mesh_of
from lrd_jax.decoding.config import DecodeConfig
from lrd_jax.decoding.model import Denoiser
from lrd_jax.decoding.request import Request
from lrd_jax.decoding.setting import check_rows
from lrd_jax.decoding.start import init_state
from lrd_jax.decoding.state import DecodeState
from lrd_jax.errors import Refused
from lrd_jax.sharding import mesh_of, padded_params

Shapes = tuple[Any, ...]  # a tree's structure, and the shape and dtype of every leaf


def check_model(model: Any) -> None:
    """Raises ValueError for what cannot be decoded with, see `Denoiser`."""
    if missing := [name for name in ("config", "embed", "table", "logits") if not hasattr(model, name)]:
        hint = "; pass its .model" if hasattr(model, "model") else ""
        raise Refused(f"model must be one such as load(...).model, got a {type(model).__name__}{hint}: no {missing[0]}")


def check_params(model: Denoiser, params: Any) -> None:
    """Raises ValueError where the parameters are not those of a model that tells their shapes."""
    shapes = getattr(model, "abstract_params", None)
    if shapes is None:
        return
    wanted, treedef = _wanted_params(model)
    try:
        got = jax.tree.structure(params)
    except ValueError:  # keys that cannot be sorted
        got = None
    if got != treedef:
        raise Refused(f"params must be those of the model, {', '.join(wanted)}; got {_names(params)}: load(...).params")
    for (name, shape), leaf in zip(wanted.items(), jax.tree.leaves(params), strict=True):
        if getattr(leaf, "shape", None) != shape and not _is_padded(model, name, leaf):
            raise Refused(f"params: {name} must have shape {list(shape)}, got {getattr(leaf, 'shape', type(leaf))}")


def check_state(state: Any, model: Denoiser, params: Any, config: DecodeConfig, known: set[Shapes]) -> None:
    """Checks that a state is one that `start` of this decoder could have given.

    Args:
      known: of states that have passed; a new one is added.

    Raises:
      ValueError: no state, that of another decoder, or one without keys where tokens or their order are drawn.
    """
    if not isinstance(state, DecodeState):
        raise Refused(f"state must be a DecodeState of this decoder, got {type(state).__name__}")
    check_rows(config, len(state.masked))
    if state.keys is None and config.draws is True:
        raise Refused("this decoder draws at random and the state was started without a key; start it with one")
    shapes = _shapes(state)
    if shapes in known:
        return
    request = Request(state.prompt, state.prompt_mask, state.keys, state.length, None)
    with on_mesh_of(params):
        fresh = jax.eval_shape(functools.partial(init_state, model), params, config, request)
    if shapes != _shapes(fresh):
        raise Refused("state belongs to a decoder of another structure; advance it with the one that started it")
    known.add(shapes)


def _shapes(tree: Any) -> Shapes:
    leaves, treedef = jax.tree.flatten(tree)
    return (treedef, *((leaf.shape, leaf.dtype) for leaf in leaves))


@functools.lru_cache(maxsize=16)
def _wanted_params(model: Any) -> tuple[dict[str, tuple[int, ...]], Any]:
    """Name -> shape of every parameter, and their structure."""
    leaves, treedef = jax.tree.flatten_with_path(model.abstract_params())
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf.shape for path, leaf in leaves}, treedef


def _is_padded(model: Any, name: str, leaf: Any) -> bool:
    """Whether a parameter is that of the model in the lengths that a mesh gave it."""
    mesh = mesh_of(leaf)
    return mesh is not None and leaf.shape == _shapes_on(model, mesh)[name]


@functools.lru_cache(maxsize=16)
def _shapes_on(model: Any, mesh: Mesh) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree.leaves_with_path(padded_params(model, mesh))
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf.shape for path, leaf in leaves}


def _names(params: Any) -> str:
    return f"{', '.join(map(str, params))}" if isinstance(params, dict) and params else f"a {type(params).__name__}"
