"""Recorded sights made by hand: what every forward of some rows showed a stop."""

import numpy as np

from lrd_jax.decoding.sight import Sight
from lrd_jax.decoding.vocab.belief import Belief


def recorded(divergence, entropy, confidence, token=None, refining=0):
    """A sight with everything masked and open, as `lrd_jax.research.record` keeps it.

    Args:
      divergence: `[...]`, axes of forwards and rows as one likes.
      entropy, confidence, token: `[..., W]`.
      refining: the first so many forwards of the first axis come before any commit, where no stop is asked.
    """
    divergence, entropy = np.array(divergence, np.float32), np.array(entropy, np.float32)
    confidence = np.broadcast_to(np.array(confidence, np.float32), entropy.shape)
    rows, width = divergence.shape, entropy.shape[-1]
    zeros, yes = np.zeros(rows, np.int32), np.ones(rows, bool)
    commits = zeros + 1
    commits[:refining] = 0
    token = np.zeros(entropy.shape, np.int32) if token is None else np.array(token)
    return Sight(
        masked=np.ones(entropy.shape, bool),
        exists=None,
        belief=Belief(token=token, confidence=confidence, entropy=entropy, log_z=np.zeros_like(entropy)),
        proposal=None,
        kl=None,
        divergence=divergence,
        running=yes,
        committing=yes,
        forwards=zeros,
        block_forwards=zeros,
        commits=commits,
        refined=zeros,
        start=zeros,
        length=zeros + width,
        keys=None,
        window=width,
        vocab_size=50,
    )
