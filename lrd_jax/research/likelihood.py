"""How likely a model finds an answer: LLaDA's Monte-Carlo lower bound of log p(answer | prompt).

    log p(answer | prompt) >= E_x [ l / x * sum_{i masked} log p(answer_i | prompt, answer with x of its l masked) ]

with x uniform on 1..l and the masked positions uniform among all sets of x (LLaDA, arXiv 2502.09992, Eq. 6; a fixed
count x varies less than masking each token by chance). Axes: S samples, P prompt, A answer, D embed, V vocab.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from lrd_jax.errors import Refused
from lrd_jax.models import LogitAlignment, Model, positions_of
from lrd_jax.models.transformer import Params


def make_log_likelihood(
    model: Model, *, num_samples: int = 128, batch_size: int = 16, cfg_scale: float = 0.0
) -> Callable[..., jax.Array]:
    """A jitted `(params, prompt, answer, key, prompt_mask=None) -> estimate`.

    Its arguments are the parameters, int ids `[P]` and `[A]`, a `jax.random.key`, and where the prompt is left-padded
    its mask, bool `[P]`; it returns a float32 scalar, nats. Each pair of lengths compiles once.

    Args:
      num_samples: masked sequences to average over; their spread falls with its root.
      batch_size: sequences per forward.
      cfg_scale: classifier-free guidance against the prompt replaced by [MASK]; a sample then costs two forwards.

    Raises:
      ValueError: `num_samples` is not a positive multiple of `batch_size`, or a negative `cfg_scale`; and from the
        returned function, ids of a wrong shape or dtype, an empty answer, or more tokens than the model's context.
    """
    if batch_size < 1 or num_samples < 1 or num_samples % batch_size:
        raise Refused(f"num_samples={num_samples} must be a positive multiple of batch_size={batch_size}")
    if cfg_scale < 0:
        raise Refused(f"cfg_scale={cfg_scale} must not be negative")
    return jax.jit(functools.partial(_estimate, model, num_samples // batch_size, batch_size, cfg_scale))


def _estimate(model, batches, batch_size, cfg_scale, params, prompt, answer, key, prompt_mask=None):
    _check_ids(model, prompt, answer)

    def batch_loss(key):
        masked = draw_masks(key, batch_size, answer.shape[0])
        return jnp.mean(sample_losses(model, params, prompt, answer, masked, cfg_scale, prompt_mask))

    return -jnp.mean(jax.lax.map(batch_loss, jax.random.split(key, batches)))


def _check_ids(model: Model, prompt: jax.Array, answer: jax.Array) -> None:
    for name, ids in (("prompt", prompt), ("answer", answer)):
        if ids.ndim != 1 or not jnp.issubdtype(ids.dtype, jnp.integer):
            raise Refused(f"{name} must be one row of integer token ids, got {ids.dtype} {list(ids.shape)}")
    P, A = prompt.shape[0], answer.shape[0]
    if A == 0:
        raise Refused("answer is empty; give it at least one token")
    if model.config.max_length < P + A:
        raise Refused(f"prompt of {P} + answer of {A} tokens exceed the model's context of {model.config.max_length}")


def draw_masks(key: jax.Array, samples: int, length: int) -> jax.Array:
    """Masks bool `[samples, length]` whose counts are spread evenly over 1..length from a random start (LLaDA)."""
    start_key, place_key = jax.random.split(key)
    start = jax.random.randint(start_key, (), 1, length + 1)
    places = jnp.argsort(jax.random.uniform(place_key, (samples, length)), axis=-1)  # a random permutation each
    return places < mask_counts(start, samples, length)[:, None]


def mask_counts(start: jax.Array, samples: int, length: int) -> jax.Array:
    """int32 `[samples]`: start + i * length / samples, rounded and wrapped into 1..length."""
    steps = start.astype(jnp.float32) + jnp.arange(samples, dtype=jnp.float32) * (length / samples)
    return (jnp.round(steps).astype(jnp.int32) - 1) % length + 1


def sample_losses(
    model: Model,
    params: Params,
    prompt: jax.Array,
    answer: jax.Array,
    masked: jax.Array,
    cfg_scale: float = 0.0,
    prompt_mask: jax.Array | None = None,
) -> jax.Array:
    """Weighted cross-entropy of the masked tokens of each sample, float32 `[S]`, nats.

    Args:
      prompt: int ids `[P]`.
      answer: int ids `[A]`.
      masked: bool `[S, A]`, where a sample hides the answer, at least one position each; an id that happens to be the
        mask id hides nothing.
      cfg_scale: see `make_log_likelihood`.
      prompt_mask: bool `[P]`, False at padding on the left; None: no padding.
    """
    P, (S, A) = prompt.shape[0], masked.shape
    hidden_token = model.embed(params, jnp.int32(model.config.mask_id))
    canvas = jnp.where(masked[..., None], hidden_token, model.embed(params, answer)[None])
    attend = jnp.ones((S, P + A), bool)
    if prompt_mask is not None:
        attend = attend.at[:, :P].set(prompt_mask)
    places = jnp.arange(P, P + A)
    if model.config.alignment is LogitAlignment.SHIFTED:
        places = jnp.maximum(places - 1, 0)

    def logits(prompt):  # [P, D] -> [S, A, V]
        x = jnp.concatenate([jnp.broadcast_to(prompt, (S, *prompt.shape)), canvas], axis=1)
        return model.logits(params, model.hidden(params, x, positions_of(attend), attend)[:, places])

    shown = model.embed(params, prompt)
    out = logits(shown)
    if cfg_scale:
        without = logits(jnp.broadcast_to(hidden_token, shown.shape))
        out = without + (cfg_scale + 1.0) * (out - without)
    nats = optax.softmax_cross_entropy_with_integer_labels(out, jnp.broadcast_to(answer, (S, A)))
    return jnp.sum(jnp.where(masked, nats, 0.0), axis=-1) * A / jnp.sum(masked, axis=-1)
