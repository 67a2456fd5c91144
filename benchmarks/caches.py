"""Time of a forward with no cache and with each of the caches, on one model with random weights.

    python benchmarks/caches.py [--vocab 126464 1024] [--repeats 3]

Every decode commits one token a forward: the surest, or with dkv-greedy the next of a random order. The caches take
turns within a repeat, and medians are over the repeats. The first forward of a block, a refresh in most of them, stands
by itself; "others" are the mean of those after it, further refreshes included; "a token" is the whole canvas over its
length.
"""

import dataclasses
import os
import platform
import time

import jax
import numpy as np
import tyro

from lrd_jax import DecodeConfig, make_decode
from lrd_jax.decoding.text_form import changed
from lrd_jax.models import Model
from lrd_jax.research.timing.sizes import sized

CACHES = {
    name: {"cache": name} for name in ("none", "prefix", "dual", "dkv", "dkv-prefill", "dkv-greedy", "dllm", "sparse")
}
CACHES["dkv-greedy"]["commit"] = "random-order"  # that cache has to know what is committed next


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What is measured."""

    vocab: tuple[int, ...] = (126464, 1024)
    embed_dim: int = 512
    num_layers: int = 8
    num_heads: int = 8
    mlp_dim: int = 1376
    batch: int = 1
    prompt_length: int = 128
    gen_length: int = 128
    block_length: int = 32
    repeats: int = 3


def decode_seconds(decode, params, prompt, options: Options) -> tuple[list[float], list[float]]:
    """One decode in pieces: seconds of each block's first forward, and the mean seconds of its other forwards."""
    state = jax.block_until_ready(decode.start(params, prompt, key=jax.random.key(0)))
    first, others = [], []
    for _ in range(options.gen_length // options.block_length):
        for forwards, seconds in ((1, first), (options.block_length - 1, others)):
            began = time.perf_counter()
            state = jax.block_until_ready(decode.advance(params, state, forwards))
            seconds.append((time.perf_counter() - began) / forwards)
    return first, others


def measure(options: Options, vocab: int) -> None:
    fields = ("embed_dim", "num_layers", "num_heads", "mlp_dim")
    model = Model(sized("small", vocab_size=vocab, **{field: getattr(options, field) for field in fields}))
    params = jax.block_until_ready(jax.jit(model.init)(jax.random.key(0)))
    prompt = np.random.default_rng(0).integers(0, vocab - 2, (options.batch, options.prompt_length))
    config = DecodeConfig(options.gen_length, block_length=options.block_length)
    decodes = {name: make_decode(model, changed(config, changes)) for name, changes in CACHES.items()}
    for decode in decodes.values():
        decode_seconds(decode, params, prompt, options)
    runs = {name: [] for name in decodes}
    for _ in range(options.repeats):
        for name, decode in decodes.items():
            runs[name].append(decode_seconds(decode, params, prompt, options))

    print(f"\nvocabulary {vocab}\n{'':12}{'first':>10}{'others, first block':>21}{'last block':>12}{'a token':>10}")
    baseline = None
    for name, passes in runs.items():
        first, others = (np.median(np.array(x), axis=0) for x in zip(*passes, strict=True))
        token = (first.sum() + others.sum() * (options.block_length - 1)) / options.gen_length
        row = 1e3 * np.array([np.median(first), others[0], others[-1], token])
        baseline = row[-1] if baseline is None else baseline
        ms = "".join(f"{x:>{w}.1f}" for x, w in zip(row, (10, 21, 12, 10), strict=True))
        print(f"{name:12}{ms} ms, {baseline / row[-1]:.2f}x")


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    print(f"{options}\n{platform.machine()}, {os.cpu_count()} cores, jax {jax.__version__}, {jax.default_backend()}")
    for vocab in options.vocab:
        measure(options, vocab)


if __name__ == "__main__":
    main()
