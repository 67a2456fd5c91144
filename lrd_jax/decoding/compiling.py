"""The one place where a program's surroundings are set, by where its arguments live: compiler options and the mesh."""

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from lrd_jax.sharding import mesh_of

# Left to itself, XLA's CPU backend fuses the head's product with the reduction that reads the logits, and the fused
# product leaves the fast matmul. Products by themselves keep it. Reductions stay with XLA: given them, the library of
# jaxlib 0.10.2 sums some wrong (jax#39103), see docs/performance.md.
CPU = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"}

# A CPU multiplies bfloat16 and integers in float32, and the compiler would convert all weights once, before the loop:
# two and four times their size in memory that a machine which keeps narrow weights is unlikely to have.
CPU_NARROW = {"xla_disable_hlo_passes": "while-loop-invariant-code-motion"}


@functools.cache
def compiler_options(platform: str | None, narrow: bool = False) -> dict[str, str]:
    """The options for a platform ("cpu", "tpu", ...; None: unknown): those that the installed compiler knows.

    Args:
      narrow: the parameters are bfloat16 or int8, some of them at least.
    """
    options = {}
    for wanted in (CPU, CPU_NARROW if narrow else {}) if platform == "cpu" else ():
        with jax.default_device(jax.local_devices(backend="cpu")[0]):
            try:
                jax.jit(lambda: 0, compiler_options=wanted or None).lower().compile()
            except jax.errors.JaxRuntimeError:  # the options are experimental, and may be renamed or gone
                continue
        options |= wanted
    return options


class PlatformJit:
    """`jax.jit(function, static_argnums=0)` with the compiler options of the platform of its arguments, on their mesh.

    `consumed`, the place of an argument whose arrays are given up for those of the result.

    The program is traced under `jax.set_mesh` of the mesh on which arguments lie, so that it is one and the same
    whether or not the caller set it. Where all numbers are float32, products are as well: left to themselves, a GPU
    multiplies them in 19 bits of TF32 and a TPU in bfloat16, and a close choice falls the other way. Inside another jit
    nothing is added: options, mesh and precision belong to the outermost one.
    """

    def __init__(self, function: Callable, consumed: int | None = None):
        functools.update_wrapper(self, function)
        self._function = function
        self._consumed = () if consumed is None else (consumed,)
        self._jitted: dict[tuple[str | None, bool], Any] = {}

    def __call__(self, static, *args):
        jitted = self._on(args)
        with on_mesh_of(args), _precision_of(args):
            return jitted(static, *args)

    def lower(self, static, *args) -> jax.stages.Lowered:
        """As `jax.jit(function).lower`; arguments may be abstract."""
        jitted = self._on(args)
        with on_mesh_of(args), _precision_of(args):
            return jitted.lower(static, *args)

    def cache_size(self) -> int:
        """Compiled programs so far."""
        return sum(jitted._cache_size() for jitted in self._jitted.values())

    def forget(self) -> None:
        """Drops what is compiled: the next call asks for its options anew."""
        self._jitted.clear()

    def _on(self, args):
        platform, bfloat16 = _kind(args)
        kind = platform, platform is not None and (bfloat16 or _holds(args, jnp.int8))
        if kind not in self._jitted:
            options = compiler_options(*kind)
            self._jitted[kind] = jax.jit(
                self._function,
                static_argnums=0,
                donate_argnums=self._consumed,
                compiler_options=options or None,
            )
        return self._jitted[kind]


def on_mesh_of(args: Any) -> contextlib.AbstractContextManager:
    """`jax.set_mesh` of the first mesh that an argument lies on."""
    if not _inside_another():
        mesh = mesh_of(args)
        if mesh is not None:
            return jax.set_mesh(mesh)
    return contextlib.nullcontext()


def _precision_of(args: Any) -> contextlib.AbstractContextManager:
    """Whole float32 products, where an accelerator would round what it is given in float32; a CPU does not."""
    platform, bfloat16 = _kind(args)
    if platform in (None, "cpu") or bfloat16:
        return contextlib.nullcontext()
    return jax.default_matmul_precision("highest")


def _kind(args: Any) -> tuple[str | None, bool]:
    """Where the arguments live, None inside another jit; and whether any of them is bfloat16."""
    if _inside_another():
        return None, False
    bfloat16 = _holds(args, jnp.bfloat16)
    for leaf in jax.tree.leaves(args):
        sharding = getattr(leaf, "sharding", None)
        if sharding is not None:
            return next(iter(sharding.device_set)).platform, bfloat16
    return jax.default_backend(), bfloat16


def _holds(args: Any, dtype: Any) -> bool:
    return any(getattr(leaf, "dtype", None) == dtype for leaf in jax.tree.leaves(args))


def _inside_another() -> bool:
    """Whether another jit, vmap or grad is at work; the arguments may be arrays that it closes over."""
    try:
        jax.sharding.get_mesh()
    except ValueError:
        return True
    return False
