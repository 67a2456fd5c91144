"""Answers as OpenAI's API has them, with the decode's facts under "lrd"."""

import dataclasses
import functools
import secrets
import time
from collections.abc import Sequence
from typing import Any

from lrd_jax.answer import Answer, Canvas
from lrd_jax.labels import Label
from lrd_jax.serve.asking import Asking, Brought
from lrd_jax.text import Tokenizer

_FACTS = ("forwards", "refine_forwards", "stop_reason")


class Form:
    """Writes what one request is answered with.

    Attributes:
      id: of the answer.
    """

    def __init__(self, tokenizer: Tokenizer, model: str, *, is_chat: bool, logprobs: bool, top: bool = False):
        """
        Args:
          logprobs: tell the belief in each token.
          top: of a chat, once more as the likeliest of those that are told.
        """
        self._tokenizer, self._is_chat, self._logprobs, self._top = tokenizer, is_chat, logprobs, top
        self.id = f"{'chatcmpl' if is_chat else 'cmpl'}-{secrets.token_hex(12)}"
        self._kind = "chat.completion" if is_chat else "text_completion"
        self._head = {"id": self.id, "created": int(time.time()), "model": model}

    def whole(self, asking: Asking, ended: Sequence[Brought]) -> dict[str, Any]:
        """All answers, in the order of their rows."""
        choices = []
        for index, brought in enumerate(ended):
            answer = _had(brought)
            said: dict[str, Any] = {"index": index}
            if self._is_chat:
                said["message"] = {"role": "assistant", "content": answer.text, "refusal": None}
            else:
                said["text"] = answer.text
            choices.append(said | self._end(brought))
        return {
            **self._head,
            "object": self._kind,
            "choices": choices,
            "usage": usage(asking, ended),
            "lrd": facts(asking, ended),
        }

    def scored(self, prompts: Sequence[tuple[int, list[Label]]]) -> dict[str, Any]:
        """Labels of prompts of so many tokens: the likeliest is the answer, and "lrd" holds all."""
        choices = []
        for index, (_, labels) in enumerate(prompts):
            best = max(labels, key=lambda label: label.logprob)
            said: dict[str, Any] = {"index": index, "logprobs": None, "finish_reason": "stop"}
            if self._is_chat:
                said["message"] = {"role": "assistant", "content": best.text, "refusal": None}
            else:
                said["text"] = best.text
            choices.append(said | {"lrd": {"labels": [dataclasses.asdict(label) for label in labels]}})
        tokens = sum(count for count, _ in prompts)
        used = {"prompt_tokens": tokens, "completion_tokens": 0, "total_tokens": tokens}
        return {
            **self._head,
            "object": self._kind,
            "choices": choices,
            "usage": used,
            "lrd": {"forwards": len(prompts)},
        }

    def chunk(self, brought: Brought | None, index: int, *, canvas: Canvas | None = None) -> dict[str, Any]:
        """A piece of a stream, a row's first where nothing was brought; with a snapshot of a canvas, if it is given."""
        text = "" if brought is None else brought.text
        said: dict[str, Any] = {"index": index}
        if self._is_chat:
            said["delta"] = (
                {"role": "assistant", "content": ""} if brought is None else {"content": text} if text else {}
            )
        else:
            said["text"] = text
        if brought is not None and brought.answer is not None:
            said |= self._end(brought)
        else:
            said |= {"logprobs": None, "finish_reason": None}
        if canvas is not None:
            said.setdefault("lrd", {})["canvas"] = canvas_told(self._tokenizer, canvas)
        return {**self._head, "object": "chat.completion.chunk" if self._is_chat else self._kind, "choices": [said]}

    def last(self, asking: Asking, ended: Sequence[Brought]) -> dict[str, Any]:
        """The chunk of a stream that tells what it took."""
        kind = "chat.completion.chunk" if self._is_chat else self._kind
        told = {"usage": usage(asking, ended), "lrd": facts(asking, ended)}
        return {**self._head, "object": kind, "choices": [], **told}

    def _end(self, brought: Brought) -> dict[str, Any]:
        answer = _had(brought)
        own: dict[str, Any] = {name: getattr(answer, name) for name in _FACTS}
        if answer.holes:
            own["holes"] = list(answer.holes)
        told = self._told(brought) if self._logprobs else None
        return {"logprobs": told, "finish_reason": answer.finish, "lrd": own}

    def _told(self, brought: Brought) -> dict[str, Any]:
        """The belief in each token at its commit."""
        answer, beliefs = _had(brought), brought.canvas.beliefs
        spell = speller(self._tokenizer)
        texts = [spell(token) for token in answer.tokens]
        nats = [0.0] * len(texts) if beliefs is None else [float(x) for x in beliefs.logprob[: len(texts)]]
        if self._is_chat:
            told = [
                {"token": text, "logprob": x, "bytes": list(text.encode())} for text, x in zip(texts, nats, strict=True)
            ]
            content = [own | {"top_logprobs": [own] if self._top else []} for own in told]
            return {"content": content, "refusal": None}
        offsets = _offsets(self._tokenizer, answer.tokens, texts)
        top = [{text: x} for text, x in zip(texts, nats, strict=True)]
        return {"tokens": texts, "token_logprobs": nats, "top_logprobs": top, "text_offset": offsets}


def usage(asking: Asking, ended: Sequence[Brought]) -> dict[str, int]:
    prompt, count = asking.prompt_tokens, sum(map(asking.generated, ended))
    return {"prompt_tokens": prompt, "completion_tokens": count, "total_tokens": prompt + count}


def facts(asking: Asking, ended: Sequence[Brought]) -> dict[str, Any]:
    """Of all answers; each has its own beside it."""
    answers = [_had(brought) for brought in ended]
    reasons = list(dict.fromkeys(answer.stop_reason for answer in answers))
    return {
        "seed": asking.asked.seed,
        "forwards": sum(answer.forwards for answer in answers),
        "refine_forwards": sum(answer.refine_forwards for answer in answers),
        "stop_reason": reasons[0] if len(reasons) == 1 else reasons,
    }


def _offsets(tokenizer: Tokenizer, tokens: Sequence[int], texts: Sequence[str]) -> list[int]:
    """Where each token's own text begins in that of all; some decoders put space between two, or take it away."""
    offsets, before = [], 0
    for count, own in enumerate(texts, 1):
        text = tokenizer.decode(list(tokens[:count]), skip_special_tokens=True)
        offsets.append(len(text) - len(own) if own and text.endswith(own) else before)
        before = len(text)
    return offsets


def canvas_told(tokenizer: Tokenizer, canvas: Canvas) -> dict[str, Any]:
    """A snapshot, a list entry for each position: null where there is nothing to say."""
    spell = speller(tokenizer)
    masked = canvas.masked.tolist()
    ids = [None if hidden else token for token, hidden in zip(canvas.tokens.tolist(), masked, strict=True)]
    guesses = [
        guess if hidden and guess >= 0 else None for guess, hidden in zip(canvas.guesses.tolist(), masked, strict=True)
    ]
    window = [place for place, guess in enumerate(canvas.guesses.tolist()) if guess >= 0]
    told: dict[str, Any] = {
        "forward": canvas.steps,
        "refining": canvas.refining,
        "window": [window[0], window[-1] + 1] if window else None,
        "ids": ids,
        "text": [None if token is None else spell(token) for token in ids],
        "guess": [None if guess is None else spell(guess) for guess in guesses],
    }
    if canvas.beliefs is not None:
        sure = [round(float(x), 4) for x in canvas.beliefs.confidence]
        told["confidence"] = [None if guess is None else x for guess, x in zip(guesses, sure, strict=True)]
        told["divergence"] = _finite(canvas.beliefs.divergence)
        told["entropy"] = _finite(canvas.beliefs.entropy)
    return told


@functools.lru_cache(maxsize=4)
def speller(tokenizer: Tokenizer):
    """id -> its text alone, "" of a special token."""
    return functools.lru_cache(maxsize=2**16)(lambda token: tokenizer.decode([token], skip_special_tokens=True))


def _finite(number: float) -> float | None:
    return round(number, 5) if abs(number) < float("inf") else None


def _had(brought: Brought) -> Answer:
    assert brought.answer is not None, "the row has ended"
    return brought.answer
