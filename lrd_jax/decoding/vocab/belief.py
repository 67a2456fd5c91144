"""What the model believes about each position: logits -> token, confidence, entropy, and the KL to the last belief.

Axes: B batch, W active window, V vocab. Everything is float32 and in nats; p = 0 adds nothing to a sum.
"""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from lrd_jax.decoding.vocab.largest import best, top

_EPS = float(jnp.finfo(jnp.float32).eps)


class Belief(flax.struct.PyTreeNode):
    """The belief at every position of the window, as commit and stopping rules read it."""

    token: jax.Array  # [B, W] int32, the token that would be committed
    confidence: jax.Array  # [B, W] probability of that token
    entropy: jax.Array  # [B, W] nats
    log_z: jax.Array  # [B, W] log of the softmax denominator
    margin: Any = None  # [B, W] probability of the best token minus the second best's, where asked for
    gap: Any = None  # [B, W] the best token's logit minus the second best's, where asked for


def read(logits: jax.Array, *, margin: bool = False, gap: bool = False) -> Belief:
    """Belief from float32 logits `[B, W, V]`; the token is the argmax, the lowest id on a tie.

    Logits of -inf are impossible tokens. Rows with NaN or +inf give non-finite entropies.
    """
    most, token = best(logits)
    below = logits - most[..., None]
    weights = jnp.exp(below)
    z = jnp.sum(weights, axis=-1)
    # H = log z - E[x - most]; an impossible token has weight 0 and must not meet its -inf.
    mean = jnp.sum(jnp.where(weights > 0, weights * below, 0.0), axis=-1) / z
    log_z = most + jnp.log(z)
    belief = Belief(token=token, confidence=1.0 / z, entropy=jnp.log(z) - mean, log_z=log_z)
    if not (margin or gap):
        return belief
    behind = _second(logits, token) - most
    return belief.replace(margin=(1.0 - jnp.exp(behind)) / z if margin else None, gap=-behind if gap else None)


def _second(logits: jax.Array, token: jax.Array) -> jax.Array:
    is_best = jax.lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1) == token[..., None]
    return top(jnp.where(is_best, -jnp.inf, logits))


def log_z(logits: jax.Array) -> jax.Array:
    """Log of the softmax denominator `[..., ]` of logits `[..., V]`."""
    return jax.nn.logsumexp(logits, axis=-1)


def kl(logits: jax.Array, log_z: jax.Array, previous: jax.Array, previous_log_z: jax.Array) -> jax.Array:
    """KL(p_t || p_{t-1}) per position `[B, W]`, nats, the inside of Eq. 6.

    Both beliefs come as float32 logits `[B, W, V]` with the logs of their denominators `[B, W]`:
    E_t[x - y] - log z_x + log z_y takes one exp a logit.
    """
    p = jnp.exp(logits - log_z[..., None])
    difference = jnp.sum(jnp.where(p > 0, p * (logits - previous), 0.0), axis=-1)
    return jnp.maximum(difference - log_z + previous_log_z, 0.0)  # rounding may dip below


def js(logits: jax.Array, log_z: jax.Array, previous: jax.Array, previous_log_z: jax.Array) -> jax.Array:
    """Jensen-Shannon divergence of two beliefs per position `[B, W]`, nats; arguments are those of `kl`.

    As ReMix's code has it: both are clamped to at least float32's epsilon, and not normalised again. Where the previous
    log is infinite there is nothing to compare with, and the divergence is infinite, as that of `kl` is.
    """
    found = _js(_clamped(logits, log_z), _clamped(previous, previous_log_z))
    return jnp.where(jnp.isfinite(previous_log_z), found, jnp.inf)


def js_of_none(logits: jax.Array, log_z: jax.Array) -> jax.Array:
    """`js` between a belief and one of all zeros, which the clamp makes epsilons: about ln(2) / 2, whatever it says."""
    p = _clamped(logits, log_z)
    return _js(p, jnp.full_like(p, _EPS))


def _clamped(logits: jax.Array, log_z: jax.Array) -> jax.Array:
    return jnp.maximum(jnp.exp(logits - log_z[..., None]), _EPS)


def _js(p: jax.Array, q: jax.Array) -> jax.Array:
    middle = 0.5 * (p + q)
    return 0.5 * jnp.sum(p * jnp.log(p / middle) + q * jnp.log(q / middle), axis=-1)


def confidence_of(logits: jax.Array, token: jax.Array, log_z: jax.Array) -> jax.Array:
    """Probability `[B, W]` of the given tokens under softmax(logits), whose denominators are exp(log_z `[B, W]`)."""
    chosen = jnp.take_along_axis(logits, token[..., None], axis=-1)[..., 0]
    return jnp.exp(chosen - log_z)
