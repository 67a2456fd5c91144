"""The objective of masked diffusion language models (LLaDA, arXiv 2502.09992, Eq. 5 for prompt / answer pairs).

    t ~ U(eps, 1);  each answer token is masked with probability t, the prompt never
    loss = 1 / (B * G) * sum_{b, i masked} 1 / t_b * -log p(answer_{b, i} | prompt_b, answer_b with masks)

The answer is padded with end-of-text up to the canvas, and the padding counts as answer: that is how a model learns
where to stop. With `SoftInputs` the masked positions hold what decoding would feed back, and the loss may be that of
every forward on the way. Axes: B batch, P prompt, G canvas, D embed, V vocab.
"""

import flax.struct
import jax
import jax.numpy as jnp
import optax

from lrd_jax.models import LogitAlignment, Model, positions_of
from lrd_jax.models.transformer import Params
from lrd_jax.train.config import SoftInputs
from lrd_jax.train.soft import draw_feedback, feed_back


@flax.struct.dataclass
class Batch:
    """Prompt / answer pairs of one bucket."""

    prompt: jax.Array  # [B, P] int32, padded on the left
    prompt_mask: jax.Array  # [B, P] bool, False at padding
    answer: jax.Array  # [B, G] int32, padded with end-of-text on the right


def draw_masks(key: jax.Array, B: int, G: int, eps: float, all_masked: float = 0.0) -> tuple[jax.Array, jax.Array]:
    """Mask ratios t `[B]` and masks bool `[B, G]`.

    Each t is uniform on [eps, 1]; the B draws are spread evenly over the interval, which takes most of the variance
    that the weight 1 / t brings out of the batch's mean. A row is masked altogether with probability `all_masked`.
    """
    offset_key, mask_key = jax.random.split(key)
    u = (jax.random.uniform(offset_key) + jnp.arange(B) / B) % 1.0
    t = eps + (1.0 - eps) * u
    if all_masked:
        t = jnp.where(jax.random.uniform(jax.random.fold_in(key, 2), (B,)) < all_masked, 1.0, t)
    return t, jax.random.uniform(mask_key, (B, G)) < t[:, None]


def canvas_logits(model: Model, params: Params, batch: Batch, canvas: jax.Array) -> jax.Array:
    """float32 logits `[B, G, V]` of every canvas position, for canvas embeddings `[B, G, D]` after the prompt."""
    P = batch.prompt.shape[1]
    attend = jnp.concatenate([batch.prompt_mask, jnp.ones_like(batch.answer, bool)], axis=1)
    embeddings = jnp.concatenate([model.embed(params, batch.prompt), canvas], axis=1)
    hidden = model.hidden(params, embeddings, positions_of(attend), attend)
    if model.config.alignment is LogitAlignment.SHIFTED:
        hidden = hidden[:, P - 1 : -1]
    else:
        hidden = hidden[:, P:]
    return model.logits(params, hidden)


def weighted_loss(logits: jax.Array, answer: jax.Array, masked: jax.Array, t: jax.Array) -> jax.Array:
    """The scalar loss above, from logits `[B, G, V]`, answer ids and masks `[B, G]`, ratios `[B]`."""
    nats = optax.softmax_cross_entropy_with_integer_labels(logits, answer)
    return jnp.sum(jnp.where(masked, nats, 0.0) / t[:, None]) / answer.size


def loss_fn(
    params: Params, model: Model, batch: Batch, key: jax.Array, eps: float, soft_inputs: SoftInputs | None
) -> jax.Array:
    """The loss of one batch; with `soft_inputs`, masked positions hold what decoding would feed back."""
    mask_key, soft_key = jax.random.split(key)
    if soft_inputs is None:
        t, masked = draw_masks(mask_key, *batch.answer.shape, eps)
        logits = canvas_logits(model, params, batch, masked_canvas(model, params, batch, masked))
        return weighted_loss(logits, batch.answer, masked, t)
    t, masked = draw_masks(mask_key, *batch.answer.shape, eps, soft_inputs.all_masked)
    count, r_f = draw_feedback(soft_key, len(batch.answer), soft_inputs)
    return refined_loss(params, model, batch, t, masked, count, r_f, soft_inputs)


def masked_canvas(model: Model, params: Params, batch: Batch, masked: jax.Array) -> jax.Array:
    """Embeddings `[B, G, D]` of the answer, [MASK] where masked."""
    return model.embed(params, jnp.where(masked, model.config.mask_id, batch.answer))


def refined_loss(
    params: Params,
    model: Model,
    batch: Batch,
    t: jax.Array,
    masked: jax.Array,
    count: jax.Array,
    r_f: jax.Array,
    config: SoftInputs,
) -> jax.Array:
    """The loss of one batch after, or at every depth of, `config.refinements` forwards that feed beliefs back.

    Args:
      t, masked: see `draw_masks`.
      count: int32 `[B, 1]`, of the forwards each row takes part in the first so many, and keeps its canvas after them.
      r_f: `[B, 1]`, feedback ratios.
    """

    trained = config.through or config.every_depth  # forwards before the last one too

    def forward(canvas: jax.Array, depth: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The canvas after a forward, and the forward's loss."""
        weights, seen = (params, canvas) if trained else jax.lax.stop_gradient((params, canvas))
        logits = canvas_logits(model, weights, batch, seen)
        loss = weighted_loss(logits, batch.answer, masked, t)
        table = model.table(weights)
        if not config.through:
            logits, table = jax.lax.stop_gradient((logits, table))
        moves = masked & (count > depth)
        return feed_back(logits, canvas, moves, table, model.config.mask_id, r_f=r_f, top_p=config.top_p), loss

    if config.remat and trained:
        forward = jax.checkpoint(forward, prevent_cse=False)  # the scan keeps XLA from sharing the two
    canvas = masked_canvas(model, params, batch, masked)
    canvas, losses = jax.lax.scan(forward, canvas, jnp.arange(config.refinements))
    last = weighted_loss(canvas_logits(model, params, batch, canvas), batch.answer, masked, t)
    return (jnp.sum(losses) + last) / (config.refinements + 1) if config.every_depth else last
