"""What one step of a decode costs beside the forward that it cannot do without, as ratios within one run.

    python benchmarks/step_cost.py                    # V 126464, beliefs as peaked as a trained model's
    python benchmarks/step_cost.py --beliefs flat
    python benchmarks/step_cost.py --vocab-size 1024

The forward is jitted by itself: hidden states of prompt and canvas, logits of the window. A step is that forward plus
reading the beliefs, committing and mixing, timed as `Decoder.advance` by a few forwards in one loop. Forward and steps
are timed in turn, the medians compared.
"""

import dataclasses
import functools
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from lrd_jax import DecodeConfig, LowestEntropy, Mix, Refine, make_decode
from lrd_jax.decoding.compiling import PlatformJit, compiler_options
from lrd_jax.decoding.loop import run_advance
from lrd_jax.decoding.vocab.nucleus import in_nucleus
from lrd_jax.models import Model, positions_of
from lrd_jax.research.timing.measure import in_turns
from lrd_jax.research.timing.sizes import sized


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sizes:
    """The model, with random weights, and what is decoded."""

    vocab_size: int = 126464
    embed_dim: int = 512
    num_layers: int = 8
    num_heads: int = 8
    mlp_dim: int = 1376
    dtype: Literal["float32", "bfloat16"] = "float32"
    batch: int = 1
    prompt_length: int = 128
    gen_length: int = 128
    beliefs: Literal["peaked", "flat"] = "peaked"
    """Peaked: the head is scaled until the mean nucleus at top_p 0.9 is about 50 tokens. Flat: it is left as drawn."""
    logit_chunk: int | None = None
    """As in DecodeConfig."""
    steps: int = 4
    """Forwards in one timed loop."""
    repeats: int = 15


def build(sizes: Sizes):
    """The model, its parameters and a prompt."""
    fields = ("vocab_size", "embed_dim", "num_layers", "num_heads", "mlp_dim")
    config = sized("small", **{field: getattr(sizes, field) for field in fields})
    model = Model(config)
    params = model.init(jax.random.key(0), jnp.dtype(sizes.dtype))
    prompt = jax.random.randint(jax.random.key(1), (sizes.batch, sizes.prompt_length), 1, sizes.vocab_size - 1)
    return model, params, prompt


def forward_of(model: Model, sizes: Sizes):
    """The bare forward: float32 logits of the canvas, all of it masked."""

    def forward(params, prompt):
        canvas = jnp.full((prompt.shape[0], sizes.gen_length), model.config.mask_id)
        ids = jnp.concatenate([prompt, canvas], axis=1)
        mask = jnp.ones(ids.shape, bool)
        hidden = model.hidden(params, model.embed(params, ids), positions_of(mask), mask)
        return model.logits(params, hidden[:, sizes.prompt_length :])

    return jax.jit(forward, compiler_options=compiler_options(jax.default_backend()))


def sharpened(params, logits: jax.Array, tokens: float = 50.0):
    """The parameters with the head scaled until the mean nucleus of the logits holds so many tokens."""
    size = jax.jit(lambda scale: jnp.mean(jnp.sum(in_nucleus(jax.nn.softmax(logits[:, ::8] * scale), 0.9), axis=-1)))
    low, high = 1.0, 1e4
    for _ in range(30):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if size(middle) > tokens else (low, middle)
    return {**params, "head": (params["head"] * low).astype(params["head"].dtype)}, float(size(low))


def main(sizes: Sizes) -> None:
    model, params, prompt = build(sizes)
    forward = forward_of(model, sizes)
    nucleus = "as drawn"
    if sizes.beliefs == "peaked":
        params, size = sharpened(params, forward(params, prompt))
        nucleus = f"mean nucleus {size:.0f} tokens"
    common = {"logit_chunk": sizes.logit_chunk}
    decoders = {
        "plain step": DecodeConfig.plain(sizes.gen_length, **common),
        "LRD step": DecodeConfig(
            sizes.gen_length, mix=Mix(), refine=Refine(tau=0.0, max_steps=10_000), commit=LowestEntropy(), **common
        ),
    }
    advance = PlatformJit(run_advance.__wrapped__)  # that leaves its state, to begin there again
    runs = {"forward": lambda: forward(params, prompt)}
    for name, config in decoders.items():
        decode = make_decode(model, config)
        # Past a block's first forward, where soft embeddings and a previous belief are at work.
        state = decode.advance(params, decode.start(params, prompt), 2)
        steps = jnp.int32(sizes.steps)
        runs[name] = functools.partial(advance, decode.model, params, state, steps, decode.config)
    forwards = {name: 1 if name == "forward" else sizes.steps for name in runs}
    seconds = {name: np.array(taken) / forwards[name] for name, taken in in_turns(runs, sizes.repeats).items()}
    print(f"{sizes}; {nucleus}; jax {jax.__version__}, {jax.devices()}")
    base = seconds["forward"]
    for name, taken in seconds.items():
        low, ratio, high = np.percentile(taken / base, [25, 50, 75])
        print(
            f"{name:12} {1e3 * np.median(taken):8.1f} ms   {np.median(taken) / np.median(base):5.2f}x of the medians   "
            f"{ratio:5.2f}x in turn (quartiles {low:.2f} to {high:.2f})"
        )


if __name__ == "__main__":
    main(tyro.cli(Sizes, description=__doc__))
