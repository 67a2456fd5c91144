"""Given answers scored by one forward: how much a model believes in each of them, before it commits anything.

Axes: P prompt, G canvas, V vocab, N labels (as many as there may be), L tokens of the longest.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lrd_jax.decoding.canvas import lead_of
from lrd_jax.decoding.compiling import PlatformJit
from lrd_jax.decoding.vocab.sampling import suppress
from lrd_jax.errors import Refused
from lrd_jax.generate import Generator, Prompt
from lrd_jax.models import positions_of
from lrd_jax.text import Piece, UnknownWords, check_text, left_pad, pad_to_bucket, token_ids, unknown_words

_MOST = 1024


@dataclasses.dataclass(frozen=True)
class Label:
    """One answer.

    Attributes:
      text: as given.
      logprob: of its tokens, each by itself at its masked position, in nats: the sum of their log-probabilities.
      probability: among the labels, that of a softmax over their logprobs.
    """

    text: str
    logprob: float
    probability: float


def score_labels(
    generator: Generator,
    prompt: Prompt | Sequence[int],
    labels: Sequence[str],
    *,
    canvas: Sequence[Piece] | None = None,
    length: int | None = None,
    chat: bool = False,
) -> list[Label]:
    """The labels with their log-probabilities, by one forward of the masked canvas.

        generator = Generator(load("lrd-tiny-soft"), DecodeConfig.lrd(64))
        score_labels(generator, "Tom has 14 apples. Ann takes 5 apples. How many are left?", ["8", "9"])

    Positions are scored independently of each other: a label of several tokens is not a likelihood of its text.

    Args:
      generator: of the model; of its decoder only the canvas counts.
      prompt: a text, a conversation, or token ids.
      canvas: texts and one number of open positions, as `Generator.generate` takes it. A label fills the hole: it has
        as many tokens. None: all is open, a label stands at its beginning, and the end token behind it counts too.
      length: positions of an open canvas; None: the generator's gen_length.
      chat: put a text into the model's chat template.

    Raises:
      Refused: no labels, two that are equal, one that does not fit or that the model does not know; and what
        `Generator.encode` and `encode_canvas` refuse.
    """
    return scoring(generator, prompt, labels, canvas, length, chat).run()


@dataclasses.dataclass(frozen=True)
class Scoring:
    """Labels that can be scored.

    Attributes:
      labels: their texts.
      rows: their token ids.
      prompt: its token ids.
      given: tokens int32 `[l]` of the canvas, -1 where it is open.
      start: where on it the labels stand.
      counts_end: the end token behind a label counts.
    """

    generator: Generator
    labels: tuple[str, ...]
    rows: Sequence[Sequence[int]]
    prompt: Sequence[int]
    given: np.ndarray
    start: int
    counts_end: bool

    def compile(self) -> None:
        """What the first `run` of its shapes does; here the device may do other work meanwhile."""
        _scores.lower(*self._arguments()).compile()

    def run(self) -> list[Label]:
        """One forward."""
        scores, ends = jax.device_get(_scores(*self._arguments()))
        nats = []
        for score, row in zip(scores, self.rows, strict=False):
            is_ended = self.counts_end and len(row) < len(self.given)
            nats.append(float(score) + (float(ends[len(row)]) if is_ended else 0.0))
        total = float(np.logaddexp.reduce(nats))
        return [Label(text, x, math.exp(x - total)) for text, x in zip(self.labels, nats, strict=True)]

    def _arguments(self) -> tuple[Any, ...]:
        """Of `_scores`, in few shapes, so that few are compiled: canvas, prompt and the labels' tokens are as long as a
        power of two, and the labels as many as there may be."""
        loaded, count, width = self.generator.loaded, len(self.given), _power_of_two(max(map(len, self.rows)))
        table = np.full((_MOST, width), -1, np.int32)
        for place, row in enumerate(self.rows):
            table[place, : len(row)] = row
        padded = np.full(min(_power_of_two(count), self.generator.config.gen_length), -1, np.int32)
        padded[:count] = self.given
        room = loaded.config.max_length - len(padded)
        shown, mask = pad_to_bucket(*left_pad([list(self.prompt)], self.generator.tokenizer.pad_token_id), room)
        places = np.minimum(self.start + np.arange(width + 1), count - 1).astype(np.int32)
        return loaded.model, loaded.params, shown, mask, padded, np.int32(count), places, table


def scoring(
    generator: Generator, prompt: Any, labels: Any, canvas: Sequence[Piece] | None, length: int | None, chat: bool
) -> Scoring:
    """What `score_labels` is about to do, checked; arguments and errors are its."""
    rows = [_ids(generator, label) for label in _checked(labels)]
    if canvas is None:
        length = generator.config.gen_length if length is None else length
        if not 1 <= length <= generator.config.gen_length:
            raise Refused(f"length={length} must be from 1 to gen_length={generator.config.gen_length}")
        given, start = np.full(length, -1, np.int32), 0
        if max(map(len, rows)) > length:
            raise Refused(f"a label has {max(map(len, rows))} tokens, more than the {length} positions of the canvas")
    else:
        given = generator.encode_canvas(canvas)
        start, hole = _hole(given)
        if wrong := [(text, len(row)) for text, row in zip(labels, rows, strict=True) if len(row) != hole]:
            raise Refused(f"label {wrong[0][0]!r:.80} has {wrong[0][1]} tokens, and the hole {hole} positions")
    ids = token_ids(prompt, generator.loaded.config.vocab_size)
    if ids is None:
        ids = generator.encode(prompt, chat=chat)
    elif len(ids) > generator.room:
        raise Refused(f"the prompt has {len(ids)} tokens, more than the {generator.room} that the context leaves")
    return Scoring(generator, tuple(labels), rows, ids, given, start, counts_end=canvas is None)


@PlatformJit
def _scores(
    model, params: Any, prompt: jax.Array, mask: jax.Array, given: jax.Array, count: jax.Array, places: jax.Array, table
):
    """Sums of the log-probabilities of labels `[N, L]`, -1 where one has ended, at places `[L + 1]` of a canvas whose
    first `count` positions are there; and those of any end token at each place."""
    P, G = prompt.shape[1], len(given)
    tokens = jnp.where(given < 0, model.config.mask_id, given)
    visible = jnp.concatenate([mask, (jnp.arange(G) < count)[None]], axis=1)
    embeddings = model.embed(params, jnp.concatenate([prompt, tokens[None]], axis=1))
    hidden = model.hidden(params, embeddings, positions_of(visible), visible)
    logits = model.logits(params, hidden[:, P + places - lead_of(model.config.alignment)])[0]
    logprobs = jax.nn.log_softmax(suppress(logits, (model.config.mask_id,)), axis=-1)  # [L + 1, V]
    each = logprobs[jnp.arange(table.shape[1]), jnp.maximum(table, 0)]
    ends = jax.nn.logsumexp(logprobs[:, jnp.asarray(model.config.end_ids)], axis=-1)
    return jnp.sum(jnp.where(table < 0, 0.0, each), axis=1), ends


def _power_of_two(count: int) -> int:
    """The least that is not below."""
    return 1 << (count - 1).bit_length()


def _checked(labels: Any) -> Sequence[str]:
    if isinstance(labels, str) or not isinstance(labels, Sequence) or not labels:
        raise Refused(f"labels must be a list of texts, got {labels!r:.80}")
    if len(labels) > _MOST:
        raise Refused(f"labels holds {len(labels)} texts, more than {_MOST}")
    if wrong := [label for label in labels if not isinstance(label, str)]:
        raise Refused(f"labels must be texts, got {wrong[0]!r:.80}")
    if len(set(labels)) < len(labels):
        raise Refused("labels holds a text twice")
    return labels


def _ids(generator: Generator, label: str) -> list[int]:
    check_text(label, "a label")
    if words := unknown_words(generator.tokenizer, label):
        raise UnknownWords(words, f"label {label!r:.80}")
    ids = generator.tokenizer(label, add_special_tokens=False)["input_ids"]
    if not ids:
        raise Refused(f"label {label!r} is empty: the tokenizer makes no token of it")
    if generator.loaded.config.mask_id in ids:
        raise Refused(f"label {label!r:.80} holds the mask token, which is no answer")
    return ids


def _hole(given: np.ndarray) -> tuple[int, int]:
    """Where the one hole of a canvas begins, and its positions."""
    edges = np.flatnonzero(np.diff(np.pad((given < 0).astype(np.int8), 1)))
    if len(edges) != 2:
        raise Refused(f"the canvas has {len(edges) // 2} holes; labels fill one")
    return int(edges[0]), int(edges[1] - edges[0])
