"""How long a row's canvas is: as asked, or found and changed while the row decodes.

Axes: B batch, G canvas, W active window.
"""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from lrd_jax.decoding.model import Vocabulary
from lrd_jax.decoding.parts.part import Part
from lrd_jax.decoding.setting import Number, column, is_known, number, setting, whole, whole_number
from lrd_jax.decoding.sight import Sight
from lrd_jax.errors import Refused

OPEN, END = -1, -2  # in `Resize.source`


@flax.struct.dataclass
class Resize:
    """What becomes of the canvas after a forward and its commit."""

    source: jax.Array  # [B, G] int32: place that each position's content comes from; OPEN: a new mask; END: a new `end`
    length: jax.Array  # [B] int32, the row's new length: at most G, and never shorter than before
    end: jax.Array | int  # `[B]` or one id: the token that a new end is


class LengthRule(Part):
    """What the loop asks about a row's length. Its own state is the row's: it outlasts blocks."""

    def begin(self, asked: jax.Array | None, rows: int, most: int) -> tuple[jax.Array | None, Any]:
        """Lengths int32 `[B]` before the first forward, and the part's state.

        Args:
          asked: `[B]`, each row's own length; None: `most`, all G, of every row. If that is also what comes back, every
            row fills the canvas.
        """
        raise NotImplementedError

    def holds(self, sight: Sight, state: Any) -> jax.Array | None:
        """bool `[B]`: rows that only look for their length, and decide nothing on this forward; None: none, ever."""
        return None

    def __call__(self, sight: Sight, state: Any, committed: jax.Array) -> tuple[Resize | None, Any]:
        """What becomes of the canvas, None: it stays, always; and the new state.

        Args:
          committed: bool `[B, W]`, masked positions of the window that become tokens on this forward.
        """
        raise NotImplementedError

    def check_vocabulary(self, words: Vocabulary) -> None:
        """Raises Refused where the rule would write what is no token of an answer."""

    def most_forwards(self, gen_length: int, commits: int) -> int:
        """Most forwards beyond `commits`, those that a canvas of so many positions takes as it stands."""
        return 0


class AsAsked(LengthRule):
    """A row is as long as it was asked for."""

    def begin(self, asked: jax.Array | None, rows: int, most: int) -> tuple[jax.Array | None, Any]:
        return asked, ()

    def __call__(self, sight: Sight, state: Any, committed: jax.Array) -> tuple[None, Any]:
        return None, state


@setting
class DAEDAL(LengthRule):
    """DAEDAL (arXiv 2508.00819): a canvas grows until the model sees an end in it, and where it is most in doubt.

    The end's confidence e: of the positions whose likeliest token is `eos`, the last `eos_check` of the row, the sum of
    those probabilities over `eos_check`, however few there are. The length that a row was asked for, or gen_length, is
    the most that it can become.

    First the row has `initial` masks and commits nothing: a forward with e < `eos_conf` adds `factor` masks at the end.
    One with more, or a row that cannot grow, ends this stage and puts `eos_check` // 2 end tokens behind the masks.
    Then it decodes. On a forward that commits something, with e < `eos_expand`, the position of the window that stays
    masked with the least confidence, if that is below `low`, becomes `factor` masks, and what follows moves to the
    right; a row that has become as long as it may takes no more.

    Attributes:
      initial: positions that a row begins with.
      factor: masks that are added at a time, or take a position's place.
      low: confidence below which a position is in doubt.
      eos_conf, eos_expand: bounds of e.
      eos_check: end tokens that are looked at.
      eos: the end token; None: the model's end-of-text.
    """

    initial: Number = whole(default=64, low=1)
    factor: Number = whole(default=8, low=2)
    low: Number = number(default=0.1, high=1)
    eos_conf: Number = number(default=0.5, high=1)
    eos_expand: Number = number(default=0.9, high=1)
    eos_check: Number = whole(default=32, low=1)
    eos: Number | None = whole(default=None)

    @property
    def reads(self) -> frozenset[str]:
        return frozenset({"canvas"})

    def begin(self, asked: jax.Array | None, rows: int, most: int) -> tuple[jax.Array, dict[str, jax.Array]]:
        limit = jnp.full(rows, most, jnp.int32) if asked is None else asked
        length = jnp.minimum(limit, whole_number(self.initial))
        return length, {"most": jnp.copy(limit), "found": jnp.zeros(rows, bool)}

    def holds(self, sight: Sight, state: Any) -> jax.Array:
        return ~state["found"]

    def __call__(self, sight: Sight, state: Any, committed: jax.Array) -> tuple[Resize, Any]:
        assert sight.canvas is not None
        length, most, factor = jnp.asarray(sight.length), state["most"], whole_number(self.factor)
        e, fits = self.end_confidence(sight), length < most
        looks = sight.running & ~state["found"]
        grows = looks & fits & (e < self.eos_conf)
        ends = looks & ~grows

        confidence = jnp.where(sight.masked & ~committed, sight.proposal.confidence, jnp.inf)
        doubted = jnp.min(confidence, axis=-1) < self.low
        inserts = sight.running & state["found"] & fits & (e < self.eos_expand) & doubted & jnp.any(committed, axis=-1)

        place = jnp.arange(sight.canvas.masked.shape[1], dtype=jnp.int32)
        at, added = column(sight.start + jnp.argmin(confidence, axis=-1)), column(factor)
        moved = jnp.where(place < at, place, jnp.where(place < at + added, OPEN, place - added + 1))
        new = jnp.where(column(grows), OPEN, jnp.where(column(ends), END, place))
        source = jnp.where(column(inserts), moved, jnp.where(place < column(length), place, new))
        more = jnp.where(ends, whole_number(self.eos_check) // 2, jnp.where(grows, factor, inserts * (factor - 1)))
        end = sight.eos_id if self.eos is None else whole_number(self.eos)
        resize = Resize(source=source.astype(jnp.int32), length=jnp.minimum(length + more, most), end=end)
        return resize, state | {"found": state["found"] | ends}

    def end_confidence(self, sight: Sight) -> jax.Array:
        """e, float32 `[B]`."""
        assert sight.canvas is not None
        belief, exists = sight.canvas.belief, sight.canvas.exists
        eos = sight.eos_id if self.eos is None else column(whole_number(self.eos))
        is_end = belief.token == eos if exists is None else (belief.token == eos) & exists
        to_the_right = jnp.cumsum(is_end[:, ::-1], axis=-1)[:, ::-1]  # this one among them
        counted = is_end & (to_the_right <= column(whole_number(self.eos_check)))
        return jnp.sum(jnp.where(counted, belief.confidence, 0.0), axis=-1) / self.eos_check

    def check_vocabulary(self, words: Vocabulary) -> None:
        if self.eos is None or not is_known(self.eos):
            return
        for eos in np.ravel(self.eos):
            if eos >= words.vocab_size or eos == words.mask_id:
                raise Refused(
                    f"DAEDAL.eos={eos:.0f} must be a token of the vocabulary of {words.vocab_size}, and not the mask "
                    f"token, {words.mask_id}"
                )

    def most_forwards(self, gen_length: int, commits: int) -> int:
        # One mask at a time until the canvas is full; then what an insertion pushed off its end is committed again.
        return gen_length + commits
