"""Generated tokens as text: cut at their end or at a stop string, whole or piece by piece.

Axes: B batch, G canvas.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from lrd_jax.models import ModelConfig
    from lrd_jax.text.tokenizer import Tokenizer

_BROKEN = "\ufffd"  # what a decoder writes for bytes that are no character, or not yet


def answer_lengths(tokens: Any, end_ids: Sequence[int]) -> np.ndarray:
    """int `[B]`: tokens of each row of `[B, G]` before its first end token; G where there is none."""
    ends = np.isin(tokens, end_ids)
    return np.pad(ends, ((0, 0), (0, 1)), constant_values=True).argmax(axis=1)  # G may be 0


def decode_text(tokenizer: "Tokenizer", tokens: Any, config: "ModelConfig") -> list[str]:
    """The text of generated tokens int `[B, G]`, each row cut at its first end-of-text or end-of-turn."""
    tokens = np.asarray(tokens)
    lengths = answer_lengths(tokens, config.end_ids)
    return [
        tokenizer.decode(row[:length], skip_special_tokens=True) for row, length in zip(tokens, lengths, strict=True)
    ]


def first_stop(text: str, stops: Sequence[str]) -> tuple[int, str | None]:
    """Where the text ends: the place of the first stop string in it and that string; its length and None without."""
    found = [(place, -len(stop), stop) for stop in stops if (place := text.find(stop)) >= 0]
    if not found:
        return len(text), None
    place, _, stop = min(found)  # the longest of those that begin there
    return place, stop


def tokens_of(tokenizer: "Tokenizer", tokens: Sequence[int], length: int) -> int:
    """The least number of tokens whose text has at least `length` characters."""
    low, high = 0, len(tokens)
    while low < high:
        middle = (low + high) // 2
        if len(tokenizer.decode(tokens[:middle], skip_special_tokens=True)) < length:
            low = middle + 1
        else:
            high = middle
    return low


class SettledText:
    """The text of one answer while its canvas settles: only what no later token can change, piece by piece.

    Held back is what could still change: bytes that are no whole character yet, the beginning of a stop string, and
    space at the end, which some decoders take back before a bracket or a comma.
    """

    def __init__(self, tokenizer: "Tokenizer", end_ids: Sequence[int], stops: Sequence[str] = ()):
        self._tokenizer, self._end_ids, self._stops = tokenizer, end_ids, stops
        self._said, self._settled = "", 0

    def more(self, tokens: np.ndarray, masked: np.ndarray) -> str:
        """What has settled since the last call.

        Args:
          tokens: int `[G]`, of which those before the first masked one count.
          masked: bool `[G]`.
        """
        settled = int(masked.argmax()) if masked.any() else len(masked)
        if settled == self._settled:
            return ""
        self._settled = settled
        (text,) = self._texts(tokens[None, :settled])
        text = text.rstrip(_BROKEN)
        end, _ = first_stop(text, self._stops)
        return self._say(text[: min(end, _stop_may_begin(text, self._stops))].rstrip())

    def rest(self, text: str) -> str:
        """What was held back of the whole text."""
        return self._say(text)

    def _texts(self, rows: np.ndarray) -> list[str]:
        lengths = answer_lengths(rows, self._end_ids)
        return [
            self._tokenizer.decode(row[:length], skip_special_tokens=True)
            for row, length in zip(rows, lengths, strict=True)
        ]

    def _say(self, text: str) -> str:
        new = text[len(self._said) :]
        self._said += new
        return new


def _stop_may_begin(text: str, stops: Sequence[str]) -> int:
    """The first place from which the text, to its end, is the beginning of a stop string; its length without."""
    longest = max(map(len, stops), default=1)
    for place in range(max(0, len(text) - longest + 1), len(text)):
        if any(stop.startswith(text[place:]) for stop in stops):
            return place
    return len(text)
