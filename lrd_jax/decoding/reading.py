"""From hidden states to all that a step wants to know, without more logits at a time than it must.

Axes: B batch, R positions read (`DecodeConfig.reach`: the active window, or the canvas where a part asks for all of
it), w of them at a time, D embed, V vocab, E hidden states a position has (2 with guidance, else 1).

Logits of all R positions are the largest arrays of a decode. Where they are small they exist at once, and those of the
previous forward are kept for the KL. Where they are not, positions are read chunk by chunk, and the previous logits of
a chunk are computed again from the previous hidden states. Either way gives the same numbers, up to the rounding of a
product of another shape.
"""

import functools
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from lrd_jax.decoding.canvas import where_rows
from lrd_jax.decoding.config import DecodeConfig
from lrd_jax.decoding.model import Head, Vocabulary
from lrd_jax.decoding.vocab import belief as beliefs
from lrd_jax.decoding.vocab.belief import Belief, confidence_of
from lrd_jax.decoding.vocab.largest import FEW
from lrd_jax.decoding.vocab.nucleus import mean_of_largest, mean_of_nucleus
from lrd_jax.decoding.vocab.sampling import suppress
from lrd_jax.sharding import parts_of, vocab_is_split

KEPT_BYTES = 256 * 2**20  # logits of a window up to this size exist at once, and are kept
CHUNK_BYTES = 64 * 2**20  # of logits at a time otherwise
CACHED_BYTES = 4 * 2**20  # of logits at a time that a CPU reads again and again from its own cache


class Mixture(flax.struct.PyTreeNode):
    """Some tokens' share in the beliefs."""

    mean: jax.Array  # [B, R, D] float32, of their embeddings
    mass: Any  # [B, R, 1], theirs; None where no part reads it


class Reading(flax.struct.PyTreeNode):
    """What a forward says about the positions read."""

    belief: Belief  # the model's own
    proposal: Belief  # as the commit rule reads it: with the token that would be committed
    kl: jax.Array | None  # [B, R] nats, to the previous forward's belief, where a divergence is measured
    mixture: Any = None  # what may be fed back of the beliefs; None where nothing is
    js: Any = None  # [B, R] nats, to the previous forward's belief; None where no part reads it
    js_none: Any = None  # [B, R] nats, to no belief at all, likewise


class Logits(flax.struct.PyTreeNode):
    """What a reading is made from, `[B, w, ...]`: all positions read, or a part of them."""

    now: jax.Array  # [B, w, V] float32, guided, impossible tokens at -inf
    before: jax.Array | None  # [B, w, V], those of the previous forward, where a divergence is measured
    log_z: Any  # [B, w] log of the softmax denominators of `before`; None where there is none
    wanted: jax.Array  # [B, w] bool, positions whose mixture is wanted; elsewhere it may be left meaningless
    keys: jax.Array | None  # [B, w] random keys for the tokens' draw


def chunk_of(config: DecodeConfig, batch: int, vocab_size: int) -> int:
    """w, positions whose logits exist at a time; inside jit, as the memory of one device of the mesh allows."""
    if config.logit_chunk is not None:
        return min(config.logit_chunk, config.reach)
    parts = parts_of("batch")
    rows = batch if batch % parts else batch // parts
    position = 4 * rows * -(-vocab_size // parts_of("vocab"))
    return config.reach if position * config.reach <= KEPT_BYTES else max(1, CHUNK_BYTES // position)


def no_previous(model: Head, config: DecodeConfig, batch: int, embed_dim: int, dtype: Any) -> jax.Array | None:
    """Zeros in the place of what is kept of a forward until the next one; None where no divergence is measured.

    float32 logits `[B, R, V]`, or hidden states `[B, R, E, D]` from which they are computed again.
    """
    R, V = config.reach, model.config.vocab_size
    if not config.compares:
        return None
    if chunk_of(config, batch, V) == R:
        return jnp.zeros((batch, R, V))
    return jnp.zeros((batch, R, 1 if config.cfg_scale is None else 2, embed_dim), dtype)


def read_forward(
    model: Head,
    params: Any,
    config: DecodeConfig,
    hidden: jax.Array,
    previous: jax.Array | None,
    previous_log_z: jax.Array | None,
    wanted: jax.Array,
    keys: jax.Array | None,
) -> tuple[Reading, jax.Array | None]:
    """Everything that a step reads from one forward.

    Args:
      hidden: `[B, R, E, D]` that hold the logits of the positions read.
      previous: what was kept of the forward before, and its `Belief.log_z` `[B, R]`, which may be None without it.
      wanted: bool `[B, R]`, see `Logits`.
      keys: `[B]` random keys for the tokens' draw, or None.

    Returns:
      The `Reading`, and what to keep until the next forward.
    """
    R = config.reach
    chunk = chunk_of(config, hidden.shape[0], model.config.vocab_size)
    if keys is not None:
        keys = jax.vmap(lambda key: jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(R)))(keys)

    def read_some(hidden, before, log_z, wanted, keys):
        now = window_logits(model, params, config, hidden)
        if before is not None and before.ndim == 4:
            before = window_logits(model, params, config, before)
        return read_logits(model, params, config, Logits(now, before, log_z, wanted, keys)), now

    arrays = (hidden, previous, previous_log_z, wanted, keys)
    if chunk == R:
        reading, kept = read_some(*arrays)
    else:
        reading, kept = by_chunks(lambda *args: read_some(*args)[0], chunk, arrays), hidden
    return reading, None if previous is None else kept


def read_ahead(
    model: Head,
    params: Any,
    config: DecodeConfig,
    hidden: jax.Array,
    moved: jax.Array,
    previous: jax.Array,
    log_z: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """What is kept of a forward, and its log_z, where rows go on to another window: one more head where any does.

    Args:
      hidden: `[B, W, E, D]` of that window.
      moved: bool `[B]`, the rows that do.
      previous, log_z: what the others keep.
    """

    def read_some(hidden):
        logits = window_logits(model, params, config, hidden)
        return beliefs.log_z(logits), logits

    def read_all():
        if previous.ndim == 3:
            ahead, kept = read_some(hidden)
        else:
            chunk = chunk_of(config, len(hidden), model.config.vocab_size)
            ahead, kept = by_chunks(lambda hidden: read_some(hidden)[0], chunk, (hidden,)), hidden
        return where_rows(moved, (kept, ahead), (previous, log_z))

    return jax.lax.cond(jnp.any(moved), read_all, lambda: (previous, log_z))


def read_shadows(model: Head, params: Any, config: DecodeConfig, hidden: jax.Array, tokens: jax.Array) -> jax.Array:
    """Probability `[B, W]` of the tokens `[B, W]` at the window's shadows, whose hidden states are `[B, W, E, D]`."""

    def read_some(hidden, tokens):
        logits = window_logits(model, params, config, hidden)
        return confidence_of(logits, tokens, beliefs.log_z(logits))

    with jax.named_scope("shadow"):
        return by_chunks(read_some, chunk_of(config, len(hidden), model.config.vocab_size), (hidden, tokens))


def window_logits(model: Head, params: Any, config: DecodeConfig, hidden: jax.Array) -> jax.Array:
    """float32 logits `[B, w, V]` of hidden states `[B, w, E, D]`, guided, impossible tokens at -inf."""
    logits = model.logits(params, hidden[:, :, 0])
    if config.cfg_scale is not None:
        without = model.logits(params, hidden[:, :, 1])
        logits = without + (jnp.asarray(config.cfg_scale)[..., None, None] + 1.0) * (logits - without)
    special = model.config
    impossible = [special.mask_id] * config.suppress_mask + [special.eos_id] * config.logits_eos_inf
    return suppress(logits, tuple(impossible))


def read_logits(model: Head, params: Any, config: DecodeConfig, logits: Logits) -> Reading:
    """`Reading` of logits, by the way that suits where they live."""
    table = None if config.mix is None else model.table(params)
    return jax.lax.platform_dependent(
        logits,
        cpu=functools.partial(_read_on_cpu, config, model.config, table),
        default=functools.partial(_read_fused, config, model.config, table),
    )


def _read_fused(config: DecodeConfig, special: Vocabulary, table: jax.Array | None, logits: Logits) -> Reading:
    """Whole arrays: what reads the same logits is fused."""
    reading = _read_beliefs(config, special, logits)
    return reading if table is None else reading.replace(mixture=_mixture(config, table, logits.now, reading.belief))


def _read_on_cpu(config: DecodeConfig, special: Vocabulary, table: jax.Array | None, logits: Logits) -> Reading:
    """A few positions at a time, so that their logits are read from the core's cache; nuclei from the largest logits,
    and whole only where a wanted one is not among those."""
    cached = max(1, CACHED_BYTES // (4 * logits.now.shape[0] * logits.now.shape[-1]))
    if table is None:
        return by_chunks(lambda logits: _read_beliefs(config, special, logits), cached, (logits,))
    if logits.now.shape[-1] <= FEW or vocab_is_split():
        reading = by_chunks(lambda logits: _read_beliefs(config, special, logits), cached, (logits,))
        return reading.replace(mixture=_mixture(config, table, logits.now, reading.belief, cached))

    def read_and_guess(logits):
        reading = _read_beliefs(config, special, logits)
        with jax.named_scope("mixing"):
            tokens = config.mixing.tokens(reading.belief)
            mean, mass, holds = mean_of_largest(logits.now, reading.belief.log_z, table, tokens)
        return reading.replace(mixture=Mixture(mean, mass if "mass" in config.reads else None)), holds

    reading, holds = by_chunks(read_and_guess, cached, (logits,))
    missed = logits.wanted & ~holds
    exact = jax.lax.cond(
        jnp.any(missed),
        lambda: _mixture(config, table, logits.now, reading.belief, cached),
        lambda: reading.mixture,
    )
    mixture = jax.tree.map(lambda a, b: jnp.where(missed[..., None], a, b), exact, reading.mixture)
    return reading.replace(mixture=mixture)


def _read_beliefs(config: DecodeConfig, special: Vocabulary, logits: Logits) -> Reading:
    """All but the mixture."""
    reads = config.reads
    with jax.named_scope("belief"):
        belief = beliefs.read(logits.now, margin="margin" in reads, gap="gap" in reads)
    kl = js = None
    if logits.before is not None:
        with jax.named_scope("divergence"):
            both = (logits.now, belief.log_z, logits.before, logits.log_z)
            kl = beliefs.kl(*both) if "kl" in reads else None
            js = beliefs.js(*both) if "js" in reads else None
    js_none = beliefs.js_of_none(logits.now, belief.log_z) if "js_none" in reads else None
    with jax.named_scope("proposal"):
        proposal = config.draw.propose(logits.now, belief, logits.keys, reads=reads)
        if config.confidence_eos_eot_inf:
            proposal = _ends_last(special, logits.now, proposal)
    return Reading(belief, proposal, kl, js=js, js_none=js_none)


def _mixture(
    config: DecodeConfig, table: jax.Array, logits: jax.Array, belief: Belief, at_once: int | None = None
) -> Mixture:
    """That of all tokens that are mixed, their floors found `at_once` positions at a time."""

    def floor(logits, belief):
        return config.mixing.tokens(belief).floor(jnp.exp(logits - belief.log_z[..., None]))

    with jax.named_scope("mixing"):
        floors = by_chunks(floor, at_once or logits.shape[1], (logits, belief))
        mean, mass = mean_of_nucleus(jnp.exp(logits - belief.log_z[..., None]), floors, table)
        return Mixture(mean, mass if "mass" in config.reads else None)


def _ends_last(special: Vocabulary, logits: jax.Array, belief: Belief) -> Belief:
    """The belief with end tokens as the least sure of all: confidences count none of them."""
    ends = special.end_ids
    is_end = jnp.isin(belief.token, jnp.asarray(ends))
    without_ends = suppress(logits, ends)
    return belief.replace(
        confidence=confidence_of(without_ends, belief.token, beliefs.log_z(without_ends)),
        entropy=jnp.where(is_end, jnp.finfo(jnp.float32).max, belief.entropy),
        margin=None if belief.margin is None else jnp.where(is_end, 0.0, belief.margin),
    )


def by_chunks(function, chunk: int, arrays):
    """function(*arrays), arrays `[B, R, ...]` -> pytree of `[B, R, ...]`, given at most `chunk` positions at a time.

    The last chunk overlaps the one before it where R is no multiple. A None among the arrays is handed on.
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
