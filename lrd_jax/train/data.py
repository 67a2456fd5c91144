"""Batches as a pure function of (seed, step): a run that was stopped continues on exactly the data it would have seen."""

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerBase

from lrd_jax.tasks import TASKS, stream
from lrd_jax.train.config import Bucket, Data
from lrd_jax.train.loss import Batch

Pair = tuple[list[int], list[int]]  # token ids of prompt and answer, the answer without end-of-text


def make_batches(data: Data, tokenizer: PreTrainedTokenizerBase, seed: int, eos_id: int) -> Callable[[int], Batch]:
    """The function from a step to its batch of NumPy arrays.

    Raises:
      ValueError: an unknown task, a malformed JSON line, or pairs that fit no bucket, each named.
    """
    pairs = _task_pairs(data.tasks, tokenizer) if data.tasks else _file_pairs(data, tokenizer)
    weights = [bucket.share for bucket in data.buckets]

    def batch(step: int) -> Batch:
        rng = random.Random(f"{seed}/{step}")
        bucket = rng.choices(data.buckets, weights)[0]
        return collate(pairs(rng, bucket), bucket, eos_id)

    return batch


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


def _task_pairs(names: Sequence[str], tokenizer: PreTrainedTokenizerBase):
    unknown = [name for name in names if name not in TASKS]
    if unknown:
        raise ValueError(f"data.tasks: {', '.join(unknown)} unknown; known: {', '.join(TASKS)}")

    def draw(rng: random.Random, bucket: Bucket) -> list[Pair]:
        streams = [stream(TASKS[name], "train", rng.getrandbits(64)) for name in names]
        pairs = []
        while len(pairs) < bucket.batch:
            problem = next(rng.choice(streams))
            pair = (tokenizer(problem.prompt)["input_ids"], tokenizer(problem.answer)["input_ids"])
            if _fits(pair, bucket):
                pairs.append(pair)
        return pairs

    return draw


def _file_pairs(data: Data, tokenizer: PreTrainedTokenizerBase):
    texts = read_pairs(Path(data.jsonl))
    pairs = [(tokenizer(prompt)["input_ids"], tokenizer(answer)["input_ids"]) for prompt, answer in texts]
    homeless = [i + 1 for i, pair in enumerate(pairs) if not any(_fits(pair, bucket) for bucket in data.buckets)]
    if homeless:
        raise ValueError(f"{data.jsonl}: {len(homeless)} pairs fit no bucket, the first on line {homeless[0]}")
    fitting = {bucket: [pair for pair in pairs if _fits(pair, bucket)] for bucket in data.buckets}
    for bucket, found in fitting.items():
        if not found:
            raise ValueError(f"{data.jsonl}: no pair fits the bucket {bucket}; leave it out")
    return lambda rng, bucket: rng.choices(fitting[bucket], k=bucket.batch)


def read_pairs(path: Path) -> list[tuple[str, str]]:
    """Prompts and answers of a JSON-lines file.

    Raises:
      ValueError: an absent or empty file, or a line that is not {"prompt": text, "answer": text}, by its number.
    """
    if not path.is_file():
        raise ValueError(f"data.jsonl: no file {path}")
    pairs = []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        try:
            fields = json.loads(line)
            pair = (fields["prompt"], fields["answer"])
        except (json.JSONDecodeError, KeyError, TypeError):
            pair = (None, None)
        if not all(isinstance(text, str) and text for text in pair):
            raise ValueError(f'{path}, line {number}: expected {{"prompt": "...", "answer": "..."}}, got {line[:80]!r}')
        pairs.append(pair)
    if not pairs:
        raise ValueError(f"{path}: no pairs in the file")
    return pairs
