"""The state before the first forward: everything that is not given is masked, every soft embedding e_[MASK].

Axes: B batch, P prompt, G canvas, W active window.
"""

from typing import Any

import jax.numpy as jnp

from lrd_jax.decoding.config import DecodeConfig
from lrd_jax.decoding.model import Denoiser
from lrd_jax.decoding.reading import no_previous
from lrd_jax.decoding.request import Request
from lrd_jax.decoding.state import DecodeState, StopReason, Trace
from lrd_jax.decoding.step import fresh_parts, open_blocks
from lrd_jax.decoding.vocab.belief import Belief


def init_state(model: Denoiser, params: Any, config: DecodeConfig, request: Request) -> DecodeState:
    """The state before the first forward. Its arrays are its own: whoever drives the loop consumes them."""
    (B, P), G, W, S = request.prompt.shape, config.gen_length, config.window, config.step_limit
    zeros = jnp.zeros(B, jnp.int32)
    tokens = jnp.full((B, G), model.config.mask_id, jnp.int32)
    masked = jnp.ones((B, G), bool)
    if request.canvas is not None:
        masked = request.canvas < 0
        tokens = jnp.where(masked, tokens, request.canvas)
    length, growth = config.sizing.begin(request.length, B, G)
    if length is not None:
        exists = jnp.arange(G) < length[:, None]
        masked &= exists
        tokens = jnp.where(exists, tokens, model.config.eos_id)
    block, reason = zeros, jnp.full(B, StopReason.RUNNING, jnp.int32)
    if request.canvas is not None:
        is_open = open_blocks(config, masked)
        block = jnp.argmax(is_open, axis=-1).astype(jnp.int32)
        reason = jnp.where(jnp.any(is_open, axis=-1), StopReason.RUNNING, StopReason.FINISHED).astype(jnp.int32)
    window = model.embed(params, jnp.full((B, W), model.config.mask_id))
    return DecodeState(
        prompt=jnp.copy(request.prompt),
        prompt_mask=jnp.copy(request.prompt_mask),
        length=None if length is None else jnp.copy(length),
        growth=growth,
        keys=None if request.keys is None else jnp.copy(request.keys),
        tokens=tokens,
        masked=masked,
        soft=None if config.mix is None else window,
        belief=Belief(jnp.zeros((B, W), jnp.int32), *(jnp.zeros((B, W)) for _ in range(3))),
        previous=no_previous(model, config, B, window.shape[-1], window.dtype),
        log_z=jnp.zeros((B, G)) if config.reads_canvas and config.compares else None,
        cache=config.asking.empty(model, params, B, P + G),
        block=block,
        block_forwards=zeros,
        commits=zeros,
        refined=zeros,
        committing=config.refining.begins(B),
        settled=jnp.zeros(B, bool),
        parts=fresh_parts(config, B),
        forwards=zeros,
        refine_forwards=zeros,
        reason=reason,
        trace=_empty_trace(B, S) if config.trace else None,
    )


def _empty_trace(rows: int, steps: int) -> Trace:
    return Trace(
        divergence=jnp.full((rows, steps), jnp.nan),
        entropy=jnp.full((rows, steps), jnp.nan),
        committed=jnp.zeros((rows, steps), jnp.int32),
        refining=jnp.zeros((rows, steps), bool),
    )
