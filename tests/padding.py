"""Prompts as a batch takes them."""

import numpy as np


def padded(prompts):
    """Prompts of different lengths, left-padded: ids and mask `[B, P]`."""
    P = max(map(len, prompts))
    ids = np.stack([np.pad(prompt, (P - len(prompt), 0)) for prompt in prompts])
    return ids, np.stack([np.arange(P) >= P - len(prompt) for prompt in prompts])
