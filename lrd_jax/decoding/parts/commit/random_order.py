"""A commit rule that knows what comes next: one random order a block, drawn when it begins. Axes: B batch, W window."""

from typing import Any

import jax
import jax.numpy as jnp

from lrd_jax.decoding.parts.commit.reference import PlannedRule
from lrd_jax.decoding.parts.commit.rule import best, ranks
from lrd_jax.decoding.setting import count, setting
from lrd_jax.decoding.sight import Change, Sight


@setting
class RandomOrder(PlannedRule):
    """The masked positions of a block in a random order, as many a forward as LLaDA's schedule has, however sure.

    Attributes:
      steps: forwards for the whole canvas, shared evenly by its blocks; None: one a token.
    """

    steps: int | None = count(default=None)

    @property
    def draws(self) -> bool:
        return True

    @property
    def foresees(self) -> bool:
        return True

    def start(self, rows: int, window: int) -> dict[str, jax.Array]:
        return {
            "score": jnp.zeros((rows, window)),
            "masks": jnp.zeros(rows, jnp.int32),  # when the block began
            "next": jnp.full((rows, window), window, jnp.int32),  # turns of the next commit; W: not in it
        }

    def __call__(self, sight: Sight, state: Any) -> tuple[Change, Any]:
        planned, masks = self.planned(sight, state["masks"])
        score = jnp.where((sight.commits == 0)[:, None], self.uniform(sight), state["score"])
        chosen = best(score, sight.masked, planned)
        left, then = sight.masked & ~chosen, self.planned_at(sight, masks, sight.commits + 1)
        turn = ranks(score, left)
        following = jnp.where(left & (turn < then[:, None]), turn, sight.window).astype(jnp.int32)
        return Change(chosen), {"score": score, "masks": masks, "next": following}

    def uniform(self, sight: Sight) -> jax.Array:
        """The draws `[B, W]`, highest first; a method of its own so that recorded draws can stand in for them."""
        return jax.vmap(lambda key: jax.random.uniform(key, sight.masked.shape[1:]))(sight.keys)

    def ahead(self, state: Any, blocks: int) -> jax.Array:
        turns = state["next"]
        W = turns.shape[1]
        most = 1 if self.steps is None else -(-W // (self.steps // blocks))
        at = jnp.argsort(turns, axis=1)[:, :most]
        return jnp.where(jnp.take_along_axis(turns, at, axis=1) < W, at, W)
