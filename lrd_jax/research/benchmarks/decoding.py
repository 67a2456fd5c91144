"""Prompts to answers with one model and one decoder, batch by batch."""

import zlib
from collections.abc import Sequence

import jax

from lrd_jax.checkpoint import Loaded
from lrd_jax.decoding.config import DecodeConfig
from lrd_jax.errors import Refused
from lrd_jax.generate import Generator
from lrd_jax.research.benchmarks.requests import Reply, Request, cut_at_stop
from lrd_jax.text import encode_text, starts_special, tokens_of, unknown_words


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
        if begin_token and loaded.config.bos_id is None:
            raise Refused("the model has no begin token, so none can be put before its prompts")
        self._generator = Generator(loaded, config, batch=batch)
        self._tokenizer = self._generator.loaded.tokenizer
        self._model = loaded.config
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
                raise Refused(
                    f"the model does not know {', '.join(map(repr, words[:5]))} in {_name(request)}: its vocabulary is "
                    "made for other questions"
                )
            lengths.append(len(self.encode(request.prompt)))
            room = self._generator.room
            if not 0 < lengths[-1] <= room:
                raise Refused(
                    f"{_name(request)} has {lengths[-1]} tokens; 1 to {room} fit beside a canvas of "
                    f"{self._generator.config.gen_length} into the context of {self._model.max_length}"
                )
        order = sorted(range(len(requests)), key=lambda i: -lengths[i])
        return [order[i : i + self._generator.batch] for i in range(0, len(order), self._generator.batch)]

    def answer(self, requests: Sequence[Request]) -> list[Reply]:
        """Decodes one batch."""
        keys = [jax.random.fold_in(self._key, zlib.crc32(repr(request.key).encode())) for request in requests]
        answers = []
        decoded = self._generator.generate([self._begun(request.prompt) for request in requests], keys=keys)
        for request, whole in zip(requests, decoded, strict=True):
            output = cut_at_stop(whole.text, request.until)
            tokens = whole.tokens
            if len(output) < len(whole.text):
                tokens = tokens[: tokens_of(self._tokenizer, tokens, len(output))]
            answers.append(
                Reply(
                    output=output,
                    forwards=whole.forwards,
                    refine_forwards=whole.refine_forwards,
                    stop_reason=whole.stop_reason,
                    effective_tokens=len(tokens),
                    seconds=whole.seconds,
                )
            )
        return answers

    def encode(self, text: str) -> list[int]:
        """Token ids, see `encode_text`, after the begin token where it is wanted and no template brings it."""
        return encode_text(self._tokenizer, self._begun(text))

    def _begun(self, text: str) -> str:
        begins = self._begin_token and not starts_special(self._tokenizer, text)
        return self._tokenizer.bos_token + text if begins else text


def _name(request: Request) -> str:
    return f"the prompt of {request.task} {request.index}"
