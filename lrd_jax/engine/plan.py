"""What is to happen to the slots before a round, in a table of one shape: one array goes to the device, or to a pod.

Axes: B slots, P prompt, G canvas, K numbers of a config.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

REST, BEGIN = 1, 2  # a slot's first column: 0 leaves it as it is


@dataclasses.dataclass(frozen=True)
class Work:
    """One request, ready for a slot.

    Attributes:
      prompt: token ids, P at most.
      length: of its own canvas.
      canvas: int32 `[l]`, tokens that are given, -1 where it is open; None: all open.
      seed: of its draws.
      numbers: float32 `[K]`, in the order of `lrd_jax.engine.numbers`.
    """

    prompt: list[int]
    length: int
    canvas: np.ndarray | None
    seed: int
    numbers: np.ndarray


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where things stand in a plan int32 `[B, columns]`: what to do, prompt tokens, length, seed; then
    numbers `[K]` bit for bit, prompt `[P]` on the left padded, canvas `[G]`."""

    slots: int
    prompt: int
    canvas: int
    numbers: int

    @property
    def columns(self) -> int:
        return 4 + self.numbers + self.prompt + self.canvas

    def write(self, placed: dict[int, Work], ended: list[int]) -> np.ndarray:
        """The plan that begins `placed`, by slot, and puts `ended` to rest."""
        plan = np.zeros((self.slots, self.columns), np.int32)
        plan[ended, 0] = REST
        for slot, work in placed.items():
            plan[slot, :3] = BEGIN, len(work.prompt), work.length
            plan[slot, 3:4].view(np.uint32)[0] = work.seed & 0xFFFFFFFF
            numbers, prompt, canvas = np.split(plan[slot, 4:], np.cumsum([self.numbers, self.prompt]))
            numbers.view(np.float32)[:] = work.numbers
            prompt[self.prompt - len(work.prompt) :] = work.prompt
            canvas[:] = -1
            if work.canvas is not None:
                canvas[: work.length] = work.canvas
        return plan

    def read(self, plan: jax.Array) -> "Newcomers":
        """The same inside jit."""
        head, rest = plan[:, :4], plan[:, 4:]
        numbers, prompt, canvas = jnp.split(rest, np.cumsum([self.numbers, self.prompt]), axis=1)
        begins = head[:, 0] == BEGIN
        return Newcomers(
            begins=begins,
            rests=head[:, 0] == REST,
            # What does not begin gets a prompt all the same: a row without a token has no attention.
            prompt_mask=jnp.arange(self.prompt) >= self.prompt - jnp.where(begins, head[:, 1], 1)[:, None],
            length=jnp.where(begins, head[:, 2], self.canvas),
            seeds=jax.lax.bitcast_convert_type(head[:, 3], jnp.uint32),
            numbers=jax.lax.bitcast_convert_type(numbers, jnp.float32),
            prompt=prompt,
            canvas=canvas,
        )


@dataclasses.dataclass(frozen=True)
class Newcomers:
    """A plan as the device reads it."""

    begins: jax.Array  # [B] bool
    rests: jax.Array  # [B] bool
    prompt: jax.Array  # [B, P] int32
    prompt_mask: jax.Array  # [B, P] bool
    length: jax.Array  # [B] int32
    canvas: jax.Array  # [B, G] int32, -1 where it is open
    seeds: jax.Array  # [B] uint32
    numbers: jax.Array  # [B, K] float32
