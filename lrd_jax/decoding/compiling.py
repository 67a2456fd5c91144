"""The one place where compiler options are set: by the platform that the parameters live on."""

import functools
from collections.abc import Callable
from typing import Any

import jax

# Left to itself, XLA's CPU backend fuses the head's product with the reduction that reads the logits, and the fused
# product leaves the fast matmul. Products by themselves and reductions by themselves keep their fast kernels.
_CPU = {
    "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE",
}


@functools.cache
def compiler_options(platform: str | None) -> dict[str, str]:
    """The options for a platform ("cpu", "tpu", ...; None: unknown): those that the installed compiler knows."""
    if platform != "cpu":
        return {}
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        try:
            jax.jit(lambda: 0, compiler_options=_CPU).lower().compile()
        except jax.errors.JaxRuntimeError:  # the options are experimental, and may be renamed or gone
            return {}
    return _CPU


class PlatformJit:
    """`jax.jit(function, static_argnums=0)` with the compiler options of the platform of its arguments.

    `consumed`, the place of an argument whose arrays are given up for those of the result.

    Inside another jit it adds nothing: options belong to the outermost one.
    """

    def __init__(self, function: Callable, consumed: int | None = None):
        functools.update_wrapper(self, function)
        self._function = function
        self._consumed = () if consumed is None else (consumed,)
        self._jitted: dict[str | None, Any] = {}

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
        platform = _platform(args)
        if platform not in self._jitted:
            options = compiler_options(platform)
            self._jitted[platform] = jax.jit(
                self._function,
                static_argnums=0,
                donate_argnums=self._consumed,
                compiler_options=options or None,
            )
        return self._jitted[platform]


def _platform(args: Any) -> str | None:
    """Where the arguments live; None while they are traced."""
    leaves = jax.tree.leaves(args)
    if any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
        return None
    for leaf in leaves:
        sharding = getattr(leaf, "sharding", None)
        if sharding is not None:
            return next(iter(sharding.device_set)).platform
    return jax.default_backend()
