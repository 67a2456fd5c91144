"""Caches that a refresh fills, and how the rows of a batch share one.

A **refresh** is a forward of the whole sequence, which counts and commits like any other. Until the next one a forward
recomputes less.

The two cost very different amounts of time, so rows never mix them: rows that ask for a refresh wait until all running
rows do, and then take it together. A row's own forwards are the same whoever else is in the batch; a batch pays for as
few refreshes as the row that needs most of them.

Axes: B batch, L = prompt + canvas, R positions whose logits are wanted, D embed.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from lrd_jax.decoding.canvas import take_window
from lrd_jax.decoding.model import Denoiser
from lrd_jax.decoding.parts.cache.cache import Cache, Inputs
from lrd_jax.decoding.parts.cache.shadow import behind, cast, unshadowed
from lrd_jax.models import KeyValues
from lrd_jax.sharding import constrain_batch, constrain_cache


class RefreshingCache(Cache):
    """A cache whose rows refresh together, and recompute less in between."""

    def asks(self, inputs: Inputs) -> jax.Array:
        """bool `[B]`: rows whose next forward must be a refresh."""
        raise NotImplementedError

    def served(self, inputs: Inputs) -> jax.Array:
        """bool `[B]`: running rows that need none."""
        return inputs.running & ~self.asks(inputs)

    def waiting(self, inputs: Inputs) -> jax.Array:
        served = self.served(inputs)
        return inputs.running & ~served & jnp.any(served)


def on_turn(every: int | None, forwards: jax.Array) -> jax.Array:
    """bool `[B]`: rows at their first forward or a multiple of so many after it; None: at the first alone."""
    return forwards % every == 0 if every else forwards == 0


def at_most_once(turn: jax.Array, function: Callable[[Any], Any], carry: Any) -> Any:
    """function(carry) where turn, else carry: unlike a conditional it hands the carry on in place where it is left."""
    return jax.lax.while_loop(lambda x: x[0], lambda x: (jnp.bool_(False), function(x[1])), (turn, carry))[1]


def everything(model: Denoiser, params: Any, inputs: Inputs) -> tuple[jax.Array, KeyValues]:
    """Hidden states `[B, L, D]` of a forward of the whole sequence, shadows' behind, and its keys and values."""
    rows, positions, mask = cast(inputs.shadows, inputs.embeddings, inputs.positions, inputs.visible, at=0)
    hidden, fresh = model.hidden_and_cache(params, constrain_batch(rows), positions, mask)
    return constrain_batch(hidden), constrain_cache(unshadowed(inputs.shadows, fresh))


def of_window(hidden: jax.Array, inputs: Inputs) -> jax.Array:
    """Of hidden states `[B, L, D]` those that hold the logits wanted, `[B, R, D]`, and the shadows' behind them."""
    return behind(inputs.shadows, take_window(hidden, inputs.seen_from, inputs.reach), hidden)
