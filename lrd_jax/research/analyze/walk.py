"""A decode, forward by forward, as NumPy arrays: what every forward believed.

Axes: S forwards, B rows, W canvas (one block).
"""

import dataclasses

import jax
import numpy as np

from lrd_jax.batching import batches
from lrd_jax.checkpoint import Loaded
from lrd_jax.decoding.config import DecodeConfig
from lrd_jax.decoding.loop import Decoder, Forward
from lrd_jax.decoding.parts.stop import asked
from lrd_jax.decoding.request import check_prompt
from lrd_jax.decoding.vocab.belief import Belief
from lrd_jax.errors import Refused
from lrd_jax.text import encode_prompts


@dataclasses.dataclass(frozen=True, kw_only=True)
class Walk:
    """The record of a decode without a stop, temperature 0."""

    final: np.ndarray  # [B, W] int32, the tokens that it ended with
    masked: np.ndarray  # [S, B, W] bool, before the forward's commit
    asked: np.ndarray  # [S, B] bool, forwards on which a stop would have been asked
    divergence: np.ndarray  # [S, B] nats, D_t; NaN after a row's end
    belief: Belief  # of every forward, arrays [S, B, W]

    @property
    def forwards(self) -> np.ndarray:
        """int [B]."""
        return self.masked.any(axis=-1).sum(axis=0)

    @property
    def answers(self) -> np.ndarray:
        """int `[S, B, W]`: the canvas if the forward filled all that is masked; committed tokens stay."""
        return np.where(self.masked, self.belief.token, self.final)


def recordable(config: DecodeConfig) -> DecodeConfig:
    """The config with what a record needs: a trace.

    Raises:
      ValueError: several blocks, whose records would overlap; or a temperature.
    """
    if config.num_blocks > 1 or config.draws:
        raise Refused(f"only decodes of one block at temperature 0 can be recorded, got {config}")
    return config.replace(trace=True)


def encode(loaded: Loaded, prompts: list[str], *, chat: bool, gen_length: int):
    """All prompts at one length, so that everything compiles once: int32 and bool `[B, P]`.

    Raises:
      ValueError: see `encode_prompts` and `check_prompt`.
    """
    prompt, mask = encode_prompts(loaded.tokenizer, prompts, chat=chat)
    check_prompt(prompt, mask, gen_length, loaded.config)
    return prompt, mask


def decode_all(
    decoder: Decoder, params, prompt: np.ndarray, mask: np.ndarray, batch: int, config: DecodeConfig | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Tokens int `[N, W]` and forwards int `[N]` of whole decodes."""
    parts = []
    for rows, count in batches(range(len(prompt)), batch):
        result = decoder(params, prompt[rows], mask[rows], config=config)
        parts.append((np.asarray(result.tokens)[:count], np.asarray(result.forwards)[:count]))
    tokens, forwards = map(np.concatenate, zip(*parts, strict=True))
    return tokens, forwards


def walk(decoder: Decoder, params, prompt: np.ndarray, mask: np.ndarray, batch: int) -> Walk:
    """Records the decode of all prompts `[B, P]`, `batch` rows at a time, with a decoder of a `recordable` config."""
    parts = []
    for rows, count in batches(range(len(prompt)), batch):
        found = jax.device_get(decoder.watch(_look, params, prompt[rows], mask[rows]))
        parts.append(jax.tree.map(lambda x, count=count: x[:count], found))
    result, record = jax.tree.map(lambda *x: np.concatenate(x), *parts)
    steps = result.forwards.max()
    by_forward = {name: jax.tree.map(lambda x: x.swapaxes(0, 1)[:steps], column) for name, column in record.items()}
    return Walk(final=result.tokens, divergence=result.trace.divergence.T[:steps], **by_forward)


def _look(forward: Forward) -> dict[str, jax.Array | Belief]:
    """Masked positions, whether a stop would have been asked, and the belief."""
    sight = forward.sight
    return {"masked": sight.masked, "asked": asked(sight), "belief": sight.belief}
