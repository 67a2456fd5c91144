"""Prompts to answers with one model and one decoder, batch by batch.

Axes: B batch, P prompt, G canvas.
"""

import time
import zlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from lrd_jax.checkpoint import Loaded
from lrd_jax.decoding.config import DecodeConfig
from lrd_jax.decoding.loop import make_decode
from lrd_jax.decoding.state import DecodeResult, StopReason
from lrd_jax.research.batching import filled
from lrd_jax.research.benchmarks.requests import Answer, Request, cut_at_stop
from lrd_jax.text import (
    answer_lengths,
    decode_text,
    encode_text,
    left_pad,
    pad_to_bucket,
    starts_special,
    unknown_words,
)


class TextDecoder:
    """An `Answerer`: longest prompts first, so that time left is overrated rather than underrated."""

    def __init__(
        self, loaded: Loaded, config: DecodeConfig, *, batch: int = 1, seed: int = 0, begin_token: bool = False
    ):
        """
        Args:
          batch: rows decoded together; a short batch is filled up with copies, so that a shape compiles once.
          seed: of the draws at a temperature; a sample's depend on the seed and its own place only.
          begin_token: put the begin token before every prompt that does not start with a special token.

        Raises:
          ValueError: a model without a tokenizer, without the begin token asked for, or no room for the canvas.
        """
        if loaded.tokenizer is None:
            raise ValueError("the model has no tokenizer; copy tokenizer.json into its folder from the model's release")
        if batch < 1:
            raise ValueError(f"batch={batch} must be at least 1")
        if begin_token and loaded.config.bos_id is None:
            raise ValueError("the model has no begin token, so none can be put before its prompts")
        self._tokenizer = loaded.tokenizer
        self._params = loaded.params
        self._model = loaded.config
        self._decoder = make_decode(loaded.model, config)
        self._batch = batch
        self._key = jax.random.key(seed)
        self._begin_token = begin_token

    def plan(self, requests: Sequence[Request]) -> list[list[int]]:
        """Batches by prompt length.

        Raises:
          ValueError: a prompt that leaves no room for the canvas, is empty, or has words that the model does not know.
        """
        lengths = []
        for request in requests:
            if words := unknown_words(self._tokenizer, request.prompt):
                raise ValueError(
                    f"the model does not know {', '.join(map(repr, words[:5]))} in {_name(request)}: its vocabulary is "
                    "made for other questions"
                )
            lengths.append(len(self.encode(request.prompt)))
            room = self._model.max_length - self._decoder.config.gen_length
            if not 0 < lengths[-1] <= room:
                raise ValueError(
                    f"{_name(request)} has {lengths[-1]} tokens; 1 to {room} fit beside a canvas of "
                    f"{self._decoder.config.gen_length} into the context of {self._model.max_length}"
                )
        order = sorted(range(len(requests)), key=lambda i: -lengths[i])
        return [order[i : i + self._batch] for i in range(0, len(order), self._batch)]

    def answer(self, requests: Sequence[Request]) -> list[Answer]:
        """Decodes one batch."""
        result, seconds = self._run(requests)
        tokens = np.asarray(result.tokens)[: len(requests)]
        texts = decode_text(self._tokenizer, tokens, self._model)
        answers = []
        lengths = answer_lengths(tokens, self._model.end_ids)
        for i, (request, text) in enumerate(zip(requests, texts, strict=True)):
            output = cut_at_stop(text, request.until)
            row = tokens[i, : lengths[i]]
            answers.append(
                Answer(
                    output=output,
                    forwards=int(result.forwards[i]),
                    refine_forwards=int(result.refine_forwards[i]),
                    stop_reason=StopReason(int(result.stop_reason[i])).name.lower().replace("_", "-"),
                    effective_tokens=len(row) if output == text else self._tokens_of(row, len(output)),
                    seconds=seconds / len(requests),
                )
            )
        return answers

    def encode(self, text: str) -> list[int]:
        """Token ids, see `encode_text`, after the begin token where it is wanted and no template brings it."""
        ids = encode_text(self._tokenizer, text)
        if self._begin_token and not starts_special(self._tokenizer, text) and ids[:1] != [self._model.bos_id]:
            ids = [self._model.bos_id, *ids]
        return ids

    def _run(self, requests: Sequence[Request]) -> tuple[DecodeResult, float]:
        """The decode, and its seconds without compiling."""
        requests = filled(requests, self._batch)
        prompt, mask = left_pad([self.encode(r.prompt) for r in requests], self._tokenizer.pad_token_id)
        prompt, mask = pad_to_bucket(prompt, mask, self._model.max_length - self._decoder.config.gen_length)
        places = jnp.array([zlib.crc32(repr(r.key).encode()) for r in requests], jnp.uint32)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(self._key, places)
        state = self._decoder.start(self._params, prompt, mask, keys)
        state = jax.block_until_ready(self._decoder.advance(self._params, state, 0))  # compiles, runs nothing
        began = time.perf_counter()
        while np.asarray(state.running).any():  # rows that wait for a cache's refresh can need a second round
            state = self._decoder.advance(self._params, state, self._decoder.config.step_limit)
        return self._decoder.result(state), time.perf_counter() - began

    def _tokens_of(self, row: np.ndarray, length: int) -> int:
        """The least number of tokens whose text is at least so long."""
        low, high = 0, len(row)
        while low < high:
            middle = (low + high) // 2
            if len(self._tokenizer.decode(row[:middle], skip_special_tokens=True)) < length:
                low = middle + 1
            else:
                high = middle
        return low


def _name(request: Request) -> str:
    return f"the prompt of {request.task} {request.index}"
