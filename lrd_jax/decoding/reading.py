"""From the hidden states of the window to all that a step wants to know, without more logits at a time than it must.

Axes: B batch, W active window, w positions of it at a time, D embed, V vocab, E hidden states a position has (2 with
guidance, else 1).

Logits of the whole window are the largest arrays of a decode. Where they are small they exist at once, and those of the
previous forward are kept for the KL. Where they are not, positions are read chunk by chunk, and the previous logits of
a chunk are computed again from the previous hidden states. Either way gives the same numbers, up to the rounding of a
product of another shape.
"""

from typing import Any, Protocol

import flax.struct
import jax
import jax.numpy as jnp

from lrd_jax.decoding.config import DecodeConfig
from lrd_jax.decoding.parts import mix as mixing
from lrd_jax.decoding.vocab import belief as beliefs
from lrd_jax.decoding.vocab.belief import Belief, confidence_of
from lrd_jax.decoding.vocab.largest import FEW
from lrd_jax.decoding.vocab.nucleus import nucleus_floor
from lrd_jax.decoding.vocab.sampling import draw, filtered, suppress
from lrd_jax.models import ModelConfig
from lrd_jax.sharding import vocab_is_split

KEPT_BYTES = 256 * 2**20  # logits of a window up to this size exist at once, and are kept
CHUNK_BYTES = 64 * 2**20  # of logits at a time otherwise
CACHED_BYTES = 4 * 2**20  # of logits at a time that a CPU reads again and again from its own cache


class Head(Protocol):
    """What reading needs of a model."""

    config: ModelConfig

    def table(self, params: Any) -> jax.Array: ...
    def logits(self, params: Any, hidden: jax.Array) -> jax.Array: ...


@flax.struct.dataclass
class Reading:
    """What a forward says about the window."""

    belief: Belief  # the model's own
    proposal: Belief  # as the commit rule reads it: with the token that would be committed
    kl: jax.Array | None  # [B, W] nats, to the previous forward's belief, where a divergence is measured
    mean: jax.Array | None  # [B, W, D] float32, of the nucleus' embeddings, where they are mixed


@flax.struct.dataclass
class Previous:
    """What is kept of a forward until the next one."""

    window: jax.Array  # [B, W, V] float32 logits, or [B, W, E, D] hidden states from which they are computed again
    log_z: jax.Array  # [B, W] log of the softmax denominators
    token: jax.Array  # [B, W] int32, the likeliest tokens


def chunk_of(config: DecodeConfig, batch: int, vocab_size: int) -> int:
    """w, positions of the window whose logits exist at a time."""
    if config.logit_chunk is not None:
        return min(config.logit_chunk, config.window)
    position = 4 * batch * vocab_size
    return config.window if position * config.window <= KEPT_BYTES else max(1, CHUNK_BYTES // position)


def no_previous(model: Head, config: DecodeConfig, embeddings: jax.Array) -> Previous:
    """Zeros in the place of a previous forward, for a window of embeddings `[B, W, D]` of the model's dtype."""
    B, W, D = embeddings.shape
    if chunk_of(config, B, model.config.vocab_size) == W:
        window = jnp.zeros((B, W, model.config.vocab_size))
    else:
        window = jnp.zeros((B, W, 1 if config.cfg_scale is None else 2, D), embeddings.dtype)
    return Previous(window, jnp.zeros((B, W)), jnp.zeros((B, W), jnp.int32))


def read_window(model: Head, params, config: DecodeConfig, hidden, previous, open_, keys):
    """Everything that a step reads from one forward.

    Args:
      hidden: `[B, W, E, D]` that hold the window's logits.
      previous: `Previous` of the forward before, or None where no divergence is measured.
      open_: bool `[B, W]`, positions whose mixture is wanted; elsewhere it may be left meaningless.
      keys: `[B]` random keys for the tokens' draw.

    Returns:
      The `Reading`, and the `Previous` for the next forward.
    """
    V, W = model.config.vocab_size, config.window
    chunk = chunk_of(config, hidden.shape[0], V)
    keys = jax.vmap(lambda key: jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(W)))(keys)

    def read_some(hidden, before, log_z, open_, keys):
        logits = window_logits(model, params, config, hidden)
        if before is not None and before.ndim == 4:
            before = window_logits(model, params, config, before)
        return read_logits(model, params, config, logits, before, log_z, open_, keys), logits

    before, log_z = (None, None) if previous is None else (previous.window, previous.log_z)
    if chunk == W:
        reading, kept = read_some(hidden, before, log_z, open_, keys)
    else:
        reading = by_chunks(lambda *args: read_some(*args)[0], chunk, (hidden, before, log_z, open_, keys))
        kept = hidden
    return reading, None if previous is None else Previous(kept, reading.belief.log_z, reading.belief.token)


def window_logits(model: Head, params, config: DecodeConfig, hidden: jax.Array) -> jax.Array:
    """float32 logits `[B, w, V]` of hidden states `[B, w, E, D]`, guided, impossible tokens at -inf."""
    logits = model.logits(params, hidden[:, :, 0])
    if config.cfg_scale is not None:
        without = model.logits(params, hidden[:, :, 1])
        logits = without + (config.cfg_scale + 1.0) * (logits - without)
    special = model.config
    impossible = [special.mask_id] * config.suppress_mask + [special.eos_id] * config.logits_eos_inf
    return suppress(logits, tuple(impossible))


def read_logits(model: Head, params, config: DecodeConfig, logits, before, before_log_z, open_, keys) -> Reading:
    """`Reading` of logits `[B, w, V]` beside the previous forward's, `before`; the rest as in `read_window`."""
    table = model.table(params) if config.mix is not None else None
    guess = table is not None and logits.shape[-1] > FEW and not vocab_is_split()

    def read(guess, logits, before, before_log_z, keys):
        with jax.named_scope("belief"):
            belief = beliefs.read(logits, margin=config.commit.needs_margin)
        kl = None
        if before is not None:
            with jax.named_scope("divergence"):
                kl = beliefs.kl(logits, belief.log_z, before, before_log_z)
        with jax.named_scope("proposal"):
            proposal = propose(config, model.config, logits, belief, keys)
        mean = holds = None
        if guess:
            with jax.named_scope("mixing"):
                mean, holds = mixing.mean_of_largest(logits, belief.log_z, table, config.mix.top_p)
        return Reading(belief, proposal, kl, mean), holds

    def whole_nuclei(log_z, at_once=config.window):
        def floor(logits, log_z):
            return nucleus_floor(jnp.exp(logits - log_z[..., None]), config.mix.top_p)

        with jax.named_scope("mixing"):
            floors = by_chunks(floor, at_once, (logits, log_z))
            return mixing.mean_of_nucleus(jnp.exp(logits - log_z[..., None]), floors, table)

    def on_cpu(*args):
        cached = max(1, CACHED_BYTES // (4 * logits.shape[0] * logits.shape[-1]))
        reading, holds = by_chunks(lambda *args: read(guess, *args), cached, args)
        if guess:
            missed = open_ & ~holds
            exact = jax.lax.cond(
                jnp.any(missed), lambda z: whole_nuclei(z, cached), lambda _: reading.mean, reading.belief.log_z
            )
            return reading.replace(mean=jnp.where(missed[..., None], exact, reading.mean))
        return reading if table is None else reading.replace(mean=whole_nuclei(reading.belief.log_z, cached))

    def elsewhere(*args):
        reading, _ = read(False, *args)
        return reading if table is None else reading.replace(mean=whole_nuclei(reading.belief.log_z))

    return jax.lax.platform_dependent(logits, before, before_log_z, keys, cpu=on_cpu, default=elsewhere)


def by_chunks(function, chunk: int, arrays):
    """function(*arrays), arrays `[B, W, ...]` -> pytree of `[B, W, ...]`, given at most `chunk` positions at a time.

    The last chunk overlaps the one before it where W is no multiple. A None among the arrays is handed on.
    """
    width = jax.tree.leaves(arrays)[0].shape[1]
    if chunk >= width:
        return function(*arrays)

    def part(start):
        return jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, start, chunk, axis=1), arrays)

    shapes = jax.eval_shape(lambda: function(*part(0)))
    out = jax.tree.map(lambda s: jnp.zeros((s.shape[0], width, *s.shape[2:]), s.dtype), shapes)

    def body(i, out):
        start = jnp.minimum(i * chunk, width - chunk)
        return jax.tree.map(
            lambda whole, new: jax.lax.dynamic_update_slice_in_dim(whole, new, start, axis=1),
            out,
            function(*part(start)),
        )

    return jax.lax.fori_loop(0, -(-width // chunk), body, out)


def propose(config: DecodeConfig, special: ModelConfig, logits, belief: Belief, keys) -> Belief:
    """The belief as the commit rule reads it: with the token that would be committed, drawn if the temperature asks.

    Logits `[B, w, V]`, one key a position `[B, w]`.
    """
    hot = config.temperature > 0
    if config.commit.reads_filtered or config.top_p is not None or config.top_k is not None:
        q = filtered(logits, config.temperature, config.top_p, config.top_k)
        seen = beliefs.read(q, margin=config.commit.needs_margin)
        token = jax.lax.cond(hot, draw, lambda q, _: seen.token, q, keys)
        if config.commit.reads_filtered:
            confidence = jax.lax.cond(hot, confidence_of, lambda *_: seen.confidence, q, token, seen.log_z)
            belief = seen.replace(confidence=confidence)
        else:
            belief = belief.replace(confidence=confidence_of(logits, token, belief.log_z))
        belief = belief.replace(token=token)
    else:

        def tempered(logits, keys):
            token = draw(filtered(logits, config.temperature, None, None), keys)
            return token, confidence_of(logits, token, belief.log_z)

        token, confidence = jax.lax.cond(hot, tempered, lambda *_: (belief.token, belief.confidence), logits, keys)
        belief = belief.replace(token=token, confidence=confidence)
    if config.confidence_eos_eot_inf:
        ends = special.end_ids
        is_end = jnp.isin(belief.token, jnp.asarray(ends))
        without_ends = suppress(logits, ends)
        belief = belief.replace(
            confidence=confidence_of(without_ends, belief.token, beliefs.log_z(without_ends)),
            entropy=jnp.where(is_end, jnp.finfo(jnp.float32).max, belief.entropy),
            margin=None if belief.margin is None else jnp.where(is_end, 0.0, belief.margin),
        )
    return belief
