"""Where arrays live: a mesh of three axes, and one table from the logical axes of parameters to it.

Parameters carry logical axis names (`Model.param_axes`), the table below says which mesh axis splits each of them, and
GSPMD does the rest when a jitted function sees where its arguments live: the same code runs on one device and on many,
and a mesh of (1, 1, 1) is the laptop case.
"""

import collections
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from lrd_jax.errors import Refused
from lrd_jax.models import KeyValues, Model, ModelConfig
from lrd_jax.models.padding import fit, groups_of, padded_size
from lrd_jax.options import MESH_AXES, mesh_sizes
from lrd_jax.pods import place

Rules = Mapping[str, str | tuple[str, ...] | None]

RULES: Rules = {
    "batch": ("data", "fsdp"),
    "vocab": "tensor",
    "heads": "tensor",
    "kv_heads": "tensor",  # replicated where grouped heads are too few to split, see `param_shardings`
    "mlp": "tensor",
    "embed": "fsdp",
    "norm": None,
    "head_dim": None,
    "layers": None,
}


def make_mesh(data: int = 1, fsdp: int = 1, tensor: int = 1, devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh of Auto axes.

    Over several slices or, on CPUs, several processes, `data` goes across them as far as it reaches, then `fsdp`;
    `tensor`, which talks the most, stays inside one unless nothing else is left. Chips of one TPU slice are laid out by
    its own network, whichever hosts they are on.

    Args:
      data: copies of the model, each with its own share of the batch.
      fsdp: parts into which every matrix is cut along `embed`; it is gathered where used, so the batch is split too.
      tensor: parts into which heads, mlp and vocabulary are cut.
      devices: at least data * fsdp * tensor of them; the first ones are used. None: `jax.devices()`, and all of them
        where there are several processes.

    Raises:
      ValueError: a size below 1, too few devices, or a mesh that leaves out a part of several processes.
    """
    sizes = {"data": data, "fsdp": fsdp, "tensor": tensor}
    for axis, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise Refused(f"mesh axis {axis}={size!r} must be an integer of at least 1")
    if devices is not None and (
        not isinstance(devices, Sequence | np.ndarray)
        or not np.ndim(devices)
        or not all(hasattr(one, "process_index") for one in devices)
    ):
        raise Refused(f"devices must be a list of some of jax.devices(), got {devices!r:.200}")
    everywhere = devices is None
    devices = jax.devices() if devices is None else list(devices)
    count = math.prod(sizes.values())
    shape = " x ".join(f"{axis}={size}" for axis, size in sizes.items())
    if count > len(devices):
        raise Refused(f"a mesh of {shape} needs {count} devices, got {len(devices)}")
    if everywhere and jax.process_count() > 1 and count < len(devices):
        out = sorted({d.process_index for d in devices} - {d.process_index for d in devices[:count]})
        who = f", and leaves out processes {', '.join(map(str, out))}" if out else ""
        raise Refused(
            f"a mesh of {shape} takes {count} of the {len(devices)} devices of {jax.process_count()} processes{who}; "
            f"give sizes whose product is {len(devices)}"
        )
    axis_types = (AxisType.Auto,) * len(MESH_AXES)
    grid = _across(tuple(sizes.values()), devices[:count])
    if grid is None:
        return jax.make_mesh(tuple(sizes.values()), MESH_AXES, axis_types=axis_types, devices=devices[:count])
    return Mesh(grid, MESH_AXES, axis_types=axis_types)


def mesh_asked(text: str | None) -> Mesh | None:
    """The mesh that a command's `--mesh` names, such as "data=2,tensor=4"; None where it names none.

    Raises:
      ValueError: see `make_mesh`; or nothing is named, and several processes would each decode everything.
    """
    if text is not None:
        sizes = mesh_sizes(text)
        return make_mesh(data=sizes.get("data", 1), fsdp=sizes.get("fsdp", 1), tensor=sizes.get("tensor", 1))
    if jax.process_count() > 1:
        raise Refused(
            f"{jax.process_count()} processes with {jax.device_count()} devices in all were given no mesh: say how the "
            f"model lies over them, as in --mesh data={jax.device_count()} or --mesh tensor={jax.device_count()}"
        )
    return None


def param_shardings(model: Model, mesh: Mesh, rules: Rules = RULES) -> dict[str, Any]:
    """The `NamedSharding` of every parameter, in the structure of `params`.

    Every mesh axis must divide what it splits. Exceptions, by rule: a vocabulary and grouped heads that do not divide
    are lengthened (`padded_params`), and grouped KV heads are held whole by every device (they are small). Where every
    head has its own keys and values, heads are neither.

    Raises:
      ValueError: a rule is missing, names an axis that the mesh lacks, or puts one mesh axis twice on a parameter; or
        sizes that do not divide. Every problem is named in one message.
    """
    _check_mesh(mesh)
    if not isinstance(model, Model):
        raise Refused(f"model must be one such as load(...).model, got a {type(model).__name__}")
    rules = _with_small_kv_heads_whole(model.config, mesh, rules)
    axes, treedef = jax.tree.flatten_with_path(model.param_axes(), is_leaf=lambda x: isinstance(x, tuple))
    problems = _rule_problems(mesh, rules, axes)
    if not problems:
        shapes = [leaf.shape for leaf in jax.tree.leaves(_padded(model, mesh, rules))]
        problems = _size_problems(mesh, rules, [names for _, names in axes], shapes)
    if problems:
        raise Refused("; ".join(problems))
    specs = [PartitionSpec(*(rules[name] for name in names)) for _, names in axes]
    return jax.tree.unflatten(treedef, [NamedSharding(mesh, spec) for spec in specs])


def padded_params(model: Model, mesh: Mesh, rules: Rules = RULES, dtype: Any = np.float32) -> dict[str, Any]:
    """Every parameter as it lies on the mesh, a `jax.ShapeDtypeStruct` with its sharding, see `Model.abstract_params`.

    A vocabulary and grouped heads that the mesh does not divide are longer than the model's, see
    `lrd_jax.models.padding`.

    Raises:
      ValueError: see `param_shardings`.
    """
    shardings = param_shardings(model, mesh, rules)
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        _padded(model, mesh, rules, dtype),
        shardings,
    )


def fit_params(model: Model, params: dict[str, Any], like: dict[str, Any]) -> dict[str, Any]:
    """Parameters, or what is shaped as they are, in the lengths of `like`: padded with zeros, or cut."""
    return jax.tree.map(
        lambda leaf, names, wanted: _fit(model.config, leaf, names, wanted.shape),
        params,
        model.param_axes(),
        like,
        is_leaf=lambda x: isinstance(x, tuple),
    )


def shard(model: Model, params: dict[str, Any], mesh: Mesh, rules: Rules = RULES) -> dict[str, Any]:
    """Places `params` (host or device arrays) on the mesh: each device receives its own part and no more.

    Raises:
      ValueError: parameters of another structure than the model's; or see `param_shardings`.
    """
    shardings = param_shardings(model, mesh, rules)
    if jax.tree.structure(params) != jax.tree.structure(shardings):
        raise Refused(f"params must be those of the model, {', '.join(shardings)}; got {params!r:.200}")
    return place(fit_params(model, params, _padded(model, mesh, rules)), shardings)


def mesh_of(tree: Any) -> Mesh | None:
    """The mesh that an array of the tree lies on; None where none lies on any."""
    for leaf in jax.tree.leaves(tree):
        sharding = getattr(leaf, "sharding", None)
        if isinstance(sharding, NamedSharding) and isinstance(sharding.mesh, Mesh):
            return sharding.mesh
    return None


def batch_parts(mesh: Mesh | AbstractMesh, rules: Rules = RULES) -> int:
    """Into how many parts a mesh splits the rows of a batch."""
    _check_mesh(mesh)
    return _parts(mesh, rules["batch"])


def batch_sharding(mesh: Mesh, rules: Rules = RULES) -> NamedSharding:
    """Splits the leading axis of an array over the mesh axes of `batch`."""
    _check_mesh(mesh)
    return NamedSharding(mesh, PartitionSpec(rules["batch"]))


def shard_batch(batch: Any, mesh: Mesh, rules: Rules = RULES) -> Any:
    """Places arrays `[B, ...]`, prompts and their masks, on the mesh, their rows over `batch`.

    Raises:
      ValueError: B is not a multiple of the parts.
    """
    _check_mesh(mesh)
    parts = _parts(mesh, rules["batch"])
    if not all(isinstance(leaf, np.ndarray | jax.Array) and leaf.ndim for leaf in jax.tree.leaves(batch)):
        raise Refused(f"batch must hold arrays [B, ...], got {batch!r:.200}")
    for rows in {np.shape(leaf)[0] for leaf in jax.tree.leaves(batch)}:
        if rows % parts:
            raise Refused(
                f"a batch of {rows} rows does not split over {_named(mesh, rules['batch'])}; "
                f"pad it to {-(-rows // parts) * parts} rows, or choose parts that divide {rows}: {_divisors(rows)}"
            )
    return place(batch, batch_sharding(mesh, rules))


def _check_mesh(mesh: Any) -> None:
    if not isinstance(mesh, Mesh | AbstractMesh):
        raise Refused(f"mesh must be one of make_mesh, got {mesh!r:.200}")


def constrain_batch(x: jax.Array, rules: Rules = RULES) -> jax.Array:
    """Inside jit: keeps the rows of an activation `[B, ...]` split over `batch` and the rest of it whole.

    Left alone, GSPMD may cut activations along `embed` to fit weights that fsdp cut there, and every device then works
    on every row. Does nothing outside `jax.set_mesh(mesh)`, and nothing to a batch that does not split.
    """
    mesh, target = jax.sharding.get_abstract_mesh(), rules["batch"]
    if mesh.empty or not set(_axes(target)) <= set(mesh.axis_names) or x.shape[0] % _parts(mesh, target):
        return x
    return jax.lax.with_sharding_constraint(x, PartitionSpec(target, *[None] * (x.ndim - 1)))


def parts_of(name: str, rules: Rules = RULES) -> int:
    """Inside jit: into how many parts the mesh of `jax.set_mesh` cuts the axis of that name; 1 where none is set."""
    mesh, target = jax.sharding.get_abstract_mesh(), rules[name]
    return _parts(mesh, target) if set(_axes(target)) <= set(mesh.axis_names) else 1


def vocab_is_split() -> bool:
    """Inside jit: whether the mesh of `jax.set_mesh` cuts the vocabulary into parts."""
    return parts_of("vocab") > 1


def cache_spec(shape: tuple[int, ...], mesh: Mesh | AbstractMesh, rules: Rules = RULES) -> PartitionSpec:
    """How cached keys and values `[layers, B, S, K, H]` lie on a mesh: split as the rows and the heads that made them.

    Rows or grouped heads that do not split are held whole.

    Raises:
      ValueError: another shape.
    """
    if len(shape) != 5:
        raise Refused(f"shape must be that of cached keys [layers, B, S, K, H], got {shape!r:.80}")
    batch, kv_heads = (
        target if size % _parts(mesh, target) == 0 else None
        for size, target in ((shape[1], rules["batch"]), (shape[3], rules["kv_heads"]))
    )
    return PartitionSpec(None, batch, None, kv_heads, None)


def constrain_cache(cache: KeyValues, rules: Rules = RULES) -> KeyValues:
    """Inside jit: keeps cached keys and values `[layers, B, S, K, H]` where `cache_spec` says.

    Does nothing outside `jax.set_mesh(mesh)`.
    """
    return constrain_kept(cache, jax.tree.map(lambda _: 1, cache), rules)


def kept_spec(shape: tuple[int, ...], rows: int, mesh: Mesh | AbstractMesh, rules: Rules = RULES) -> PartitionSpec:
    """How an array that a decode's cache keeps lies on a mesh: keys and values as in `cache_spec`, others by rows.

    Args:
      rows: the axis of rows. Rows that do not split are held whole.
    """
    if len(shape) == 5:
        return cache_spec(shape, mesh, rules)
    split = rules["batch"] if shape[rows] % _parts(mesh, rules["batch"]) == 0 else None
    return PartitionSpec(*[split if axis == rows else None for axis in range(len(shape))])


def constrain_kept(kept: Any, row_axes: Any, rules: Rules = RULES) -> Any:
    """Inside jit: keeps what a cache keeps where `kept_spec` says.

    Does nothing outside `jax.set_mesh(mesh)`.

    Args:
      row_axes: the axis of rows of every array, in the structure of `kept`; None: all is left alone.
    """
    mesh = jax.sharding.get_abstract_mesh()
    axes = {axis for name in ("batch", "kv_heads") for axis in _axes(rules[name])}
    if row_axes is None or mesh.empty or not axes <= set(mesh.axis_names):
        return kept
    return jax.tree.map(
        lambda x, rows: jax.lax.with_sharding_constraint(x, kept_spec(x.shape, rows, mesh, rules)), kept, row_axes
    )


def _across(sizes: tuple[int, ...], devices: list[Any]) -> np.ndarray | None:
    """Devices `[data, fsdp, tensor]` in equal groups that a slower network joins; None where no such groups are."""
    groups = collections.Counter(getattr(device, "slice_index", None) for device in devices)
    by_process = len(groups) == 1 and devices[0].platform == "cpu"
    if by_process:
        groups = collections.Counter(device.process_index for device in devices)
    if len(groups) == 1 or len(set(groups.values())) > 1:
        return None
    between, left = [], len(groups)
    for size in sizes:
        between.append(math.gcd(size, left))
        left //= between[-1]
    inside = [size // groups for size, groups in zip(sizes, between, strict=True)]
    return mesh_utils.create_hybrid_device_mesh(inside, between, devices, process_is_granule=by_process)


def _padded(model: Model, mesh: Mesh, rules: Rules, dtype: Any = np.float32) -> dict[str, Any]:
    """Every parameter in the lengths that it has on the mesh."""

    def size(name: str, size: int) -> int:
        groups = groups_of(model.config, name)
        return size if groups is None else padded_size(size, groups, _parts(mesh, rules[name]))

    def padded(leaf: jax.ShapeDtypeStruct, names: tuple[str, ...]) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(tuple(map(size, names, leaf.shape)), leaf.dtype)

    return jax.tree.map(
        padded, model.abstract_params(dtype), model.param_axes(), is_leaf=lambda x: isinstance(x, tuple)
    )


def _fit(config: ModelConfig, leaf: Any, names: tuple[str, ...], shape: tuple[int, ...]) -> Any:
    for axis, (name, size) in enumerate(zip(names, shape, strict=True)):
        if leaf.shape[axis] != size and (groups := groups_of(config, name)) is not None:
            leaf = fit(leaf, axis, size, groups)
    return leaf


def _with_small_kv_heads_whole(config: ModelConfig, mesh: Mesh, rules: Rules) -> Rules:
    grouped = config.num_kv_heads < config.num_heads
    target = rules.get("kv_heads")
    if grouped and set(_axes(target)) <= set(mesh.axis_names) and config.num_kv_heads % _parts(mesh, target):
        return {**rules, "kv_heads": None}
    return rules


def _rule_problems(mesh: Mesh, rules: Rules, params: list[tuple[Any, tuple[str, ...]]]) -> list[str]:
    problems = {}  # ordered, and each problem once
    for path, names in params:
        owner: dict[str, str] = {}
        for name in names:
            if name not in rules:
                problems[f"no rule for logical axis {name!r}; known: {', '.join(rules)}"] = True
            for axis in _axes(rules.get(name)):
                if axis not in mesh.axis_names:
                    problems[f"rule {name!r} -> {axis!r}: the mesh has {', '.join(mesh.axis_names)}"] = True
                if axis in owner:
                    where = jax.tree_util.keystr(path, simple=True, separator=".")
                    problems[f"mesh axis {axis!r} is put twice on {where}, by {owner[axis]!r} and {name!r}"] = True
                owner[axis] = name
    return list(problems)


def _size_problems(mesh: Mesh, rules: Rules, axes: list[tuple[str, ...]], shapes: list[tuple[int, ...]]) -> list[str]:
    split: dict[Any, dict[str, int]] = {}  # by target: the sizes it has to divide
    for names, shape in zip(axes, shapes, strict=True):
        for name, size in zip(names, shape, strict=True):
            if rules[name] is not None:
                split.setdefault(rules[name], {})[name] = size
    problems = []
    for target, sizes in split.items():
        bad = [f"{name} ({size})" for name, size in sizes.items() if size % _parts(mesh, target)]
        if bad:
            counted = [size for name, size in sizes.items() if name != "kv_heads" or "heads" not in sizes]
            problems.append(
                f"{_named(mesh, target)} does not divide {', '.join(sorted(bad))}; "
                f"sizes that divide all it splits: {_divisors(math.gcd(*counted))}"
            )
    return problems


def _axes(target: str | tuple[str, ...] | None) -> tuple[str, ...]:
    if target is None:
        return ()
    return (target,) if isinstance(target, str) else tuple(target)


def _parts(mesh: Mesh | AbstractMesh, target: str | tuple[str, ...] | None) -> int:
    return math.prod(mesh.shape[axis] for axis in _axes(target))


def _named(mesh: Mesh, target: str | tuple[str, ...] | None) -> str:
    return "mesh axis " + " x ".join(f"{axis}={mesh.shape[axis]}" for axis in _axes(target))


def _divisors(n: int) -> str:
    return ", ".join(str(d) for d in range(1, n + 1) if n % d == 0)
