"""Prompts as token ids, left-padded to few lengths.

Axes: B batch, P prompt.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lrd_jax.errors import Refused

if TYPE_CHECKING:
    from lrd_jax.text.tokenizer import Tokenizer

_SHORTEST_PROMPT = 16  # smallest bucket of prompt lengths


class UnknownWords(Refused):
    """A text holds words that the model's vocabulary lacks."""

    def __init__(self, words: list[str], name: str):
        super().__init__(f"the model does not know {', '.join(map(repr, words[:5]))} in {name}")
        self.words = words


def encode_prompts(tokenizer: "Tokenizer", texts: list[str], *, chat: bool) -> tuple[np.ndarray, np.ndarray]:
    """Left-padded prompts and their mask.

    Args:
      texts: B prompts.
      chat: put each into the tokenizer's chat template, as the user's turn with the answer to follow.

    Returns:
      prompt: int32 `[B, P]`.
      prompt_mask: bool `[B, P]`, False where a row is padded.

    Raises:
      ValueError: no tokenizer (None), no list of texts, an empty one, one with words that the model does not know or
        characters that UTF-8 does not have, or a chat without a chat template.
    """
    require_tokenizer(tokenizer)
    if isinstance(texts, str) or not isinstance(texts, Sequence) or not all(isinstance(text, str) for text in texts):
        raise Refused(f"prompts must be a list of texts, got {texts!r:.80}")
    if not texts:
        raise Refused("no prompts were given; at least one was wanted")
    for i, text in enumerate(texts):
        check_text(text, f"prompt {i}")
        if words := unknown_words(tokenizer, text):
            raise UnknownWords(words, f"prompt {i}")
    if chat:
        rows = [encode_chat(tokenizer, [{"role": "user", "content": text}]) for text in texts]
    else:
        rows = [encode_text(tokenizer, text) for text in texts]
    if empty := [str(i) for i, row in enumerate(rows) if not row]:
        raise Refused(f"prompt {', '.join(empty)} is empty: at least one token was wanted")
    return left_pad(rows, tokenizer.pad_token_id)


def check_text(text: str, name: str) -> None:
    """Raises ValueError for half a surrogate pair, which is no character: tokenizers take UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise Refused(f"{name} is no text at character {error.start}: {text[error.start]!r} is half a pair") from None


def token_ids(prompt: Any, vocab_size: int) -> list[int] | None:
    """A prompt that is token ids already; None for any other.

    Raises:
      Refused: an id outside the vocabulary.
    """
    if isinstance(prompt, np.ndarray):
        prompt = prompt.tolist()
    if not isinstance(prompt, Sequence) or isinstance(prompt, str | bytes) or not len(prompt):
        return None
    if any(isinstance(i, bool) or not isinstance(i, int | np.integer) for i in prompt):
        return None
    for place, i in enumerate(prompt):
        if not 0 <= i < vocab_size:
            raise Refused(f"the prompt holds id {i} at {place}, outside the vocabulary of {vocab_size}")
    return [int(i) for i in prompt]


def encode_chat(tokenizer: "Tokenizer", messages: list) -> list[int]:
    """Token ids of a conversation whose answer is to follow; a template brings its own special tokens.

    Raises:
      ValueError: the tokenizer has no chat template, or one that refuses the conversation.
    """
    if tokenizer.chat_template is None:
        raise Refused("the model has no chat template: it was not tuned on chats; decode without chat")
    text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    check_text(text, "what the model's chat template writes")
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def encode_text(tokenizer: "Tokenizer", text: str) -> list[int]:
    """Token ids; a text that begins with a special token has been through a chat template, which brings its own."""
    return tokenizer(text, add_special_tokens=not starts_special(tokenizer, text))["input_ids"]


def starts_special(tokenizer: "Tokenizer", text: str) -> bool:
    """Whether the text begins with a special token of the vocabulary."""
    special = (token.content for token in tokenizer.added_tokens_decoder.values() if token.special)
    return text.startswith(tuple(special))


def left_pad(rows: list[list[int]], pad_id: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of token ids as one array int32 `[B, P]`, and its mask bool `[B, P]`, False where a row is padded."""
    length = max(map(len, rows))
    prompt = np.full((len(rows), length), pad_id, np.int32)
    mask = np.zeros((len(rows), length), bool)
    for i, row in enumerate(rows):
        prompt[i, length - len(row) :] = row
        mask[i, length - len(row) :] = True
    return prompt, mask


def pad_to_bucket(prompt: np.ndarray, mask: np.ndarray, room: int) -> tuple[np.ndarray, np.ndarray]:
    """Pads prompts on the left to a power of two, so that few lengths are compiled, but to no more than `room`.

    Args:
      prompt, mask: `[B, P]`, as `encode_prompts` gives them.
      room: tokens that the model's context leaves beside the canvas.
    """
    length = prompt.shape[1]
    pad = ((0, 0), (max(0, bucket_length(length, room) - length), 0))
    return np.pad(prompt, pad), np.pad(mask, pad)


def bucket_length(length: int, room: int) -> int:
    """The power of two of tokens that a prompt of `length` is padded to, but no more than `room`."""
    return min(max(_SHORTEST_PROMPT, 1 << (length - 1).bit_length()), room)


def unknown_words(tokenizer: "Tokenizer", text: str) -> list[str]:
    """The words of the text that the vocabulary lacks, each once; none where it has no token for the unknown.

    Raises:
      ValueError: no tokenizer (None).
    """
    backend = require_tokenizer(tokenizer).backend_tokenizer
    unknown = getattr(backend.model, "unk_token", None)
    if unknown is None:
        return []
    encoded = backend.encode(text, add_special_tokens=False)
    spans = zip(encoded.tokens, encoded.offsets, strict=True)
    return list(dict.fromkeys(text[start:stop] for token, (start, stop) in spans if token == unknown))


def require_tokenizer(tokenizer: "Tokenizer | None") -> "Tokenizer":
    """The tokenizer.

    Raises:
      ValueError: there is none.
    """
    if tokenizer is None:
        raise Refused("the model's folder has no tokenizer: copy its tokenizer files there to decode text")
    if not hasattr(tokenizer, "backend_tokenizer"):
        raise Refused(f"tokenizer must be that of a loaded model, got a {type(tokenizer).__name__}")
    return tokenizer
