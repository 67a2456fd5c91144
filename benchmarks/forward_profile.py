"""Where the time of a plain step goes, beside the fastest product that the machine was seen to compute.

    python benchmarks/forward_profile.py                      # V 126464, the model of step_cost.py
    python benchmarks/forward_profile.py --vocab-size 1024

A step is timed in the loop of a decode. The parts are timed by themselves, in a loop as well, where buffers are used
again as they are in a decode: the products of the blocks, attention and the head. Norms, rotations, gates, reading the
beliefs and committing are what is left. All take turns with square products, the fastest of which is the machine's
peak.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from step_cost import Sizes, build

from lrd_jax import DecodeConfig, make_decode
from lrd_jax.decoding.compiling import PlatformJit, compiler_options
from lrd_jax.decoding.loop import run_advance
from lrd_jax.models.attention import attention
from lrd_jax.models.quantized import MATRICES
from lrd_jax.research.timing.measure import in_turns

SIDES = (1024, 1536, 2048)
NOTHING = jnp.float32(0)


def again_and_again(part, times: int):
    """`part(zero, *args)` so often in one program, each waiting for the one before."""

    def run(*args):
        def once(_, zero):
            return 1e-30 * jax.lax.optimization_barrier(part(zero, *args)).ravel()[0]

        return jax.lax.fori_loop(0, times, once, NOTHING)

    return jax.jit(run, compiler_options=compiler_options(jax.default_backend()))


def products(rows: int):
    """The products of every block, of so many rows."""

    def part(zero, blocks):
        def block(zero, kernels):
            for name, contracted in MATRICES.items():
                inner = math.prod(kernels[name].shape[:contracted])
                out = (jnp.full((rows, inner), 0.5) + zero) @ kernels[name].reshape(inner, -1)
                zero = 1e-30 * jax.lax.optimization_barrier(out)[0, 0]
            return zero, None

        return jax.lax.scan(block, zero, {name: blocks[name] for name in MATRICES})[0]

    return part


def attentions(zero, queries, keys, values):
    """Attention of every block: `[layers, B, L, N, H]` each."""
    mask = jnp.ones((queries.shape[1], 1, queries.shape[2]), bool)

    def block(zero, one):
        return 1e-30 * attention(one[0] + zero, *one[1:], mask)[0, 0, 0, 0], None

    return jax.lax.scan(block, zero, (queries, keys, values))[0]


def main(sizes: Sizes) -> None:
    model, params, prompt = build(sizes)
    config, steps = model.config, sizes.steps
    B, G, L = sizes.batch, sizes.gen_length, sizes.prompt_length + sizes.gen_length
    heads = (config.num_layers, B, L, config.num_heads, config.head_dim)
    q, k, v = (jax.random.normal(key, heads) for key in jax.random.split(jax.random.key(2), 3))
    hidden = jax.random.normal(jax.random.key(3), (B, G, config.embed_dim))
    squares = [jax.random.normal(jax.random.key(4), (side, side)) for side in SIDES]

    decode = make_decode(model, DecodeConfig.plain(G))
    advance = PlatformJit(run_advance.__wrapped__)  # that leaves its state, to begin there again
    state = decode.advance(params, decode.start(params, prompt), 2)
    parts = {
        "products of the blocks": (products(B * L), (params["blocks"],)),
        "attention": (attentions, (q, k, v)),
        "head": (lambda zero, params, hidden: model.logits(params, hidden + zero), (params, hidden)),
    }
    flops = {
        "products of the blocks": 2 * B * L * sum(params["blocks"][name].size for name in MATRICES),
        "attention": 4 * math.prod(heads) * L,
        "head": 2 * hidden.size * config.vocab_size,
    }
    runs = {
        "step": functools.partial(advance, decode.model, params, state, jnp.int32(steps), decode.config),
    }
    for square in squares:
        runs[f"square {len(square)}"] = functools.partial(
            again_and_again(lambda zero, a: (a + zero) @ a, steps), square
        )
    runs |= {name: functools.partial(again_and_again(part, steps), *args) for name, (part, args) in parts.items()}
    ms = {name: 1e3 * float(np.median(taken)) / steps for name, taken in in_turns(runs, sizes.repeats).items()}

    peak = max(2 * side**3 / ms[f"square {side}"] for side in SIDES)  # operations per ms
    print(f"{sizes}; jax {jax.__version__}, {jax.devices()}; peak {1e-6 * peak:.0f} GFLOP/s")
    rest = ms["step"] - sum(ms[name] for name in parts)
    lines = [("plain step", ms["step"], sum(flops.values())), *((name, ms[name], flops[name]) for name in parts)]
    for name, taken, done in lines:
        print(f"{name:24} {taken:7.1f} ms {taken / ms['step']:5.0%} {done / taken / peak:5.0%} of the peak")
    print(f"{'the rest':24} {rest:7.1f} ms {rest / ms['step']:5.0%}")


if __name__ == "__main__":
    main(tyro.cli(Sizes, description=__doc__))
