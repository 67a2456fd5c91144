"""The nucleus, the smallest set of most probable tokens of mass top_p, T = {v : p(v) >= floor}, and its mean.

No vocabulary is sorted, and one that is sharded over devices stays where it is: the floor is found by masked sums.
Tokens that tie with the one which crosses top_p are all in. At top_p = 1 the floor is 0: only the whole vocabulary has
mass 1, whatever a sum rounds to. Axes: V vocab, D embed; a top_p may be an array that broadcasts to `[...]`.
"""

import functools
from typing import Any, Protocol

import flax.struct
import jax
import jax.numpy as jnp

from lrd_jax.decoding.vocab.largest import FEW, LARGEST, largest, top


def nucleus_floor(p: jax.Array, top_p: jax.Array | float) -> jax.Array:
    """A floor of the nucleus, float32 `[..., ]`, for probabilities p `[..., V]`: no token lies between it and the last
    one of the nucleus."""
    on_cpu = floor_by_narrowing if p.shape[-1] > FEW else functools.partial(floor_by_digits, digit=1)
    # Sums over the same p share one reading of it on GPU and TPU; on CPU each is a reading of its own.
    return jax.lax.platform_dependent(
        p, jnp.asarray(top_p, jnp.float32), cpu=on_cpu, default=functools.partial(floor_by_digits, digit=3)
    )


def in_nucleus(p: jax.Array, top_p: jax.Array | float) -> jax.Array:
    """Which tokens are in the nucleus: bool `[..., V]` for float32 probabilities p `[..., V]`."""
    return (p >= nucleus_floor(p, top_p)[..., None]) & (p > 0) & (jnp.asarray(top_p) > 0)[..., None]


def floor_by_digits(p: jax.Array, top_p: jax.Array, *, digit: int) -> jax.Array:
    """`nucleus_floor`, the last token of the nucleus itself, by `digit` bits at a time.

    The bits of non-negative floats are ordered as the floats are, and one of at most 1 has 30.
    """

    def refine(i, low):
        reached = 0
        for step in range(1, 2**digit):  # the mass above a floor falls as the floor rises: count those that reach top_p
            mass = _mass(p, low + (step << (30 - digit * (i + 1))))
            reached += ((mass >= top_p) & (top_p < 1)).astype(jnp.int32)
        return low + (reached << (30 - digit * (i + 1)))

    return _float(jax.lax.fori_loop(0, 30 // digit, refine, jnp.zeros(p.shape[:-1], jnp.int32)))


def floor_by_narrowing(p: jax.Array, top_p: jax.Array) -> jax.Array:
    """`nucleus_floor` of more than 8,192 tokens in a third of the sums: a few tokens left open are then sorted.

    The floor lies between two floats whose masses are known, and the next is guessed from them, away from both ends.
    """
    size = p.shape[-1]

    def is_open(low, high, mass_low, mass_high):
        most = (mass_low - mass_high) / jnp.maximum(_float(low), jnp.finfo(jnp.float32).tiny)  # tokens in between
        return (high - low > 1) & (most > LARGEST // 2)

    def narrow(bounds):
        low, high, mass_low, mass_high = bounds
        part = jnp.clip((mass_low - top_p) / jnp.maximum(mass_low - mass_high, 1e-30), 0.25, 0.75)
        middle = jnp.clip(low + ((high - low) * part).astype(jnp.int32), low + 1, high - 1)
        mass = _mass(p, middle)
        up, down = is_open(*bounds) & (mass >= top_p), is_open(*bounds) & ~(mass >= top_p)
        return (
            jnp.where(up, middle, low),
            jnp.where(down, middle, high),
            jnp.where(up, mass, mass_low),
            jnp.where(down, mass, mass_high),
        )

    # All tokens below (1 - top_p) / V together have less than the mass that the nucleus leaves out.
    low = jnp.broadcast_to(_bits((1.0 - top_p) / (2 * size)), p.shape[:-1])
    high = _bits(jnp.minimum(jnp.nan_to_num(top(p), nan=1.0), 1.0)) + 1
    one, zero = jnp.ones(p.shape[:-1]), jnp.zeros(p.shape[:-1])
    bounds = jax.lax.while_loop(lambda b: jnp.any(is_open(*b)), narrow, (low, high, one, zero))
    low, high, _, mass_high = bounds
    between = jnp.where((p >= _float(low)[..., None]) & (p < _float(high)[..., None]), p, 0.0)
    values = largest(between)[0]
    crossed = (mass_high[..., None] + jnp.cumsum(values, axis=-1)) >= top_p[..., None]
    floor = jnp.take_along_axis(values, jnp.argmax(crossed, axis=-1, keepdims=True), axis=-1)[..., 0]
    sorted_out = jnp.any(crossed, axis=-1) & (high - low > 1)
    return jnp.where(top_p < 1, jnp.where(sorted_out, floor, _float(low)), 0.0)


class Tokens(Protocol):
    """Which tokens a position's belief is summed over: the most probable ones, down to a floor of probability."""

    def floor(self, p: jax.Array) -> jax.Array:
        """Their floor `[...]`, for probabilities p `[..., V]`."""
        ...

    def floor_of_largest(self, p: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The floor `[...]` for the K largest, falling, p `[..., K]`; bool `[...]`: all of the tokens are among them.

        Where they are not, the floor is finite and meaningless.
        """
        ...


@flax.struct.dataclass
class Nucleus:
    """The smallest set whose mass reaches `mass`: the token that crosses it is in."""

    mass: Any  # broadcasts to [...]

    def floor(self, p: jax.Array) -> jax.Array:
        return nucleus_floor(p, self.mass)

    def floor_of_largest(self, p: jax.Array) -> tuple[jax.Array, jax.Array]:
        mass = jnp.cumsum(p, axis=-1)
        top_p = jnp.asarray(self.mass, jnp.float32)
        crossing = jnp.argmax(mass >= top_p[..., None], axis=-1, keepdims=True)
        floor = jnp.take_along_axis(p, crossing, axis=-1)[..., 0]
        # It ends before the K-th, so that no token outside ties with its last one.
        return floor, (mass[..., -1] >= top_p) & (floor > p[..., -1]) & (top_p < 1)


@flax.struct.dataclass
class Within:
    """The largest set whose mass stays within `mass`: the token that crosses it is out. It has at most `most` tokens,
    and the likeliest always."""

    mass: Any  # broadcasts to [...]
    most: int = flax.struct.field(pytree_node=False)

    def floor(self, p: jax.Array) -> jax.Array:
        return self.floor_of_largest(jax.lax.top_k(p, min(self.most + 1, p.shape[-1]))[0])[0]

    def floor_of_largest(self, p: jax.Array) -> tuple[jax.Array, jax.Array]:
        within = jnp.cumsum(p[..., : self.most], axis=-1) <= jnp.asarray(self.mass, jnp.float32)[..., None]
        size = jnp.maximum(jnp.sum(within, axis=-1, keepdims=True), 1)
        last = jnp.take_along_axis(p, size - 1, axis=-1)
        after = jnp.take_along_axis(p, jnp.minimum(size, p.shape[-1] - 1), axis=-1)
        floor = (0.5 * (last + after))[..., 0]  # between the two, whatever an exp computed anew rounds to
        return floor, jnp.ones(floor.shape, bool)


def mean_of_nucleus(p: jax.Array, floor: jax.Array, table: jax.Array) -> tuple[jax.Array, jax.Array]:
    """sum_{v in T} pbar(v) e_v, T all tokens of probability >= floor `[...]` in p `[..., V]`, pbar p divided by its sum
    over T; and that sum. Both float32, `[..., D]` and `[..., 1]`.

    A product with the whole table.
    """
    nucleus = jnp.where(p >= floor[..., None], p, 0.0)
    mass = jnp.sum(nucleus, axis=-1, keepdims=True)
    pbar = (nucleus / jnp.where(mass > 0, mass, 1.0)).astype(table.dtype)
    mean = pbar.reshape(-1, pbar.shape[-1]) @ table
    return mean.reshape(*p.shape[:-1], -1).astype(jnp.float32), mass


def mean_of_largest(
    logits: jax.Array, log_z: jax.Array, table: jax.Array, tokens: Tokens
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """`mean_of_nucleus` of softmax(logits) from the 64 largest of logits `[..., V]`, where they hold the tokens.

    Returns:
      The mean, the mass, and bool `[...]`: whether they hold them. Where they do not, both are finite and meaningless.
    """
    values, ids = largest(logits)
    p = jnp.exp(values - log_z[..., None])
    floor, holds = tokens.floor_of_largest(p)
    nucleus = jnp.where(p >= floor[..., None], p, 0.0)
    total = jnp.sum(nucleus, axis=-1, keepdims=True)
    rows = table.at[ids].get(mode="clip").astype(jnp.float32)
    mean = jnp.einsum("...K,...KD->...D", nucleus / jnp.where(total > 0, total, 1.0), rows)
    return mean, total, holds


def _mass(p: jax.Array, floor_bits: jax.Array) -> jax.Array:
    return jnp.sum(jnp.where(p >= _float(floor_bits)[..., None], p, 0.0), axis=-1)


def _float(bits: jax.Array) -> jax.Array:
    return jax.lax.bitcast_convert_type(bits, jnp.float32)


def _bits(x: jax.Array) -> jax.Array:
    return jax.lax.bitcast_convert_type(x, jnp.int32)
