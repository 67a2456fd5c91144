"""The record of decodes that never stop, and what any stop would have made of them.

A stop changes nothing before it says yes, and then it fills what is masked with the proposals of that very forward. So
an unstopped decode tells what every stop would have answered, on every forward, without decoding again: the rule itself
is asked with the sights that were recorded. A canvas is one block here: beyond, a stop in the first block changes what
the second begins with.
Axes: S forwards, N rows, W canvas.
"""

from collections.abc import Callable
from typing import TypeVar

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from lrd_jax.batching import batches
from lrd_jax.decoding.config import DecodeConfig
from lrd_jax.decoding.loop import Decoder, Forward
from lrd_jax.decoding.parts.stop import StopRule, asked
from lrd_jax.decoding.sight import Sight
from lrd_jax.errors import Refused
from lrd_jax.pods import fetch

T = TypeVar("T")


@flax.struct.dataclass
class Recording:
    """Unstopped decodes, forward by forward, on the host."""

    sight: Sight  # arrays [S, N] and [S, N, W], 0 from a row's end on; see `seen`
    filled: np.ndarray  # [S, N, W] int32, the canvas if a stop ended the row there
    final: np.ndarray  # [N, W] int32, the tokens that it ended with

    @property
    def asked(self) -> np.ndarray:
        """bool `[S, N]`: forwards on which a stop is asked."""
        return np.asarray(asked(self.sight))

    @property
    def forwards(self) -> np.ndarray:
        """int `[N]`."""
        return self.sight.masked.any(axis=-1).sum(axis=0)


def first_stop(stop: StopRule, sight: Sight) -> np.ndarray:
    """int `[N]`: index of the forward on which the rule ends each row; -1 where it never does.

    Args:
      stop: one that remembers nothing.
      sight: recorded, arrays `[S, N, ...]`.
    """
    ends = np.asarray(stop(sight, ()))
    return np.where(ends.any(axis=0), ends.argmax(axis=0), -1)


def recordable(config: DecodeConfig) -> DecodeConfig:
    """The config with what a record needs: a trace, so that divergence is measured whoever reads it.

    Raises:
      ValueError: several blocks, whose records would overlap; or a temperature.
    """
    if config.num_blocks > 1 or config.draws:
        raise Refused(f"only decodes of one block at temperature 0 can be recorded, got {config}")
    return config.replace(trace=True)


def seen(sight: Sight) -> Sight:
    """What of a sight is recorded: all but what no stop reads, which is None then: kl, the proposal, and keys."""
    length = jnp.broadcast_to(sight.length, sight.running.shape)
    canvas = None if sight.canvas is None else sight.canvas.replace(kl=None, proposal=None)
    return sight.replace(kl=None, proposal=None, keys=None, length=length, canvas=canvas)


def filled(forward: Forward) -> jax.Array:
    """int32 `[B, W]`: the canvas of one block if a stop ended every row at this forward."""
    return jnp.where(forward.sight.masked, forward.sight.proposal.token, forward.before.tokens)


def record(decoder: Decoder, params, prompt: np.ndarray, mask: np.ndarray, batch: int) -> Recording:
    """Records the decode of all prompts `[N, P]`, `batch` rows at a time, with a decoder of a `recordable` config."""
    result, (sight, canvas) = by_batches(lambda *rows: decoder.watch(_look, params, *rows), prompt, mask, batch)
    steps = result.forwards.max()
    sight, canvas = jax.tree.map(lambda x: x.swapaxes(0, 1)[:steps], (sight, canvas))
    return Recording(sight=sight, filled=canvas, final=result.tokens)


def _look(forward: Forward) -> tuple[Sight, jax.Array]:
    return seen(forward.sight), filled(forward)


def decode_all(
    decoder: Decoder, params, prompt: np.ndarray, mask: np.ndarray, batch: int, config: DecodeConfig | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Tokens int `[N, W]` and forwards int `[N]` of whole decodes: what a record's are compared with, not texts."""
    result = by_batches(lambda *rows: decoder(params, *rows, config=config), prompt, mask, batch)
    return result.tokens, result.forwards


def by_batches(run: Callable[..., T], prompt: np.ndarray, mask: np.ndarray, batch: int) -> T:
    """What `run` gives for `batch` rows of the prompts `[N, P]` at a time, arrays `[B, ...]`; on the host, of all N.

    Prompts are token ids that come back as arrays, watched forwards among them, so that this decodes below
    `lrd_jax.Generator`, whose prompts and answers are texts.
    """
    parts = []
    for rows, count in batches(range(len(prompt)), batch):
        found = fetch(run(prompt[rows], mask[rows]))
        parts.append(jax.tree.map(lambda x, count=count: x[:count], found))
    return jax.tree.map(lambda *x: np.concatenate(x), *parts)
