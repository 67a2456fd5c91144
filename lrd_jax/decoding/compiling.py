"""The one place where compiler options are set: by the platform and the dtype of the parameters."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer

# Left to itself, XLA's CPU backend fuses the head's product with the reduction that reads the logits, and the fused
# product leaves the fast matmul. Products by themselves keep it. Reductions stay with XLA: given them, the library of
# jaxlib 0.10.2 sums some wrong (jax#39103), see docs/performance.md.
CPU = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"}

# A CPU multiplies bfloat16 in float32, and the compiler would convert all weights once, before the loop: twice their
# size in memory that a machine which keeps bfloat16 weights is unlikely to have.
CPU_BFLOAT16 = {"xla_disable_hlo_passes": "while-loop-invariant-code-motion"}


@functools.cache
def compiler_options(platform: str | None, bfloat16: bool = False) -> dict[str, str]:
    """The options for a platform ("cpu", "tpu", ...; None: unknown): those that the installed compiler knows.

    Args:
      bfloat16: the parameters are.
    """
    options = {}
    for wanted in (CPU, CPU_BFLOAT16 if bfloat16 else {}) if platform == "cpu" else ():
        with jax.default_device(jax.local_devices(backend="cpu")[0]):
            try:
                jax.jit(lambda: 0, compiler_options=wanted or None).lower().compile()
            except jax.errors.JaxRuntimeError:  # the options are experimental, and may be renamed or gone
                continue
        options |= wanted
    return options


class PlatformJit:
    """`jax.jit(function, static_argnums=0)` with the compiler options of the platform of its arguments.

    `consumed`, the place of an argument whose arrays are given up for those of the result.

    Inside another jit it adds nothing: options belong to the outermost one.
    """

    def __init__(self, function: Callable, consumed: int | None = None):
        functools.update_wrapper(self, function)
        self._function = function
        self._consumed = () if consumed is None else (consumed,)
        self._jitted: dict[tuple[str | None, bool], Any] = {}

    def __call__(self, static, *args):
        return self._on(args)(static, *args)

    def lower(self, static, *args) -> jax.stages.Lowered:
        """As `jax.jit(function).lower`; arguments may be abstract."""
        return self._on(args).lower(static, *args)

    def cache_size(self) -> int:
        """Compiled programs so far."""
        return sum(jitted._cache_size() for jitted in self._jitted.values())

    def forget(self) -> None:
        """Drops what is compiled: the next call asks for its options anew."""
        self._jitted.clear()

    def _on(self, args):
        kind = _kind(args)
        if kind not in self._jitted:
            options = compiler_options(*kind)
            self._jitted[kind] = jax.jit(
                self._function,
                static_argnums=0,
                donate_argnums=self._consumed,
                compiler_options=options or None,
            )
        return self._jitted[kind]


def _kind(args: Any) -> tuple[str | None, bool]:
    """Where the arguments live, None while they are traced; and whether any of them is bfloat16."""
    leaves = jax.tree.leaves(args)
    if any(isinstance(leaf, Tracer) for leaf in leaves):
        return None, False
    bfloat16 = any(getattr(leaf, "dtype", None) == jnp.bfloat16 for leaf in leaves)
    for leaf in leaves:
        sharding = getattr(leaf, "sharding", None)
        if sharding is not None:
            return next(iter(sharding.device_set)).platform, bfloat16
    return jax.default_backend(), bfloat16
