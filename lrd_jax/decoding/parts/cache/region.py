"""What a forward recomputes: everything, or a region against the keys and values of an earlier forward.

A cache is filled by a **refresh**: a forward of the whole sequence, which counts and commits like any other. Until the
next refresh a forward recomputes only a **region** that begins with the active block. Its positions see each other as
they are now, and every other position as the refresh saw it. Axes: B batch.
"""

import jax
import jax.numpy as jnp

from lrd_jax.decoding.setting import check_count, setting, static

_MOST_SIZES = 8  # each is compiled apart


class Cache:
    """What `lrd_jax.decoding.forward` asks of a cache.

    Attributes:
      refresh_every: a row refreshes at the start of a block and, within it, whenever so many forwards have passed;
        None: at the start of a block only.
    """

    refresh_every: int | None

    def __post_init__(self):
        check_count(self, "refresh_every")

    def asks(self, block_steps: jax.Array) -> jax.Array:
        """bool `[B]`: rows whose next forward must be a refresh; block_steps `[B]`, their forwards in this block."""
        return block_steps % self.refresh_every == 0 if self.refresh_every else block_steps == 0

    def stop(self, block: jax.Array, num_blocks: int) -> jax.Array:
        """int `[B]`: the first block after the region of a row whose active block is `block` `[B]`."""
        raise NotImplementedError

    def sizes(self, num_blocks: int) -> tuple[int, ...]:
        """The sizes of region that are compiled, in blocks, the largest first; a row's region may be part of one."""
        raise NotImplementedError


@setting
class PrefixCache(Cache):
    """Fast-dLLM's prefix cache: the active block and all after it are recomputed, prompt and blocks before it kept.

    A canvas of many blocks has a few sizes of region only; a forward takes the smallest that holds every row's.
    """

    refresh_every: int | None = static(None)

    def stop(self, block, num_blocks):
        return jnp.full_like(block, num_blocks)

    def sizes(self, num_blocks):
        count = min(num_blocks, _MOST_SIZES)
        return tuple(num_blocks - -(-i * num_blocks // count) for i in range(count))


@setting
class DualCache(Cache):
    """Fast-dLLM's dual cache: the active block alone is recomputed, all before and after it kept."""

    refresh_every: int | None = static(None)

    def stop(self, block, num_blocks):
        return block + 1

    def sizes(self, num_blocks):
        return (1,)
