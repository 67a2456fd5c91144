"""What the pod decodes and one process decodes beside it: checkpoints, decoders and prompts."""

import numpy as np

from lrd_jax import DecodeConfig, DualCache, Threshold

CONFIGS = {
    "plain": DecodeConfig(8, block_length=4),
    "lrd": DecodeConfig.lrd(8, block_length=4),
    "threshold": DecodeConfig(8, block_length=4, commit=Threshold(0.1)),
    "dual": DecodeConfig.lrd(8, block_length=4, cache=DualCache(3)),
}

MESHES = {"data": (4, 1, 1), "fsdp": (2, 2, 1), "tensor": (2, 1, 2), "across": (1, 1, 4)}

# (mesh, checkpoint, stored as, decoder); "hf" or "orbax" is the form that every process reads its own parts from.
DECODES = (
    ("data", "tiny-llada", "hf", "plain"),
    ("data", "tiny-llada", "hf", "threshold"),
    ("fsdp", "tiny-llada", "orbax", "dual"),
    ("fsdp", "tiny-dream", "hf", "lrd"),
    ("tensor", "tiny-llada", "hf", "dual"),
    ("tensor", "tiny-dream", "orbax", "lrd"),
    ("tensor", "tiny-dream", "orbax", "threshold"),
    ("across", "tiny-llada", "hf", "lrd"),
    ("across", "tiny-dream", "orbax", "plain"),
)

QUESTIONS = (
    "Tom has 14 apples. Ann takes 5 apples. How many are left?",
    "Tom has 12 apples. How many are left?",
    "Ann has 3 apples. Tom takes 2 apples. How many are left?",
)


def prompts():
    """Four prompts of different lengths, left-padded."""
    rng = np.random.default_rng(0)
    ids, widths = rng.integers(5, 300, (4, 6), dtype=np.int32), np.array([6, 3, 5, 2])
    mask = np.arange(6) >= 6 - widths[:, None]
    return np.where(mask, ids, 0), mask
