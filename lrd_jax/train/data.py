"""Batches as a pure function of (seed, step): a stopped run continues on exactly the data that it would have seen."""

import codecs
import functools
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerBase

from lrd_jax.errors import Refused
from lrd_jax.models import ModelConfig
from lrd_jax.tasks import TRAINABLE, stream
from lrd_jax.text import encode_prompts, unknown_words
from lrd_jax.train.config import Bucket, Data
from lrd_jax.train.loss import Batch

Pair = tuple[list[int], list[int]]  # token ids of prompt and answer, the answer without end-of-text
Encode = Callable[[str, str], Pair]
_MOST_TRIES = 100  # problems drawn for each row before a bucket counts as too short

Draw = Callable[[random.Random, Bucket], Sequence[Pair]]


def make_batches(
    data: Data, tokenizer: PreTrainedTokenizerBase, seed: int, model: ModelConfig
) -> Callable[[int], Batch]:
    """The function from a step to its batch of NumPy arrays.

    Every step draws its bucket by the buckets' shares, then its pairs among those that fit, with replacement.

    Raises:
      ValueError: a bucket longer than the model's context or too short for the tasks, a malformed file, pairs that fit
        no bucket, or words that the tokenizer does not know.
    """
    longest = max(bucket.prompt + bucket.canvas for bucket in data.buckets)
    if longest > model.max_length:
        raise Refused(f"data.buckets: prompt + canvas = {longest} exceeds the model's context of {model.max_length}")
    encode = functools.partial(encode_pair, tokenizer, model, chat=data.chat)
    draw = _draw_from_tasks(data.tasks, encode) if data.tasks else _draw_from_file(data, encode)
    shares = [bucket.share for bucket in data.buckets]
    for bucket in data.buckets:  # what cannot be drawn is refused before the first step
        draw(random.Random(f"{seed}"), bucket)

    def batch(step: int) -> Batch:
        rng = random.Random(f"{seed}/{step}")
        bucket = rng.choices(data.buckets, shares)[0]
        return collate(draw(rng, bucket), bucket, model.eos_id)

    return batch


def encode_pair(
    tokenizer: PreTrainedTokenizerBase, model: ModelConfig, prompt: str, answer: str, *, chat: bool
) -> Pair:
    """Token ids, the prompt exactly as decoding will see it; a chat's answer closes with the end of the turn.

    Raises:
      ValueError: either has no tokens, or words that the tokenizer does not know, or the answer holds [MASK].
    """
    if words := unknown_words(tokenizer, prompt) + unknown_words(tokenizer, answer):
        raise Refused(f"the tokenizer does not know {', '.join(map(repr, dict.fromkeys(words)))}")
    if not prompt.strip():
        raise Refused("the prompt is empty")
    ids, mask = encode_prompts(tokenizer, [prompt], chat=chat)
    reply = tokenizer(answer, add_special_tokens=False)["input_ids"]
    if not reply:
        raise Refused("the answer is empty")
    if model.mask_id in reply:
        raise Refused(f"the answer holds the mask token {tokenizer.convert_ids_to_tokens(model.mask_id)!r}")
    if chat and model.eot_id is not None:
        reply = [*reply, model.eot_id]
    return ids[mask].tolist(), reply


def collate(pairs: Sequence[Pair], bucket: Bucket, eos_id: int) -> Batch:
    """Pads prompts on the left and answers on the right, both with end-of-text, to the bucket's shape."""
    prompt = np.full((len(pairs), bucket.prompt), eos_id, np.int32)
    prompt_mask = np.zeros(prompt.shape, bool)
    answer = np.full((len(pairs), bucket.canvas), eos_id, np.int32)
    for row, (question, reply) in enumerate(pairs):
        prompt[row, bucket.prompt - len(question) :] = question
        prompt_mask[row, bucket.prompt - len(question) :] = True
        answer[row, : len(reply)] = reply
    return Batch(prompt=prompt, prompt_mask=prompt_mask, answer=answer)


def _fits(pair: Pair, bucket: Bucket) -> bool:
    return len(pair[0]) <= bucket.prompt and len(pair[1]) <= bucket.canvas


def _draw_from_tasks(names: Sequence[str], encode: Encode) -> Draw:
    def draw(rng: random.Random, bucket: Bucket) -> list[Pair]:
        chosen = bucket.tasks or names
        sources = [stream(TRAINABLE[name], "train", rng.getrandbits(64)) for name in chosen]
        pairs: list[Pair] = []
        for _ in range(_MOST_TRIES * bucket.batch):
            problem = next(rng.choice(sources))
            pair = encode(problem.prompt, problem.answer)
            if _fits(pair, bucket):
                pairs.append(pair)
            if len(pairs) == bucket.batch:
                return pairs
        raise Refused(f"data.buckets: hardly any problem of {', '.join(chosen)} fits {bucket}; make it longer")

    return draw


def _draw_from_file(data: Data, encode: Encode) -> Draw:
    pairs = []
    for number, (prompt, answer) in enumerate(read_pairs(Path(data.jsonl)), start=1):
        try:
            pairs.append(encode(prompt, answer))
        except ValueError as error:
            raise Refused(f"{data.jsonl}, line {number}: {error}") from None
    homeless = [i + 1 for i, pair in enumerate(pairs) if not any(_fits(pair, bucket) for bucket in data.buckets)]
    if homeless:
        lengths = " + ".join(str(len(part)) for part in pairs[homeless[0] - 1])
        raise Refused(
            f"{data.jsonl}: {len(homeless)} pairs fit no bucket, the first on line {homeless[0]} "
            f"({lengths} tokens); add a larger bucket or take them out"
        )
    fitting = {bucket: [pair for pair in pairs if _fits(pair, bucket)] for bucket in data.buckets}
    if empty := [str(bucket) for bucket, found in fitting.items() if not found]:
        raise Refused(f"{data.jsonl}: no pair fits {', '.join(empty)}; leave such buckets out")
    return lambda rng, bucket: rng.choices(fitting[bucket], k=bucket.batch)


def read_pairs(path: Path) -> list[tuple[str, str]]:
    """Prompts and answers of a JSON-lines file, one pair a line; a line ends with a line feed and with nothing else.

    Raises:
      ValueError: an absent or empty file, or a line that is not {"prompt": text, "answer": text}, by its number.
    """
    if not path.is_file():
        raise Refused(f"data.jsonl: no file {path}")
    lines = path.read_bytes().removeprefix(codecs.BOM_UTF8).removesuffix(b"\n").split(b"\n")
    if lines == [b""]:
        raise Refused(f"data.jsonl: no pairs in {path}")
    return [_read_pair(path, i, line) for i, line in enumerate(lines, start=1)]


def _read_pair(path: Path, number: int, line: bytes) -> tuple[str, str]:
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        raise Refused(
            f"{path}, line {number}: byte {line[error.start]:#04x} is not UTF-8; write the file in UTF-8"
        ) from None
    try:
        fields = json.loads(text)
        pair = (fields["prompt"], fields["answer"])
    except (json.JSONDecodeError, KeyError, TypeError, RecursionError):
        pair = ()
    if not pair or not all(isinstance(part, str) and part and _is_text(part) for part in pair):
        raise Refused(f'{path}, line {number}: expected {{"prompt": "...", "answer": "..."}}, got {text[:80]!r}')
    return pair


def _is_text(part: str) -> bool:
    """Whether it holds no half of a surrogate pair, which JSON can write and no tokenizer takes."""
    return part.isascii() or not any("\ud800" <= character <= "\udfff" for character in part)
