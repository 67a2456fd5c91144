"""Batches as a pure function of (seed, step): a stopped run continues on exactly the data that it would have seen."""

import functools
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerBase

from lrd_jax.models import ModelConfig
from lrd_jax.tasks import TRAINABLE, stream
from lrd_jax.text import encode_prompts
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
      ValueError: a bucket longer than the model's context, a malformed file, or pairs that fit no bucket.
    """
    longest = max(bucket.prompt + bucket.canvas for bucket in data.buckets)
    if longest > model.max_length:
        raise ValueError(f"data.buckets: prompt + canvas = {longest} exceeds the model's context of {model.max_length}")
    encode = functools.partial(encode_pair, tokenizer, model, chat=data.chat)
    draw = _draw_from_tasks(data.tasks, encode) if data.tasks else _draw_from_file(data, encode)
    shares = [bucket.share for bucket in data.buckets]

    def batch(step: int) -> Batch:
        rng = random.Random(f"{seed}/{step}")
        bucket = rng.choices(data.buckets, shares)[0]
        return collate(draw(rng, bucket), bucket, model.eos_id)

    return batch


def encode_pair(
    tokenizer: PreTrainedTokenizerBase, model: ModelConfig, prompt: str, answer: str, *, chat: bool
) -> Pair:
    """Token ids, the prompt exactly as decoding will see it; a chat's answer closes with the end of the turn."""
    ids, mask = encode_prompts(tokenizer, [prompt], chat=chat)
    reply = tokenizer(answer, add_special_tokens=False)["input_ids"]
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
        raise ValueError(f"data.buckets: hardly any problem of {', '.join(chosen)} fits {bucket}; make it longer")

    return draw


def _draw_from_file(data: Data, encode: Encode) -> Draw:
    pairs = [encode(prompt, answer) for prompt, answer in read_pairs(Path(data.jsonl))]
    homeless = [i + 1 for i, pair in enumerate(pairs) if not any(_fits(pair, bucket) for bucket in data.buckets)]
    if homeless:
        lengths = " + ".join(str(len(part)) for part in pairs[homeless[0] - 1])
        raise ValueError(
            f"{data.jsonl}: {len(homeless)} pairs fit no bucket, the first on line {homeless[0]} "
            f"({lengths} tokens); add a larger bucket or take them out"
        )
    fitting = {bucket: [pair for pair in pairs if _fits(pair, bucket)] for bucket in data.buckets}
    if empty := [str(bucket) for bucket, found in fitting.items() if not found]:
        raise ValueError(f"{data.jsonl}: no pair fits {', '.join(empty)}; leave such buckets out")
    return lambda rng, bucket: rng.choices(fitting[bucket], k=bucket.batch)


def read_pairs(path: Path) -> list[tuple[str, str]]:
    """Prompts and answers of a JSON-lines file.

    Raises:
      ValueError: an absent or empty file, or a line that is not {"prompt": text, "answer": text}, by its number.
    """
    if not path.is_file():
        raise ValueError(f"data.jsonl: no file {path}")
    pairs = [_read_pair(path, i, line) for i, line in enumerate(path.read_text().splitlines(), start=1)]
    if not pairs:
        raise ValueError(f"data.jsonl: no pairs in {path}")
    return pairs


def _read_pair(path: Path, number: int, line: str) -> tuple[str, str]:
    try:
        fields = json.loads(line)
        pair = (fields["prompt"], fields["answer"])
    except (json.JSONDecodeError, KeyError, TypeError):
        pair = ()
    if not pair or not all(isinstance(text, str) and text for text in pair):
        raise ValueError(f'{path}, line {number}: expected {{"prompt": "...", "answer": "..."}}, got {line[:80]!r}')
    return pair
