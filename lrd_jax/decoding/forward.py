"""From the state to what the model is asked with: the canvas embedded (step 1).

Axes: B batch, P prompt, G canvas, L = P + G, W active window, D embed.
"""

from typing import Any

import jax.numpy as jnp

from lrd_jax.decoding.canvas import lead_of, put_window, take_window
from lrd_jax.decoding.config import DecodeConfig
from lrd_jax.decoding.model import Denoiser, attention_block_of
from lrd_jax.decoding.parts.cache.cache import Inputs
from lrd_jax.decoding.parts.cache.shadow import Shadows
from lrd_jax.decoding.state import DecodeState
from lrd_jax.models import positions_of


def embed(model: Denoiser, params: Any, config: DecodeConfig, state: DecodeState) -> Inputs:
    """A committed position is its token; a masked one in the window its soft embedding, in a later block [MASK]."""
    W, P, start = config.window, state.prompt.shape[1], state.block * config.window
    mask_embedding = model.embed(params, jnp.int32(model.config.mask_id))
    canvas = jnp.where(state.masked[..., None], mask_embedding, model.embed(params, state.tokens))
    if state.soft is not None:
        masked = take_window(state.masked, start, W)[..., None]
        canvas = put_window(canvas, jnp.where(masked, state.soft, take_window(canvas, start, W)), start)
    exists = jnp.ones_like(state.masked) if state.exists is None else state.exists
    visible = jnp.concatenate([state.prompt_mask, exists], axis=1)
    positions, lead = positions_of(visible), lead_of(model.config.alignment)
    shadows = None
    if "shadow" in config.reads:
        hidden = jnp.broadcast_to(mask_embedding, (*start.shape, W, len(mask_embedding)))
        shadows = Shadows(hidden, take_window(positions, P + start - lead, W), P + start)
    return Inputs(
        embeddings=jnp.concatenate([model.embed(params, state.prompt), canvas], axis=1),
        visible=visible,
        positions=positions,
        masked=state.masked,
        block=state.block,
        block_forwards=state.block_forwards,
        forwards=state.forwards,
        running=state.running,
        ends=None if state.length is None else P + state.length,
        ahead=config.commit.ahead(state.parts["commit"], config.num_blocks),
        shadows=shadows,
        prompt=P,
        window=W,
        num_blocks=config.num_blocks,
        lead=lead,
        guided=config.cfg_scale is not None,
        reach=config.asked,
        attention_block=attention_block_of(model),
    )
