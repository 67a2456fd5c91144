"""One bidirectional transformer for every family: embedding, hidden states from embeddings, logits where asked.

Axes: B batch, L length, D embed, F mlp, N heads, K kv heads, H head dim, V vocab. Block parameters are stacked on a
leading `layers` axis and scanned. Every parameter names its axes; `lrd_jax.sharding` maps the names to a mesh.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from flax import nnx

from lrd_jax.errors import Refused
from lrd_jax.models.attention import attention, rope_tables, rotate
from lrd_jax.models.config import ModelConfig
from lrd_jax.models.low_rank import LowRank
from lrd_jax.models.quantized import MATRICES, quantize, scale_of

Params = dict[str, Any]


@flax.struct.dataclass
class KeyValues:
    """Keys (rotated) and values of every block, for other queries to attend to; params' dtype."""

    keys: jax.Array  # [layers, B, S, K, H]
    values: jax.Array  # [layers, B, S, K, H]


Attend = Callable[[jax.Array, jax.Array, jax.Array, Any], tuple[jax.Array, Any]]
"""What a block does with its rotated queries `[B, T, N, H]`, its own keys and values `[B, T, K, H]` and this layer's
part of a cache: what the queries attend to `[B, T, N, H]`, and what is kept of the layer."""


def full_attention(mask: jax.Array) -> Attend:
    """Every query sees the cached keys and the block's own, where the mask lets it; nothing is kept.

    Args:
      mask: bool `[B, S + T]`, one for all queries, or `[B, T, S + T]`, one for each.
    """

    def attend(q, k, v, cache):
        return attention(q, *joined(cache, k, v), _of_queries(mask)), None

    return attend


def keeping_attention(mask: jax.Array) -> Attend:
    """`full_attention` that keeps each block's own keys and values, cached ones not included."""

    def attend(q, k, v, cache):
        return attention(q, *joined(cache, k, v), _of_queries(mask)), KeyValues(k, v)

    return attend


def seen(config: ModelConfig, positions: jax.Array, mask: jax.Array) -> jax.Array:
    """The mask `[B, S + T]` or `[B, T, S + T]` less what the model's own attention hides from T rows.

    Of cached keys nothing more is hidden: who hands them over knows whose they are.
    """
    if config.attention_block is None:
        return mask
    blocks = positions // config.attention_block
    own = blocks[:, None, :] <= blocks[:, :, None]
    cached = mask.shape[-1] - positions.shape[1]
    return _of_queries(mask) & jnp.pad(own, ((0, 0), (0, 0), (cached, 0)), constant_values=True)


def _of_queries(mask: jax.Array) -> jax.Array:
    """`[B, T or 1, S]`."""
    return mask if mask.ndim == 3 else mask[:, None]


def joined(cache: KeyValues | None, k: jax.Array, v: jax.Array) -> tuple[jax.Array, jax.Array]:
    """One layer's keys and values `[B, S + T, K, H]`: the cached ones, then the block's own `[B, T, K, H]`."""
    if cache is None:
        return k, v
    return jnp.concatenate([cache.keys, k], axis=1), jnp.concatenate([cache.values, v], axis=1)


def _normal(key: jax.Array, shape: tuple[int, ...], axes: tuple[str, ...], dtype, stddev: float) -> nnx.Param:
    return nnx.Param(stddev * jax.random.normal(key, shape, dtype), axes=axes)


def _constant(value: float, shape: tuple[int, ...], axes: tuple[str, ...], dtype) -> nnx.Param:
    return nnx.Param(jnp.full(shape, value, dtype), axes=axes)


def rms_norm(x: jax.Array, scale: jax.Array, eps: float) -> jax.Array:
    """Root-mean-square norm over the last axis, in float32, cast back before the scale."""
    x32 = x.astype(jnp.float32)
    x32 = x32 * jax.lax.rsqrt(jnp.mean(jnp.square(x32), axis=-1, keepdims=True) + eps)
    return x32.astype(x.dtype) * scale


def _product(x: jax.Array, kernel: nnx.Param, contracted: int = 1) -> jax.Array:
    """Product of x `[B, L, ...]` and a kernel over x's last axes, the kernel's first; the kernel may be a `LowRank`."""
    value = kernel.get_value()
    if not isinstance(value, LowRank):
        return _dot(x, value, contracted)
    a, b = value.a.astype(x.dtype), value.b.astype(x.dtype)
    return _dot(x, value.kernel, contracted) + value.scale * _dot(_dot(x, a, contracted), b)


def _scaled_product(x: jax.Array, values: jax.Array, scale: jax.Array, contracted: int) -> jax.Array:
    """Product of x and a kernel of integers, scaled in float32; what devices sum over a mesh is in the dtype of x."""
    out = _dot(x, values.astype(x.dtype), contracted)
    return (out.astype(jnp.float32) * scale).astype(x.dtype)


def _dot(x: jax.Array, kernel: jax.Array, contracted: int = 1) -> jax.Array:
    """The product as one matrix times another.

    The values are those of an einsum; XLA's CPU backend has a fast path for two dimensions only.
    """
    inner = math.prod(kernel.shape[:contracted])
    out = x.reshape(-1, inner) @ kernel.reshape(inner, -1)
    return out.reshape(*x.shape[:2], *kernel.shape[contracted:])


class Blocks(nnx.Module):
    """All transformer blocks, stacked: each parameter has a leading axis of `num_layers`."""

    def __init__(self, config: ModelConfig, *, dtype, rngs: nnx.Rngs):
        n, D, F = config.num_layers, config.embed_dim, config.mlp_dim
        N, K, H = config.num_heads, config.num_kv_heads, config.head_dim
        std_in, std_out = 0.02, 0.02 / (2 * n) ** 0.5  # residual writers are scaled down by depth, as in GPT-2
        self.config = config
        self.attn_norm = _constant(1.0, (n, D), ("layers", "norm"), dtype)
        self.q = _normal(rngs.params(), (n, D, N, H), ("layers", "embed", "heads", "head_dim"), dtype, std_in)
        self.k = _normal(rngs.params(), (n, D, K, H), ("layers", "embed", "kv_heads", "head_dim"), dtype, std_in)
        self.v = _normal(rngs.params(), (n, D, K, H), ("layers", "embed", "kv_heads", "head_dim"), dtype, std_in)
        self.out = _normal(rngs.params(), (n, N, H, D), ("layers", "heads", "head_dim", "embed"), dtype, std_out)
        if config.qkv_bias:
            self.q_bias = _constant(0.0, (n, N, H), ("layers", "heads", "head_dim"), dtype)
            self.k_bias = _constant(0.0, (n, K, H), ("layers", "kv_heads", "head_dim"), dtype)
            self.v_bias = _constant(0.0, (n, K, H), ("layers", "kv_heads", "head_dim"), dtype)
        self.mlp_norm = _constant(1.0, (n, D), ("layers", "norm"), dtype)
        self.gate = _normal(rngs.params(), (n, D, F), ("layers", "embed", "mlp"), dtype, std_in)
        self.up = _normal(rngs.params(), (n, D, F), ("layers", "embed", "mlp"), dtype, std_in)
        self.down = _normal(rngs.params(), (n, F, D), ("layers", "mlp", "embed"), dtype, std_out)
        if config.quantized is not None:
            self._quantize()

    def __call__(
        self, x: jax.Array, cos: jax.Array, sin: jax.Array, attend: Attend, cache: Any = None
    ) -> tuple[jax.Array, Any]:
        """One block on x `[B, L, D]`, and what `attend` keeps of it.

        Called inside a scan, which has taken the layer axis off the parameters and off the cache.
        """
        h = self.normed(x)
        q, k, v = self.queries(h, cos, sin), self.keys(h, cos, sin), self.values(h)
        with jax.named_scope("attention"):
            attended, kept = attend(q, k, v, cache)
        x = x + self.project(attended)
        return x + self.mlp(x), kept

    # What a block is made of, for who composes it otherwise, see `Transformer.block`.

    def normed(self, x: jax.Array) -> jax.Array:
        """What queries, keys and values are made of `[B, L, D]`."""
        return rms_norm(x, self.attn_norm[...], self.config.norm_eps)

    def queries(self, h: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
        """Rotated queries `[B, L, N, H]` of normed inputs."""
        q = self._product(h, "q")
        q = q + self.q_bias[...] if self.config.qkv_bias else q
        return rotate(q, cos, sin, full_precision=self.config.rope_full_precision)

    def keys(self, h: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
        """Rotated keys `[B, L, K, H]` of normed inputs."""
        k = self._product(h, "k")
        k = k + self.k_bias[...] if self.config.qkv_bias else k
        return rotate(k, cos, sin, full_precision=self.config.rope_full_precision)

    def values(self, h: jax.Array) -> jax.Array:
        """Values `[B, L, K, H]` of normed inputs."""
        v = self._product(h, "v")
        return v + self.v_bias[...] if self.config.qkv_bias else v

    def project(self, attended: jax.Array) -> jax.Array:
        """What attention adds to the stream `[B, L, D]`, of what was attended to `[B, L, N, H]`."""
        return self._product(attended, "out")

    def mlp(self, x: jax.Array) -> jax.Array:
        """What the gated layer adds to the stream x `[B, L, D]`."""
        h = rms_norm(x, self.mlp_norm[...], self.config.norm_eps)
        gated = jax.nn.silu(self._product(h, "gate")) * self._product(h, "up")
        return self._product(gated, "down")

    def _product(self, x: jax.Array, name: str) -> jax.Array:
        kernel, contracted = getattr(self, name), MATRICES[name]
        if self.config.quantized is None:
            return _product(x, kernel, contracted)
        return _scaled_product(x, kernel[...], getattr(self, scale_of(name))[...], contracted)

    def _quantize(self) -> None:
        for name, contracted in MATRICES.items():
            kernel, out = getattr(self, name), 1 + contracted
            values, scale = quantize(kernel[...], tuple(range(1, out)))
            setattr(self, name, nnx.Param(values, axes=kernel.axes))
            setattr(self, scale_of(name), nnx.Param(scale, axes=(kernel.axes[0], *kernel.axes[out:])))


class Transformer(nnx.Module):
    """The network with its parameters; `Model` below is the same network with the parameters as an argument."""

    def __init__(self, config: ModelConfig, *, dtype=jnp.float32, rngs: nnx.Rngs):
        D, V = config.embed_dim, config.vocab_size
        self.config = config
        self.table = _normal(rngs.params(), (V, D), ("vocab", "embed"), dtype, 0.02)
        self.blocks = Blocks(config, dtype=dtype, rngs=rngs)
        self.final_norm = _constant(1.0, (D,), ("norm",), dtype)
        if not config.tied_head:
            self.head = _normal(rngs.params(), (D, V), ("embed", "vocab"), dtype, 0.02)

    def embed(self, ids: jax.Array) -> jax.Array:
        return self.table[...][ids]

    def blocks_out(self, x: jax.Array, positions: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The raw output of the last block `[B, L, D]`, and the input of every block `[layers, B, L, D]`."""
        cos, sin = self.rotation(positions)
        attend = full_attention(seen(self.config, positions, mask))
        return jax.lax.scan(lambda x, block: (block(x, cos, sin, attend)[0], x), x, self.blocks)

    def layers(
        self,
        x: jax.Array,
        positions: jax.Array,
        attend: Attend,
        cache: Any,
        around: Callable[[Callable], Callable] = lambda block: block,
    ) -> tuple[jax.Array, Any]:
        """`Model.layers`; `around` may wrap the function (x, (block, cache)) -> (x, kept) that is scanned."""
        cos, sin = self.rotation(positions)

        def block(x: jax.Array, layer: Any) -> tuple[jax.Array, Any]:
            return layer[0](x, cos, sin, attend, layer[1])

        x, kept = jax.lax.scan(around(block), x, (self.blocks, cache))
        return self.normed(x), kept

    def block(self, index: jax.Array | int) -> Blocks:
        """One block by its number, which may be traced: its pieces are those of `Blocks`."""
        return jax.tree.map(lambda leaf: jax.lax.dynamic_index_in_dim(leaf, index, keepdims=False), self.blocks)

    def rotation(self, positions: jax.Array) -> tuple[jax.Array, jax.Array]:
        """cos and sin `[B, T, 1, H]` of int32 positions `[B, T]`."""
        return rope_tables(positions, self.config.head_dim, self.config.rope_theta)

    def normed(self, x: jax.Array) -> jax.Array:
        """Hidden states of what the last block gives."""
        return rms_norm(x, self.final_norm[...], self.config.norm_eps)

    def logits(self, hidden: jax.Array) -> jax.Array:
        with jax.named_scope("head"):
            if self.config.tied_head:
                out = jnp.einsum("...D,VD->...V", hidden, self.table[...])
            else:
                out = hidden @ self.head[...]
        out = out[..., : self.config.vocab_size].astype(jnp.float32)
        return out * self.config.embed_dim**-0.5 if self.config.scale_logits else out


@dataclasses.dataclass(frozen=True)
class Model:
    """What a decoder sees of a network: pure functions of `params`, and the config.

    `params` is a plain nested dict of arrays (`init`, `lrd_jax.load`), always an argument and never closed over. On a
    mesh some may be longer than the config says, see `lrd_jax.models.padding`.
    Hashable: two models of equal config share every compiled function.
    """

    config: ModelConfig

    def __post_init__(self):
        if not isinstance(self.config, ModelConfig):
            raise Refused(f"config must be a ModelConfig, such as load(...).config, got {self.config!r:.80}")

    def table(self, params: Params) -> jax.Array:
        """All token embeddings `[V, D]`, params' dtype."""
        return params["table"][: self.config.vocab_size]

    def embed(self, params: Params, ids: jax.Array) -> jax.Array:
        """Token embeddings `[..., D]` (params' dtype) of int ids `[...]`."""
        return self.bind(params).embed(ids)

    def hidden(self, params: Params, embeddings: jax.Array, positions: jax.Array, mask: jax.Array) -> jax.Array:
        """Hidden states after the final norm.

        Args:
          embeddings: `[B, L, D]`, of tokens or soft mixtures.
          positions: int32 `[B, L]`, see `positions_of`.
          mask: bool `[B, L]`, False where a position is padding that nobody may attend to; or `[B, L, L]`, True where
            the first may attend to the second.

        Returns:
          `[B, L, D]` in the params' dtype; meaningless at padding.
        """
        return self.layers(params, embeddings, positions, full_attention(seen(self.config, positions, mask)))[0]

    def layers(
        self, params: Params, embeddings: jax.Array, positions: jax.Array, attend: Attend, cache: Any = None
    ) -> tuple[jax.Array, Any]:
        """Hidden states as `hidden` gives them, where `attend` says what every block's queries attend to.

        Args:
          embeddings, positions: `[B, T, D]` and `[B, T]`; often a part of a sequence.
          attend: called once a block, see `Attend`.
          cache: a pytree whose leaves lead with the layer axis; every block is given its own part.

        Returns:
          `[B, T, D]`, and what `attend` kept, with a leading layer axis.
        """
        return self.bind(params).layers(embeddings, positions, attend, cache)

    def hidden_and_cache(
        self,
        params: Params,
        embeddings: jax.Array,
        positions: jax.Array,
        mask: jax.Array,
        cache: KeyValues | None = None,
    ) -> tuple[jax.Array, KeyValues]:
        """Hidden states as `hidden` gives them, and the keys and values that they were computed with.

        Given a cache of S positions, the L embeddings attend to its keys and values and to their own.

        Args:
          embeddings, positions: `[B, L, D]` and `[B, L]`, as for `hidden`; often a part of a sequence.
          mask: bool `[B, S + L]`, which keys may be seen: the cached ones, then the embeddings' own.
          cache: an earlier call's; None: S = 0.

        Returns:
          `[B, L, D]`, and the `KeyValues` of these L positions alone.
        """
        attend = keeping_attention(seen(self.config, positions, mask))
        return self.layers(params, embeddings, positions, attend, cache)

    def empty_cache(self, params: Params, batch: int, length: int) -> KeyValues:
        """A cache of `length` positions that holds zeros."""
        config = self.config
        shape = (config.num_layers, batch, length, config.num_kv_heads, config.head_dim)
        zeros = jnp.zeros(shape, params["table"].dtype)
        return KeyValues(zeros, zeros)

    def logits(self, params: Params, hidden: jax.Array) -> jax.Array:
        """float32 logits `[..., V]` of hidden states `[..., D]`, computed only where asked."""
        return self.bind(params).logits(hidden)

    def bind(self, params: Params) -> Transformer:
        """The nnx module that holds these parameters."""
        return nnx.merge(_graphdef(self.config), _as_state(self.config, params))

    def init(self, key: jax.Array, dtype=jnp.float32) -> Params:
        """Random parameters for training from scratch."""
        return nnx.to_pure_dict(nnx.state(Transformer(self.config, dtype=dtype, rngs=nnx.Rngs(params=key))))

    def abstract_params(self, dtype=jnp.float32) -> Params:
        """`jax.ShapeDtypeStruct` for every parameter, allocating nothing."""
        return jax.eval_shape(functools.partial(self.init, dtype=dtype), jax.random.key(0))

    def param_axes(self) -> dict[str, Any]:
        """The logical axis names of every parameter, in the structure of `params`."""
        state = _abstract_state(self.config)
        return nnx.to_pure_dict(jax.tree.map(lambda p: p.replace(p.axes), state, is_leaf=_is_variable))


def positions_of(mask: jax.Array) -> jax.Array:
    """int32 rotary positions `[B, L]`: real tokens count from 0, padding is skipped (its own value means nothing).

    Rotary attention depends on differences only, so this equals counting the padding too, up to rounding; skipping it
    keeps a row's arithmetic the same whatever it was padded to.
    """
    return jnp.maximum(jnp.cumsum(mask.astype(jnp.int32), axis=-1) - 1, 0)


def _is_variable(x: Any) -> bool:
    return isinstance(x, nnx.Variable)


@functools.cache
def _abstract(config: ModelConfig) -> tuple[nnx.GraphDef, nnx.State]:
    return nnx.split(nnx.eval_shape(lambda: Transformer(config, rngs=nnx.Rngs(0))))


def _graphdef(config: ModelConfig) -> nnx.GraphDef:
    return _abstract(config)[0]


def _abstract_state(config: ModelConfig) -> nnx.State:
    return _abstract(config)[1]


def _as_state(config: ModelConfig, params: Params) -> nnx.State:
    state = nnx.State(jax.tree.map(lambda p: p, _abstract_state(config), is_leaf=_is_variable))
    nnx.replace_by_pure_dict(state, params)
    return state
