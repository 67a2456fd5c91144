"""What masked positions feed back, forward by forward, and the r_f at which refining no longer settles.

Distances are Euclidean, in the units of the embedding table. Axes: S forwards, B rows, W canvas, D embed.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lrd_jax.batching import filled
from lrd_jax.checkpoint import Loaded
from lrd_jax.decoding.config import DecodeConfig
from lrd_jax.decoding.loop import Decoder, Forward, make_decode
from lrd_jax.decoding.parts.commit.basic import LowestEntropy
from lrd_jax.decoding.parts.mix import Mix
from lrd_jax.decoding.parts.refine import Refine
from lrd_jax.pods import fetch
from lrd_jax.research.analyze.options import Analyze
from lrd_jax.research.record import decode_all
from lrd_jax.research.statistics import share
from lrd_jax.text import decode_text

# Of the distance between [MASK] and a token: movements below the first are rounding, rows that move by more than the
# second have not settled.
ROUNDING, SETTLED = 1e-6, 1e-3


def decode_trajectory(loaded: Loaded, config: DecodeConfig, prompt: np.ndarray, mask: np.ndarray) -> dict[str, Any]:
    """Means over the positions still masked of one batch, for answers and for the end-of-text after them apart.

    Each position is measured against the token that this very decode ends with there.
    """
    decoder = make_decode(loaded.model, config)
    final, _ = decode_all(decoder, loaded.params, prompt, mask, len(prompt))
    facts, masked = _walk(decoder, loaded, prompt, mask, final)
    is_end = np.isin(final, loaded.config.end_ids)
    kinds = {"text": masked & ~is_end, "end-of-text": masked & is_end}
    means = {name: {fact: _means(values, kind) for fact, values in facts.items()} for name, kind in kinds.items()}
    for name, kind in kinds.items():
        means[name]["masked"] = kind.sum(axis=(1, 2)).tolist()
    return {"scale": _scale(loaded, final), **means}


def sweep(
    options: Analyze,
    loaded: Loaded,
    prompt: np.ndarray,
    mask: np.ndarray,
    right: Callable[[int, str], bool] | None,
    report: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Refinement of a fixed length, then commits, at every r_f of the options, with one compile.

    A row contracts where its movements, root mean square over the canvas, shrink from forward to forward; the rate is
    their geometric mean ratio, up to where they are rounding. The first batch of rows is walked for that, all of them
    are decoded for the accuracy.

    Args:
      right: whether a text answers the prompt of a row; None where nothing tells.
    """
    config = DecodeConfig(
        options.gen_length,
        mix=Mix(),
        refine=Refine(tau=0.0, max_steps=options.refinements),
        commit=LowestEntropy(options.per_step),
        trace=True,
    )
    decoder = make_decode(loaded.model, config)
    walked = min(len(prompt), options.batch)
    first = filled(range(walked), options.batch)
    cells, without = [], None
    for r_f in options.r_f:
        at = config.replace(mix=Mix(r_f=r_f))
        final, _ = decode_all(decoder, loaded.params, prompt, mask, options.batch, at)
        texts = decode_text(loaded.tokenizer, final, loaded.config)
        without = texts if without is None else without
        cell = {"r_f": r_f, "unchanged": share(np.array([a == b for a, b in zip(texts, without, strict=True)]))}
        if right is not None:
            cell["accuracy"] = share(np.array([right(row, text) for row, text in enumerate(texts)]))
        cell |= _refinement(decoder, loaded, at, prompt[first], mask[first], final[first], walked)
        cells.append(cell)
        rate = cell["contraction"]["median"]
        report(f"r_f {r_f:g}: movements shrink by {'rounding at once' if rate is None else format(rate, '.2f')}")
    return cells


def _refinement(
    decoder: Decoder, loaded: Loaded, config: DecodeConfig, prompt, mask, final, rows: int
) -> dict[str, Any]:
    """One batch walked through its refinement: means over the canvas by forward, and how rows contract."""
    facts, _ = _walk(decoder, loaded, prompt, mask, final, config)
    facts = {fact: values[: config.refine.max_steps, :rows] for fact, values in facts.items()}
    everywhere = np.ones(facts["norm"].shape, bool)
    scale = _scale(loaded, final)
    moved = np.sqrt((facts["moved"] ** 2).mean(axis=-1))  # [S, B]
    rates = np.array([contraction(row, ROUNDING * scale["mask_to_token"]) for row in moved.T])
    known = rates[np.isfinite(rates)]
    return {
        **{fact: _means(values, everywhere) for fact, values in facts.items()},
        "moved_rows": np.quantile(moved, (0.25, 0.5, 0.75), axis=-1).tolist(),
        "contraction": {
            "median": float(np.median(known)) if len(known) else None,
            "highest": float(known.max()) if len(known) else None,
            "rows": len(known),
            "unsettled": share(moved[-1] > SETTLED * scale["mask_to_token"]),
        },
    }


def contraction(moved: np.ndarray, still: float) -> float:
    """Geometric mean ratio of successive movements `[S]` of one row, from the second on and while above `still`.

    The first movement, away from [MASK], is r_f's own doing and left out. NaN with fewer than two left.
    """
    moved = moved[1:]
    small = np.flatnonzero(moved <= still)
    moved = moved[: small[0]] if len(small) else moved
    return float((moved[-1] / moved[0]) ** (1 / (len(moved) - 1))) if len(moved) > 1 else float("nan")


def _walk(decoder: Decoder, loaded: Loaded, prompt, mask, final: np.ndarray, config: DecodeConfig | None = None):
    """What each forward is fed, against the final tokens `[B, W]`: facts and masked positions `[S, B, W]`."""
    result, facts = fetch(decoder.watch(_look, loaded.params, prompt, mask, config=config, args=(jnp.asarray(final),)))
    steps = result.forwards.max()
    facts["kl"] = np.broadcast_to(result.trace.divergence[:, :, None], facts["masked"].shape)
    facts = {name: column.swapaxes(0, 1)[:steps] for name, column in facts.items()}
    return facts, facts.pop("masked")


def _look(forward: Forward, final: jax.Array) -> dict[str, jax.Array]:
    """`[B, W]` each: masked positions; distances of what they feed this forward, and of the way to the next one."""
    model, before = forward.model, forward.before
    table, soft, after = (x.astype(jnp.float32) for x in (model.table(forward.params), before.soft, forward.after.soft))

    def length(x):
        return jnp.sqrt(jnp.sum(x * x, axis=-1))

    return {
        "masked": before.masked,
        "to_mask": length(soft - table[model.config.mask_id]),
        "to_token": length(soft - table[final]),
        "norm": length(soft),
        "moved": length(after - soft),
    }


def _scale(loaded: Loaded, final: np.ndarray) -> dict[str, float]:
    """What to hold distances against: the norm of [MASK], the mean norm of the final tokens, and the way between."""
    table = np.asarray(fetch(loaded.model.table(loaded.params)), np.float32)
    tokens, mask = table[final], table[loaded.config.mask_id]
    return {
        "mask_norm": float(np.linalg.norm(mask)),
        "token_norm": float(np.linalg.norm(tokens, axis=-1).mean()),
        "mask_to_token": float(np.linalg.norm(tokens - mask, axis=-1).mean()),
    }


def _means(values: np.ndarray, where: np.ndarray) -> list[float | None]:
    """Mean of values `[S, B, W]` over each forward's chosen ones; None where there are none or they are infinite."""
    means = []
    for value, chosen in zip(values, where, strict=True):
        mean = float(value[chosen].mean()) if chosen.any() else float("nan")
        means.append(mean if np.isfinite(mean) else None)
    return means
