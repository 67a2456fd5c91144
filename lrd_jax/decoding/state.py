"""What a decode carries from forward to forward, and what it answers.

Axes: B batch, P prompt, G canvas, W active window, D embed, V vocab, S `DecodeConfig.step_limit`.
"""

import enum
from typing import Any

import flax.struct
import jax

from lrd_jax.decoding.vocab.belief import Belief
from lrd_jax.models import KeyValues


class StopReason(enum.IntEnum):
    """Why a row ended."""

    RUNNING = 0  # it has not
    FINISHED = 1  # every position was committed by the commit rule
    SETTLED = 2  # the stop filled the rest of at least one block
    END_OF_TEXT = 3  # an end token with nothing masked before it; the rest became end-of-text
    STEP_LIMIT = 4  # max_forwards; positions still masked hold the mask id
    NON_FINITE = 5  # the model's logits held NaN or infinity; positions still masked hold the mask id


@flax.struct.dataclass
class Trace:
    """What each step of each row saw; entries after a row's last step are NaN, 0 and False."""

    divergence: jax.Array  # [B, S] float32, D_t in nats; +inf on a block's first forward
    entropy: jax.Array  # [B, S] float32, mean over the window's masked positions before the commit, nats
    committed: jax.Array  # [B, S] int32, positions that became tokens
    refining: jax.Array  # [B, S] bool, the step began in refinement


@flax.struct.dataclass
class Sight:
    """What one forward saw of the window, and what the stop is asked with."""

    masked: jax.Array  # [B, W] bool, before the commit
    belief: Belief  # the model's own
    token: jax.Array  # [B, W] int32, what each position would be committed to
    kl: jax.Array | None  # [B, W] nats, +inf on a block's first forward, where a divergence is measured
    asks: jax.Array  # [B] bool, a stop is asked here, and fills where it says so


@flax.struct.dataclass
class DecodeState:
    """The loop's carry. Everything a further step needs beside the parameters and the config."""

    prompt: jax.Array  # [B, P] int32
    prompt_mask: jax.Array  # [B, P] bool, False at left padding
    keys: jax.Array  # [B] random keys, one a row
    tokens: jax.Array  # [B, G] int32, the mask id where nothing is committed
    masked: jax.Array  # [B, G] bool; state, never `tokens == mask_id`: a prompt or an answer may hold that id
    soft: jax.Array  # [B, W, D] what masked positions of the window feed back, params' dtype
    previous: Any  # `reading.Previous`, what is kept of the forward before, where a divergence is measured
    cache: KeyValues | None  # of prompt and canvas at the last refresh, where the config has a cache
    block: jax.Array  # [B] int32, the active block
    block_steps: jax.Array  # [B] int32, forwards in this block
    turns: jax.Array  # [B] int32, forwards in this block that could commit
    thoughts: jax.Array  # [B] int32, forwards of the present refinement
    committing: jax.Array  # [B] bool, the next forward begins in the commit phase
    settled: jax.Array  # [B] bool, the stop has filled a block
    rule: Any  # the commit rule's own state
    steps: jax.Array  # [B] int32, forwards so far
    refine_steps: jax.Array  # [B] int32, those that began in refinement
    reason: jax.Array  # [B] int32, a StopReason
    trace: Trace | None

    @property
    def running(self) -> jax.Array:
        """bool [B]."""
        return self.reason == StopReason.RUNNING


@flax.struct.dataclass
class DecodeResult:
    """The answer, and how it went."""

    tokens: jax.Array  # [B, G] int32
    forwards: jax.Array  # [B] int32, model evaluations of the row, refinement included; guidance costs two a step
    refine_forwards: jax.Array  # [B] int32, those of them that began in refinement
    stop_reason: jax.Array  # [B] int32, a StopReason
    trace: Trace | None = None
