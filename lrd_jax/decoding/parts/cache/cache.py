"""What a cache is: a part that owns the forward of a step, and what it keeps from one to the next.

Axes: B batch, L = prompt + canvas, W active window, G canvas, R positions whose logits are wanted, D embed, E
hidden states a position has (2 with guidance, else 1).
"""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from lrd_jax.decoding.canvas import take_window
from lrd_jax.decoding.model import Denoiser
from lrd_jax.decoding.parts.cache.shadow import Shadows, behind, cast
from lrd_jax.decoding.parts.part import Part
from lrd_jax.errors import Refused
from lrd_jax.models import KeyValues
from lrd_jax.sharding import constrain_batch


@flax.struct.dataclass
class Inputs:
    """Prompt and canvas as one forward meets them."""

    embeddings: jax.Array  # [B, L, D]
    visible: jax.Array  # [B, L] bool, False at padding and beyond a row's own length
    positions: jax.Array  # [B, L] int32, of the rotation
    masked: jax.Array  # [B, G] bool
    block: jax.Array  # [B] int32, the active block
    block_forwards: jax.Array  # [B] int32, forwards so far in it
    forwards: jax.Array  # [B] int32, all so far
    running: jax.Array  # [B] bool
    ends: jax.Array | None  # [B] int32, place behind a row's own length; None: every row fills the canvas
    ahead: jax.Array | None  # [B, n] int32, see `CommitRule.ahead`; None where the rule foresees nothing
    shadows: Shadows | None  # of the window, where a part reads them
    prompt: int = flax.struct.field(pytree_node=False)  # P
    window: int = flax.struct.field(pytree_node=False)  # W
    num_blocks: int = flax.struct.field(pytree_node=False)  # of the whole canvas
    lead: int = flax.struct.field(pytree_node=False)  # how far left of a position its logits stand: Dream 1, else 0
    guided: bool = flax.struct.field(pytree_node=False)  # a second forward without the prompt is wanted
    reach: int = flax.struct.field(pytree_node=False)  # R: W, or G where the whole canvas is wanted
    attention_block: int | None = flax.struct.field(pytree_node=False)  # of the model's attention; None: to everything

    @property
    def seen_from(self) -> jax.Array:
        """int32 `[B]`: where the R hidden states begin that hold the logits wanted."""
        block = self.block if self.reach == self.window else jnp.zeros_like(self.block)
        return self.prompt + block * self.window - self.lead

    @property
    def length(self) -> int:
        """L."""
        return self.embeddings.shape[1]

    @property
    def exists(self) -> jax.Array | None:
        """bool `[B, L]`: before the row's own end; None: every row fills the canvas."""
        return None if self.ends is None else jnp.arange(self.length) < self.ends[:, None]

    @property
    def last(self) -> jax.Array:
        """bool `[B, L]` or `[1, L]`: the row's last position."""
        return jnp.arange(self.length) == (self.length if self.ends is None else self.ends[:, None]) - 1


class Cache(Part):
    """What a forward recomputes. A cache owns how a step asks the model, and the state that it keeps for that."""

    @property
    def reaches_canvas(self) -> bool:
        """Whether every forward computes all positions that may be asked for where a part reads the whole canvas."""
        return False

    def check_attention(self, attention_block: int | None) -> None:
        """Raises Refused where the cache would not do for a model that attends by blocks of so many positions.

        As it stands it is for caches of models that attend to everything: None.
        """
        if attention_block is not None:
            raise Refused(
                f"cache={self!r} shows a position keys of every other, and this model attends block by block, "
                f"{attention_block} positions each; take cache=exact, or none"
            )

    def check_beside(self, config: Any) -> None:
        """Raises ValueError where the cache does not fit the other parts of a `DecodeConfig`."""

    def empty(self, model: Denoiser, params: Any, batch: int, length: int) -> Any:
        """What is kept before the first forward, for sequences of L positions."""
        raise NotImplementedError

    def renewed(self, rows: jax.Array, empty: Any, kept: Any) -> Any:
        """What is kept once other prompts have taken some rows `[B]`, whose part of it is to be as in `empty`.

        As it stands it is for caches that a row fills in its first forward: nothing need be emptied.
        """
        return kept

    def row_axes(self, kept: Any) -> Any:
        """The axis of rows in every array that is kept, in its structure; None: unknown, and left alone.

        It is for meshes, which split rows, and for rounds of an engine that leave out what pads every prompt: there the
        axis behind it is that of positions, unless `keeps_positions` says otherwise.
        """
        return jax.tree.map(lambda _: 1, kept) if isinstance(kept, KeyValues) else None

    @property
    def keeps_positions(self) -> bool:
        """Whether something is kept of every position, in its place."""
        return True

    @property
    def feeds_shadows(self) -> bool:
        """Whether its forwards feed shadow rows beside the canvas, where a part reads them."""
        return False

    def waiting(self, inputs: Inputs) -> jax.Array | None:
        """bool `[B]`: running rows that take no part in this forward; None: all take part, always."""
        return None

    def forward(self, model: Denoiser, params: Any, inputs: Inputs, kept: Any) -> tuple[jax.Array, Any]:
        """Hidden states `[B, R, E, D]` that hold the logits wanted, meaningless in waiting rows; and what is kept.

        Where there are shadows, theirs follow: `[B, R + W, E, D]`.
        """
        raise NotImplementedError


class NoCache(Cache):
    """Every forward computes everything."""

    def check_attention(self, attention_block: int | None) -> None:
        pass

    @property
    def reaches_canvas(self) -> bool:
        return True

    @property
    def feeds_shadows(self) -> bool:
        return True

    def empty(self, model: Denoiser, params: Any, batch: int, length: int) -> None:
        return None

    def forward(self, model: Denoiser, params: Any, inputs: Inputs, kept: None) -> tuple[jax.Array, None]:
        def hidden(embeddings):
            rows, positions, mask = cast(inputs.shadows, embeddings, inputs.positions, inputs.visible, at=0)
            out = constrain_batch(model.hidden(params, constrain_batch(rows), positions, mask))
            return behind(inputs.shadows, take_window(out, inputs.seen_from, inputs.reach), out)

        states = [hidden(inputs.embeddings)]
        if inputs.guided:
            mask_embedding = model.embed(params, jnp.int32(model.config.mask_id))
            states.append(hidden(inputs.embeddings.at[:, : inputs.prompt].set(mask_embedding)))
        return jnp.stack(states, axis=2), None
