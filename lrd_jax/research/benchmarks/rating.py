"""How likely a model finds given continuations, for tasks that choose among answers."""

import itertools
import zlib
from collections.abc import Sequence

import jax
import numpy as np

from lrd_jax.batching import batches
from lrd_jax.checkpoint import Loaded
from lrd_jax.decoding.config import DecodeConfig
from lrd_jax.decoding.loop import make_decode
from lrd_jax.research.likelihood import make_log_likelihood
from lrd_jax.text import left_pad, pad_to_bucket

Pair = tuple[list[int], list[int]]  # token ids of a context and of its continuation, neither empty


class Rater:
    """LLaDA's Monte-Carlo estimates. Contexts are padded to buckets, so that few lengths compile."""

    def __init__(self, loaded: Loaded, *, samples: int = 128, batch: int = 16, seed: int = 0):
        """
        Args:
          samples: masked sequences to average over.
          batch: sequences per forward; `samples` must be a multiple of the smaller of the two.
        """
        self._loaded = loaded
        self._batch = batch
        self._key = jax.random.key(seed)
        self._estimate = make_log_likelihood(loaded.model, num_samples=samples, batch_size=min(batch, samples))

    def log_likelihood(self, context: list[int], continuation: list[int]) -> float:
        """Nats. The same pair gets the same masks wherever it stands among others."""
        key = jax.random.fold_in(self._key, zlib.crc32(np.array([len(context), *context, *continuation]).tobytes()))
        prompt, mask = self._padded([context], len(continuation))
        return float(self._estimate(self._loaded.params, prompt[0], np.array(continuation, np.int32), key, mask[0]))

    def greedy(self, pairs: Sequence[Pair]) -> list[bool]:
        """Whether LLaDA's sampler, one token a step, would fill a canvas of the continuation's length with it.

        lm-eval hands over token ids, so that this decodes below `lrd_jax.Generator`, whose prompts are texts.
        """
        same = [False] * len(pairs)
        order = sorted(range(len(pairs)), key=lambda i: (len(pairs[i][1]), len(pairs[i][0])))
        for length, group in itertools.groupby(order, key=lambda i: len(pairs[i][1])):
            decode = make_decode(self._loaded.model, DecodeConfig.llada(length))
            for part, count in batches(list(group), self._batch):
                prompt, mask = self._padded([pairs[i][0] for i in part], length)
                tokens = np.asarray(decode(self._loaded.params, prompt, mask).tokens)
                for i, row in zip(part[:count], tokens, strict=False):
                    same[i] = row.tolist() == pairs[i][1]
        return same

    def _padded(self, contexts: list[list[int]], length: int) -> tuple[np.ndarray, np.ndarray]:
        room = self._loaded.config.max_length - length
        return pad_to_bucket(*left_pad(contexts, self._loaded.config.pad_id), room)
