"""A decode, forward by forward, as NumPy arrays: what every forward believed, and what it fed on.

The decode itself is that of `lrd_jax.decode`, asked for one forward at a time; nothing is decoded here.
Axes: S forwards, B rows, W canvas (one block), D embed, V vocab.
"""

import dataclasses
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from lrd_jax import belief as beliefs
from lrd_jax.belief import Belief
from lrd_jax.canvas import check_prompt
from lrd_jax.checkpoint import Loaded
from lrd_jax.config import DecodeConfig
from lrd_jax.decode import Decoder
from lrd_jax.state import DecodeState
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

    def first_rows(self, count: int) -> "Walk":
        """The record of some rows alone."""
        return Walk(
            final=self.final[:count],
            **{
                name: jax.tree.map(lambda x: x[:, :count], getattr(self, name))
                for name in ("masked", "asked", "divergence", "belief")
            },
        )


def recordable(config: DecodeConfig) -> DecodeConfig:
    """The config with what a record needs: a trace, and the logits of the whole window in the state.

    Raises:
      ValueError: several blocks, whose records would overlap; or a temperature.
    """
    if config.num_blocks > 1 or config.temperature > 0:
        raise ValueError(f"only decodes of one block at temperature 0 can be recorded, got {config}")
    return config.replace(trace=True, logit_chunk=config.window)


def encode(loaded: Loaded, prompts: list[str], *, chat: bool, gen_length: int):
    """All prompts at one length, so that everything compiles once: int32 and bool `[B, P]`.

    Raises:
      ValueError: see `encode_prompts` and `check_prompt`.
    """
    prompt, mask = encode_prompts(loaded.tokenizer, prompts, chat=chat)
    check_prompt(prompt, mask, gen_length, loaded.config)
    return prompt, mask


def batches(prompt: np.ndarray, mask: np.ndarray, size: int) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
    """Parts of `size` rows, the last one filled with copies of its first row, and how many rows of each count."""
    for start in range(0, len(prompt), size):
        part = np.arange(start, min(start + size, len(prompt)))
        rows = np.concatenate([part, np.full(size - len(part), start)])
        yield prompt[rows], mask[rows], len(part)


def forwards_of(decoder: Decoder, params, state: DecodeState, config: DecodeConfig | None = None):
    """Pairs of states, before and after each forward, until every row has ended."""
    while bool(state.running.any()):
        after = decoder.advance(params, state, 1, config)
        yield state, after
        state = after


def decode_all(
    decoder: Decoder, params, prompt: np.ndarray, mask: np.ndarray, batch: int, config: DecodeConfig | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Tokens int `[N, W]` and forwards int `[N]` of whole decodes; shares the compiles of `forwards_of`."""
    tokens, forwards, limit = [], [], (config or decoder.config).step_limit
    for some, some_mask, rows in batches(prompt, mask, batch):
        start = decoder.start(params, some, some_mask, config=config)
        result = decoder.result(decoder.advance(params, start, limit, config), config)
        tokens.append(np.asarray(result.tokens)[:rows])
        forwards.append(np.asarray(result.forwards)[:rows])
    return np.concatenate(tokens), np.concatenate(forwards)


def walk(decoder: Decoder, params, prompt: np.ndarray, mask: np.ndarray, batch: int) -> Walk:
    """Records the decode of all prompts `[B, P]`, `batch` rows at a time, with a decoder of a `recordable` config."""
    parts = []
    for some, some_mask, rows in batches(prompt, mask, batch):
        steps, last = [], None
        for before, after in forwards_of(decoder, params, decoder.start(params, some, some_mask)):
            steps.append(jax.device_get(_observe(before, after)))
            last = after
        masked, asked, belief = jax.tree.map(lambda *x: np.stack(x), *steps)
        divergence = np.asarray(last.trace.divergence).T[: len(steps)]
        whole = Walk(final=np.asarray(last.tokens), masked=masked, asked=asked, divergence=divergence, belief=belief)
        parts.append(whole.first_rows(rows))
    return join(parts)


def join(walks: list[Walk]) -> Walk:
    """One record of the rows of several; shorter ones are continued with forwards that see nothing masked."""
    longest = max(len(w.masked) for w in walks)

    def rows(arrays, fill):
        more = ((longest - len(a), a) for a in arrays)
        return np.concatenate(
            [np.pad(a, ((0, n), *[(0, 0)] * (a.ndim - 1)), constant_values=fill) for n, a in more], axis=1
        )

    return Walk(
        final=np.concatenate([w.final for w in walks]),
        masked=rows([w.masked for w in walks], False),
        asked=rows([w.asked for w in walks], False),
        divergence=rows([w.divergence for w in walks], np.nan),
        belief=jax.tree.map(lambda *a: rows(a, 0), *(w.belief for w in walks)),
    )


@jax.jit
def _observe(before: DecodeState, after: DecodeState) -> tuple[jax.Array, jax.Array, Belief]:
    """Masked positions, whether a stop would have been asked (right after a commit), and the forward's belief."""
    running = before.running
    asked = running & (before.turns > 0) & (before.thoughts == 0)
    masked = before.masked & running[:, None]
    return masked, asked, beliefs.read(jnp.asarray(after.previous.window))
