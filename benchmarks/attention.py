"""What it is worth on a CPU that attention takes only a few heads at a time: the same decode with all heads at once.

    python benchmarks/attention.py
    python benchmarks/attention.py --gen-length 64

Plain decodes of a batch on the model in the box, the two variants in turn.
"""

import dataclasses

import jax
import numpy as np
import tyro

import lrd_jax
from lrd_jax.decoding.request import Request
from lrd_jax.models import attention
from lrd_jax.research.timing.measure import in_turns


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What is decoded."""

    batch: int = 48
    prompt_length: int = 48
    gen_length: int = 256
    forwards: int = 4
    repeats: int = 5


def compiled(options: Options, score_bytes: int):
    """One whole decode, compiled with a limit for the scores that exist at a time."""
    jax.clear_caches()
    attention.SCORE_BYTES = score_bytes
    loaded = lrd_jax.load("lrd-tiny-soft")
    model, params = loaded.model, loaded.params
    config = lrd_jax.DecodeConfig.plain(options.gen_length, per_step=options.gen_length // options.forwards)
    decode = lrd_jax.make_decode(model, config).lower(params, options.batch, options.prompt_length).compile()
    prompt = np.random.default_rng(0).integers(5, 100, (options.batch, options.prompt_length), np.int32)
    request = Request(prompt, np.ones(prompt.shape, bool), keys=None, length=None, canvas=None)
    return lambda: decode(params, request, config)


def main(options: Options) -> None:
    variants = {"a few heads": attention.SCORE_BYTES, "all heads": 2**40}
    runs = {name: compiled(options, score_bytes) for name, score_bytes in variants.items()}
    seconds = in_turns(runs, options.repeats)
    positions = options.batch * (options.prompt_length + options.gen_length) * options.forwards
    print(f"{options}; jax {jax.__version__}, {jax.devices()}")
    for name, taken in seconds.items():
        ratio = np.median(np.array(seconds["all heads"]) / taken)
        print(
            f"{name:12} {positions / np.median(taken):8.0f} positions a second, {ratio:.2f} times all heads (in turn)"
        )


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
