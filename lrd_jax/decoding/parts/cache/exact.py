"""The cache of models that attend block by block: what is committed is final, and no forward computes it again.

A position sees its own attention block and those before it, so that keys and values of a block stay as they are once it
and all before it hold tokens only. What was open in the forward before is fed, up to the attention block in which the
window ends; nobody sees what is behind. Positions count from a row's first token, so that a prompt may end inside an
attention block: its last tokens are then fed with the canvas.

Axes: B batch, L = prompt + canvas, W active window.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from lrd_jax.decoding.parts.cache.cache import Inputs
from lrd_jax.decoding.parts.cache.fed import FedCache, masked_places
from lrd_jax.decoding.setting import setting
from lrd_jax.errors import Refused


@setting
class ExactCache(FedCache):
    """An exact prefix cache: the same tokens as without, for a forward of the window's attention blocks alone.

    A forward after the first of a row feeds one window's blocks, or two where a block begins.
    """

    text_name: ClassVar[str] = "exact"

    def check_attention(self, attention_block):
        if attention_block is None:
            raise Refused(
                f"cache={self!r} is for models that attend block by block; this one attends to everything, so that "
                "every key changes with every token: take another cache, or none"
            )

    def asks(self, inputs):
        return inputs.forwards == 0

    def forward(self, model, params, inputs, kept):
        place = jnp.arange(inputs.length)
        seen = inputs.visible & (place < _stop(inputs)[:, None])
        return super().forward(model, params, dataclasses.replace(inputs, visible=seen), kept)

    def fed(self, inputs, before):
        size, opened = _size(inputs), (before | masked_places(inputs)) & inputs.visible  # again since, too
        first = jnp.argmax(opened, axis=1)[:, None]
        of_first = jnp.take_along_axis(inputs.positions, first, axis=1) // size
        return inputs.visible & (inputs.positions // size >= of_first)

    def sizes(self, inputs):
        size = _size(inputs)

        def blocks_of(windows):
            return min(inputs.length, size * -(-(size - 1 + windows * inputs.window) // size))

        return tuple(sorted({inputs.length, blocks_of(2), blocks_of(1)}, reverse=True))


def _size(inputs: Inputs) -> int:
    assert inputs.attention_block is not None, "checked where the decoder is made"
    return inputs.attention_block


def _stop(inputs: Inputs) -> jax.Array:
    """int32 `[B]`: the first place behind the attention block in which the window ends."""
    size, start = _size(inputs), inputs.prompt + inputs.block * inputs.window
    first = jnp.take_along_axis(inputs.positions, start[:, None], axis=1)[:, 0]
    last = first + inputs.window - 1  # counted on: behind a row's own end positions stand still
    return start + inputs.window + size - 1 - last % size
