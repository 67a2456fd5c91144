"""dLLM-Cache (arXiv 2506.06295): what attention and the gated layer add to the stream is kept, for every block.

The stream itself is always of all positions and always new; of what is added to it, most is old. The prompt's part is
made anew seldom, the response's (the whole canvas') more often, and in between that of a share of the response: in
every block the positions whose values have turned most from those that were kept.

Axes: B batch, P prompt, G canvas, L = P + G, R positions whose logits are wanted, T recomputed positions, D embed.
"""

import dataclasses
import functools
from typing import Any, ClassVar

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from lrd_jax.decoding.model import Denoiser
from lrd_jax.decoding.parts.cache.cache import Inputs
from lrd_jax.decoding.parts.cache.fed import mask_of, take_places
from lrd_jax.decoding.parts.cache.refreshing import RefreshingCache, at_most_once, of_window
from lrd_jax.decoding.setting import count, setting, share
from lrd_jax.models import KeyValues
from lrd_jax.models.attention import attention
from lrd_jax.models.transformer import Blocks
from lrd_jax.sharding import constrain_batch


class Features(flax.struct.PyTreeNode):
    """What the last forward that recomputed a position made of it in every block; values may be newer than keys."""

    cache: KeyValues  # [layers, B, L, K, H]
    attended: jax.Array  # [layers, B, L, D] that attention adds to the stream
    gated: jax.Array  # [layers, B, L, D] that the gated layer adds


@setting
class DLLMCache(RefreshingCache):
    """dLLM-Cache: the prompt is recomputed every `prompt_every` forwards of a row, its response every `response_every`.

    On every other forward each block recomputes the values of the whole response, puts them in the place of the old,
    and recomputes the rest of int(rho * length) of its positions: those whose new values have the least cosine with the
    old. The first block recomputes everything always. Forwards are counted over the whole decode, whatever its blocks.

    Attributes:
      prompt_every: Kp; 1 recomputes the prompt always.
      response_every: Kr; 1 recomputes the response always.
      rho: the share of the response that a forward in between recomputes; 0: none, and no values either.
    """

    text_name: ClassVar[str] = "dllm"
    prompt_every: int = count(default=50)
    response_every: int = count(default=7)
    rho: float = share(default=0.25)

    @property
    def reaches_canvas(self):
        return True

    def asks(self, inputs):
        return self._prompt_is_due(inputs) | self._response_is_due(inputs)

    def _prompt_is_due(self, inputs):
        return inputs.forwards % self.prompt_every == 0

    def _response_is_due(self, inputs):
        return inputs.forwards % self.response_every == 0

    def empty(self, model: Denoiser, params: Any, batch: int, length: int) -> Features:
        cache, embedding = model.empty_cache(params, batch, length), model.embed(params, jnp.int32(0))
        stream = jnp.zeros((len(cache.keys), batch, length, *embedding.shape), embedding.dtype)
        return Features(cache=cache, attended=stream, gated=stream)

    def row_axes(self, kept: Features) -> Features:
        return jax.tree.map(lambda _: 1, kept)

    def forward(self, model: Denoiser, params: Any, inputs: Inputs, kept: Features) -> tuple[jax.Array, Features]:
        served, running = self.served(inputs), inputs.running[:, None]
        some, P, G = jnp.any(served), inputs.prompt, inputs.length - inputs.prompt
        in_prompt = jnp.arange(inputs.length) < P
        prompt = running & self._prompt_is_due(inputs)[:, None] & in_prompt
        response = running & self._response_is_due(inputs)[:, None] & ~in_prompt
        chooses, whole = self.rho > 0, jnp.any(prompt)
        takes_part = served | (inputs.running & ~some)
        parts = (
            (some, Part(self.rho, P, int(G * self.rho), chooses, response, takes_part)),
            (~some & ~whole, Part(self.rho, P, None, False, response, takes_part)),
            (~some & whole, Part(self.rho, 0, None, chooses, prompt | response, takes_part)),
        )
        first = Part(self.rho, 0, None, False, jnp.ones_like(prompt), takes_part)

        network = model.bind(params)
        rotation = network.rotation(inputs.positions)

        def block(part, i, carry):
            return _block(network.block(i), inputs, rotation, part, i, *carry)

        def others(part, carry):
            return jax.lax.fori_loop(1, len(kept.attended), functools.partial(block, part), carry)

        carry = block(first, 0, (constrain_batch(inputs.embeddings), kept))
        for turn, part in parts:
            carry = at_most_once(turn, functools.partial(others, part), carry)
        return network.normed(of_window(constrain_batch(carry[0]), inputs))[:, :, None], carry[1]


@dataclasses.dataclass(frozen=True)
class Part:
    """Which positions a block of the network recomputes."""

    rho: float
    begin: int  # where the positions begin whose values are new: P or 0
    size: int | None  # how many of them each block chooses; None: all are computed
    chooses: bool  # whether a row may choose; its whole response's values are new then
    due: jax.Array  # [B, L] bool, what is recomputed whatever its values say
    takes_part: jax.Array  # [B] bool; other rows' part of what is kept stays as it was


def _block(
    block: Blocks,
    inputs: Inputs,
    rotation: tuple[jax.Array, jax.Array],
    part: Part,
    i: Any,
    x: jax.Array,
    kept: Features,
) -> tuple[jax.Array, Features]:
    """The stream `[B, L, D]` after block number i, and what is kept."""
    keys, values, begin = kept.cache.keys, kept.cache.values, part.begin
    chosen = jnp.zeros((len(x), 0), jnp.int32)
    if part.size is None or part.chooses:
        old, new = _layer(values, i)[:, begin:], block.values(block.normed(x[:, begin:]))
        if part.chooses:
            chosen = _most_turned(inputs, part.rho, old, new)
        in_response = part.chooses & (jnp.arange(inputs.length) >= inputs.prompt)
        values = Span(begin, part.takes_part[:, None] & (part.due | in_response)).put(values, i, new)
    if part.size is None:
        rows = Span(begin, part.takes_part[:, None] & (part.due | mask_of(chosen, inputs.length)))
    else:
        rows = Places(jnp.where(part.takes_part[:, None], chosen, inputs.length))
    if part.size != 0:
        mine = rows.take(x)
        h, cos, sin = block.normed(mine), *map(rows.take, rotation)
        keys = rows.put(keys, i, block.keys(h, cos, sin))
        with jax.named_scope("attention"):
            seen = attention(block.queries(h, cos, sin), _layer(keys, i), _layer(values, i), inputs.visible[:, None])
        added = block.project(seen)
        attended, gated = rows.put(kept.attended, i, added), rows.put(kept.gated, i, block.mlp(mine + added))
        kept = Features(cache=kept.cache, attended=attended, gated=gated)
    x = x + _layer(kept.attended, i) + _layer(kept.gated, i)
    return x, kept.replace(cache=KeyValues(keys, values))


def _most_turned(inputs: Inputs, rho: float, old: jax.Array, new: jax.Array) -> jax.Array:
    """int32 `[B, int(rho * G)]`: positions of the response whose values have the least cosine with the old ones.

    Of a row they are int(rho * length), and then L. The response's are the last of the values `[B, T, K, H]`.
    """
    G = inputs.length - inputs.prompt
    old, new = (y[:, -G:].reshape(len(y), G, -1).astype(jnp.float32) for y in (old, new))
    norms = jnp.linalg.norm(old, axis=-1) * jnp.linalg.norm(new, axis=-1)
    cosine = jnp.sum(old * new, axis=-1) / jnp.maximum(norms, 1e-8)
    if inputs.exists is not None:
        cosine = jnp.where(inputs.exists[:, -G:], cosine, jnp.inf)
    sizes = np.array([int(length * rho) for length in range(G + 1)])
    at = inputs.prompt + jax.lax.top_k(-cosine, int(sizes[-1]))[1]
    if inputs.ends is None:
        return at
    size = jnp.asarray(sizes)[inputs.ends - inputs.prompt]
    return jnp.where(jnp.arange(sizes[-1]) < size[:, None], at, inputs.length)


def _layer(kept: jax.Array, i: Any) -> jax.Array:
    return jax.lax.dynamic_index_in_dim(kept, i, keepdims=False)


@dataclasses.dataclass(frozen=True)
class Span:
    """All positions from `begin` on, of which those of a mask `[B, L]` are kept."""

    begin: int
    kept: jax.Array

    def take(self, x: jax.Array) -> jax.Array:
        """Of x `[B, L, ...]`."""
        return x[:, self.begin :]

    def put(self, into: jax.Array, i: Any, new: jax.Array) -> jax.Array:
        """`[layers, B, L, ...]` with new rows `[B, T, ...]` of layer i."""
        old = _layer(into, i)[:, self.begin :]
        kept = self.kept[:, self.begin :].reshape(*old.shape[:2], *[1] * (old.ndim - 2))
        start = (i, 0, self.begin, *[0] * (old.ndim - 2))
        return jax.lax.dynamic_update_slice(into, jnp.where(kept, new, old)[None], start)


@dataclasses.dataclass(frozen=True)
class Places:
    """Positions `[B, T]` wherever they lie; those beyond L are nowhere."""

    at: jax.Array

    def take(self, x: jax.Array) -> jax.Array:
        return take_places(x, self.at)

    def put(self, into: jax.Array, i: Any, new: jax.Array) -> jax.Array:
        return into.at[i, jnp.arange(len(self.at))[:, None], self.at].set(new, mode="drop")
