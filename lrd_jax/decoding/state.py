"""What a decode carries from forward to forward, and what it answers.

Axes: B batch, P prompt, G canvas, W active window, D embed, V vocab, S `DecodeConfig.step_limit`.
"""

import enum
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from lrd_jax.decoding.vocab.belief import Belief


class StopReason(enum.IntEnum):
    """Why a row ended."""

    RUNNING = 0  # it has not
    FINISHED = 1  # every position was committed by the commit rule, or given
    SETTLED = 2  # the stop filled the rest of at least one block
    END_OF_TEXT = 3  # an end token with nothing masked before it; the rest became end-of-text
    STEP_LIMIT = 4  # max_forwards; positions still masked hold the mask id
    NON_FINITE = 5  # the model's logits held NaN or infinity; positions still masked hold the mask id

    @property
    def text(self) -> str:
        """As answers spell it, "end-of-text"."""
        return self.name.lower().replace("_", "-")


class Trace(flax.struct.PyTreeNode):
    """What each step of each row saw; entries after a row's last step are NaN, 0 and False."""

    divergence: jax.Array  # [B, S] float32, D_t in nats; +inf on a block's first forward
    entropy: jax.Array  # [B, S] float32, mean over the window's masked positions before the commit, nats
    committed: jax.Array  # [B, S] int32, positions that became tokens
    refining: jax.Array  # [B, S] bool, the step began in refinement


class DecodeState(flax.struct.PyTreeNode):
    """The loop's carry. Everything a further step needs beside the parameters and the config."""

    prompt: jax.Array  # [B, P] int32
    prompt_mask: jax.Array  # [B, P] bool, False at left padding
    length: jax.Array | None  # [B] int32, positions of the row's canvas; None: all G, always
    growth: Any  # what the length part keeps of the rows
    keys: jax.Array | None  # [B] random keys, one a row; None where nothing may be drawn
    tokens: jax.Array  # [B, G] int32, the mask id where nothing is committed
    masked: jax.Array  # [B, G] bool; state, never `tokens == mask_id`: a prompt or an answer may hold that id
    soft: jax.Array | None  # [B, W, D] what masked positions of the window feed back, params' dtype; None: [MASK]
    belief: Belief  # [B, W] of the forward before; an empty canvas' is token 0, confidence 0
    previous: jax.Array | None  # what is kept of that forward for the KL, see `lrd_jax.decoding.reading`
    log_z: jax.Array | None  # [B, G] that goes with it, where it is of the whole canvas; else `belief` has it
    cache: Any  # what the cache keeps
    block: jax.Array  # [B] int32, the active block
    block_forwards: jax.Array  # [B] int32, forwards in this block
    commits: jax.Array  # [B] int32, forwards in this block that could commit
    refined: jax.Array  # [B] int32, forwards since the last of them
    committing: jax.Array  # [B] bool, the next forward begins in the commit phase
    settled: jax.Array  # [B] bool, the stop has filled a block
    parts: dict[str, Any]  # the parts' own states, by their question
    forwards: jax.Array  # [B] int32, steps so far
    refine_forwards: jax.Array  # [B] int32, those that began in refinement
    reason: jax.Array  # [B] int32, a StopReason
    trace: Trace | None

    @property
    def running(self) -> jax.Array:
        """bool [B]."""
        return self.reason == StopReason.RUNNING

    @property
    def exists(self) -> jax.Array | None:
        """bool [B, G], positions inside the row's own length; None: all."""
        return None if self.length is None else jnp.arange(self.masked.shape[1]) < self.length[:, None]


class DecodeResult(flax.struct.PyTreeNode):
    """The answer, and how it went."""

    tokens: jax.Array  # [B, G] int32; end-of-text beyond a row's own length
    forwards: jax.Array  # [B] int32, model evaluations of the row, refinement included; guidance costs two a step
    refine_forwards: jax.Array  # [B] int32, those of them that began in refinement
    stop_reason: jax.Array  # [B] int32, a StopReason
    trace: Trace | None = None
