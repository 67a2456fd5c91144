"""What every part of a decoder is: a value that answers one question, reads one sight, and keeps its own state."""

from typing import Any, ClassVar

from lrd_jax.decoding.sight import Sight


class Part:
    """What the loop asks of every part; the defaults suit one that reads the common sight and remembers nothing.

    A part is a `lrd_jax.decoding.setting.setting`: its fields say what they take, so that its checks and its text form
    come of themselves. Numbers of it may be one a row: `lrd_jax.decoding.setting.column` brings them beside `[B, W]`.
    """

    text_name: ClassVar[str]  # how the text form names it; the class' name, in small letters, where this is not set

    @property
    def reads(self) -> frozenset[str]:
        """What the reading must compute for it beyond the common sight.

        "kl": `Sight.kl` and `Sight.divergence`; "carried": `Sight.kl` knows on a block's first forward what the last
        one before it said there; "margin": `Belief.margin`; "gap": `Belief.gap`; "filtered": the proposal is a belief
        of the tempered, filtered logits (Dream), not the model's own; "planned": `Sight.planned`; "canvas":
        `Sight.canvas`, beliefs of the whole canvas, all of which then goes through the head; "shadow": `Sight.shadow`,
        W more rows in every forward; "js" and "js_none": `Sight.js`, `Sight.js_none`; "mass": `Sight.mass`.
        """
        return frozenset()

    def start(self, rows: int, window: int) -> Any:
        """The part's state at the start of a block: a pytree of arrays `[rows, ...]`."""
        return ()

    def observe(self, sight: Sight, state: Any) -> Any:
        """The state after a forward, refining ones too."""
        return state
