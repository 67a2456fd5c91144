"""What one forward shows, and what a rule answers: the one value that every part reads, and a commit's change.

Axes: B batch, W active window, G canvas, V vocab.
"""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from lrd_jax.decoding.vocab.belief import Belief


@flax.struct.dataclass
class View:
    """What one forward shows of the whole canvas, before its commit."""

    masked: jax.Array  # [B, G] bool
    exists: jax.Array | None  # [B, G] bool, inside the row's own length; None: every row fills the canvas
    belief: Belief  # [B, G], the model's own
    proposal: Belief  # [B, G], see `Sight.proposal`
    kl: Any  # [B, G] nats, to the forward before, of another block too; +inf on the first and where places have moved


@flax.struct.dataclass
class Sight:
    """One forward as every part sees it. Counts are of what came before this forward."""

    masked: jax.Array  # [B, W] bool, before this forward's commit
    exists: jax.Array | None  # [B, W] bool, inside the row's own length; None: every row fills the canvas
    belief: Belief  # the model's own
    proposal: Belief  # the same with the token that would be committed; of filtered logits, where a part reads those
    kl: Any  # [B, W] nats, to the belief before; None where no part reads it; +inf on a block's first forward
    divergence: jax.Array  # [B] nats, D_t (Eq. 6); +inf on a block's first forward and where none is measured
    running: jax.Array  # [B] bool, the row has not ended and its logits are finite
    committing: jax.Array  # [B] bool, the forward began in the commit phase
    forwards: jax.Array  # [B] int32, of the row
    block_forwards: jax.Array  # [B] int32, of the row in this block
    commits: jax.Array  # [B] int32, forwards of this block that could commit
    refined: jax.Array  # [B] int32, forwards since the last of them
    start: jax.Array  # [B] int32, place of the window in the canvas
    length: jax.Array | int  # [B] int32, positions of the row's canvas
    keys: jax.Array | None  # [B] random keys, fresh on every forward; None where nothing may be drawn
    window: int = flax.struct.field(pytree_node=False)  # W
    vocab_size: int = flax.struct.field(pytree_node=False)  # V, rows of the embedding
    eos_id: int = flax.struct.field(pytree_node=False, default=-1)  # the model's end-of-text
    canvas: View | None = None  # None where no part reads "canvas"
    js: Any = None  # [B, W] nats, to the belief before, as `kl` is; None where no part reads it
    js_none: Any = None  # [B, W] nats, between this belief and none at all; None where no part reads it
    mass: Any = None  # [B, W] of the tokens that are mixed; None where no part reads it
    shadow: Any = None  # [B, W] probability of the token on the canvas where it is hidden; None where no part reads it
    planned: Any = None  # `[B]` or one number: forwards that the commit rule plans for the row; where a part reads it
    moved: Any = None  # [B, G] int32, `Resize.source` of what followed, for who looks on; None where nothing ever moves

    @property
    def width(self) -> jax.Array | int:
        """`[B]` or one number: positions of the row in the window."""
        return self.window if isinstance(self.length, int) else jnp.minimum(self.window, self.length - self.start)

    @property
    def blocks(self) -> jax.Array | int:
        """`[B]` or one number: blocks of the row."""
        return -(-self.length // self.window)


@flax.struct.dataclass
class Change:
    """What a commit rule does to the window."""

    commit: jax.Array  # [B, W] bool, masked positions that become their proposed tokens
    reopen: jax.Array | None = None  # [B, W] bool, committed positions that are masked again; None: none, ever
