"""What the engines of a pod are asked, and one process beside it."""

import random

from lrd_jax import DecodeConfig
from lrd_jax.engine import Request

PROMPT_LENGTH = 16
CONFIGS = (DecodeConfig.lrd(16, block_length=8), DecodeConfig.fast(8, threshold=0.1))


def requests():
    """(which config, request) of 16 requests."""
    rng = random.Random(0)
    return [
        (
            which,
            Request(
                prompt=rng.choices(range(5, 250), k=rng.randint(1, PROMPT_LENGTH)),
                length=None if which else rng.choice((8, 16)),
                seed=rng.randrange(100),
                numbers={"temperature": rng.choice((0.0, 0.9))},
            ),
        )
        for which in rng.choices((0, 1), k=16)
    ]
