"""A decode seen again with its answer known: how far each forward's belief was from it, and what it fed back.

A replay makes the same forwards once more. Axes: B batch, W active window, S steps, V vocab.
"""

import jax
import jax.numpy as jnp
import numpy as np

from lrd_jax.decoding.canvas import take_window
from lrd_jax.decoding.loop import Decoder, Forward
from lrd_jax.decoding.parts.mix import Mix
from lrd_jax.decoding.parts.stop import Stop
from lrd_jax.decoding.reading import by_chunks, chunk_of, window_logits
from lrd_jax.decoding.vocab.nucleus import in_nucleus
from lrd_jax.pods import fetch

PAPER_STOP = Stop()


def replay(decode: Decoder, params, prompt, mask, tokens) -> dict[str, np.ndarray]:
    """What every forward of a decode believed about its answer.

    Args:
      decode: of a config with `trace` and without a cache, at temperature 0.
      prompt, mask: as the decoder takes them.
      tokens: int `[B, G]`, the answer that the same arguments gave.

    Returns:
      Arrays `[B, S]`, NaN after a row's last forward; of the active window, in nats:
      "distance": mean of KL(final token || p_t) = -log p_t(final token), 0 where a token is committed, whatever the
        model now says there.
      "open_distance": its mean over the masked positions alone, as those of the next two are.
      "alpha": the weight of the nucleus in what a masked position feeds back (Eq. 4).
      "mixed": the share of those whose nucleus holds more than one token.
      "open": the number of masked positions.
      "divergence", "refining": D_t, and 0 or 1, of the trace.
      "stopped": 1 from the first forward on which the paper's stop would have filled the rest: D_t below 0.1 right
        after a commit.
    """
    result, columns = fetch(decode.watch(look, params, prompt, mask, args=(jnp.asarray(tokens),)))
    columns["divergence"], columns["refining"] = result.trace.divergence, result.trace.refining
    columns["stopped"] = np.maximum.accumulate(columns["stopped"], axis=1)
    ran = ~np.isnan(result.trace.divergence)
    steps = np.flatnonzero(ran.any(axis=0))
    return {name: np.where(ran, column, np.nan)[:, steps] for name, column in columns.items()}


def look(forward: Forward, tokens: jax.Array) -> dict[str, jax.Array]:
    """The means `[B]` of one forward whose row ends with `tokens`."""
    model, params, config, before, after, sight = forward
    start, masked, previous = before.block * config.window, sight.masked, after.previous
    final = take_window(tokens, start, config.window)
    if config.reads_canvas:
        previous = take_window(previous, start, config.window)

    def read(window, log_z, final):
        logits = window if window.ndim == 3 else window_logits(model, params, config, window)
        log_p = logits - log_z[..., None]
        p = jnp.exp(log_p)
        distance = -jnp.take_along_axis(log_p, final[..., None], axis=-1)[..., 0]
        entropy = -jnp.sum(jnp.where(p > 0, p * log_p, 0.0), axis=-1)
        if not isinstance(config.mix, Mix):
            return distance, jnp.zeros_like(distance), jnp.zeros_like(distance)
        alpha = config.mix.r_f * (1.0 - entropy / jnp.log(float(model.config.vocab_size)))
        mixed = jnp.sum(in_nucleus(p, config.mix.top_p), axis=-1) > 1
        on = config.mix.top_p > 0
        return distance, jnp.where(on, alpha, 0.0), (mixed & on & (config.mix.r_f > 0)).astype(jnp.float32)

    chunk = chunk_of(config, tokens.shape[0], model.config.vocab_size)
    distance, alpha, mixed = by_chunks(read, chunk, (previous, after.belief.log_z, final))
    count = jnp.maximum(jnp.sum(masked, axis=-1), 1)

    def over_masked(x):
        return jnp.sum(jnp.where(masked, x, 0.0), axis=-1) / count

    return {
        "distance": jnp.mean(jnp.where(masked, distance, 0.0), axis=-1),
        "open_distance": over_masked(distance),
        "alpha": over_masked(alpha),
        "mixed": over_masked(mixed),
        "open": jnp.sum(masked, axis=-1).astype(jnp.float32),
        "stopped": PAPER_STOP(sight, ()),
    }


def summary(replays: list[dict[str, np.ndarray]]) -> dict:
    """The replays of all batches as one record that JSON can hold.

    Returns:
      By step: "rows" still running, then of these the mean of each column, with the 10th and 90th percentiles of the
      distance; and over all masked positions of all forwards, "mixed_share" and "mean_alpha"; "switch", the refining
      forwards of a row: 10th percentile, median and 90th.
    """
    steps = max(columns["distance"].shape[1] for columns in replays)

    def whole(name):
        parts = (np.pad(c[name], ((0, 0), (0, steps - c[name].shape[1])), constant_values=np.nan) for c in replays)
        return np.concatenate(list(parts))

    table = {name: whole(name) for name in replays[0]}
    ran = ~np.isnan(table["distance"])
    by_step = {name: [_number(np.mean(column[ran[:, s], s])) for s in range(steps)] for name, column in table.items()}
    percentiles = [np.percentile(table["distance"][ran[:, s], s], (10, 90)) for s in range(steps)]
    weight = np.where(ran, table["open"], 0.0)
    fed = {name: _number(np.sum(weight * np.nan_to_num(table[name])) / np.sum(weight)) for name in ("mixed", "alpha")}
    switch = np.percentile(np.nansum(table["refining"], axis=1), (10, 50, 90))
    return {
        "rows": ran.sum(axis=0).tolist(),
        **by_step,
        "distance_low": [_number(low) for low, _ in percentiles],
        "distance_high": [_number(high) for _, high in percentiles],
        "mixed_share": fed["mixed"],
        "mean_alpha": fed["alpha"],
        "switch": switch.tolist(),
    }


def _number(x) -> float | None:
    """Four digits, which a picture shows; None where there is no finite number."""
    return float(f"{x:.4g}") if np.isfinite(x) else None
