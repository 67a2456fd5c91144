"""An engine against static batches: a queue of mixed prompts answered by both, in turns.

static  batches of as many prompts as the engine has slots, sorted by length, each in one loop on the device
engine  the same prompts, all submitted at once
bare    `advance` alone at the engine's shapes: what a forward costs where the host asks for nothing
"""

import dataclasses
import itertools
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from lrd_jax.batching import batches
from lrd_jax.checkpoint import Loaded, load
from lrd_jax.decoding.config import DecodeConfig
from lrd_jax.decoding.loop import Decoder, make_decode
from lrd_jax.engine import Counts, Engine, Request
from lrd_jax.research.timing.comparison import Say, configs_of, machine_facts
from lrd_jax.research.timing.measure import Spread
from lrd_jax.research.timing.options import Bench
from lrd_jax.tasks import TASKS, problems
from lrd_jax.text import encode_text, left_pad, pad_to_bucket

DEFAULT_MODEL = "lrd-tiny-soft"
_BARE_BATCHES = 3


def run(options: Bench, say: Say = lambda words: None) -> dict[str, Any]:
    """Measures what the options ask for.

    Returns:
      A JSON-ready dict, see docs/engine.md.

    Raises:
      ValueError: an unknown decoder, or a model that cannot be had.
    """
    _, configs = configs_of(options)
    say("loading the model")
    options = dataclasses.replace(options, model=options.model or DEFAULT_MODEL)
    loaded = load(str(options.model), dtype=options.dtype)
    texts = mixed_prompts(options.requests, options.seed)
    return {
        "options": {**dataclasses.asdict(options), "reference": []},
        "machine": machine_facts(),
        "model": loaded.config.to_json(),
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(loaded.params)),
        "decoders": [_compare(name, config, loaded, texts, options, say) for name, config in configs.items()],
    }


def mixed_prompts(count: int, seed: int) -> list[str]:
    """Questions of all tasks and grades, in turns."""
    each = [problems(task, "held-out", seed, -(-count // len(TASKS))) for task in TASKS]
    return [problem.prompt for problem in itertools.chain(*zip(*each, strict=True))][:count]


def _compare(
    name: str, config: DecodeConfig, loaded: Loaded, texts: list[str], options: Bench, say: Say
) -> dict[str, Any]:
    decode = make_decode(loaded.model, config)
    rows = [encode_text(loaded.tokenizer, text) for text in texts]
    room = loaded.config.max_length - config.gen_length
    prompt_length = pad_to_bucket(*left_pad(rows, 0), room)[0].shape[1]
    say(f"compiling {name}")
    with Engine(loaded, config, slots=options.slots, prompt_length=prompt_length, queue=len(texts)) as engine:

        def through_engine() -> tuple[list[np.ndarray], Counts]:
            before = engine.counts
            handles = [engine.submit(Request(prompt=row)) for row in rows]
            canvases = [handle.result().canvas for handle in handles]
            return canvases, _since(before, engine.counts)

        runs: dict[str, Callable[[], tuple[Any, Any]]] = {
            "static": lambda: _static(decode, loaded, rows, options.slots),
            "engine": through_engine,
            "bare": lambda: _bare(decode, loaded, rows[: options.slots], prompt_length),
        }
        found, seconds = {kind: run() for kind, run in runs.items()}, {kind: [] for kind in runs}
        for turn, (kind, run) in itertools.product(range(options.repeats), runs.items()):
            say(f"run {turn + 1} of {options.repeats}: {name}, {kind}")
            began = time.perf_counter()
            found[kind] = run()
            seconds[kind].append(time.perf_counter() - began)
    answers, forwards = found["static"]
    canvases, counts = found["engine"]
    pace = [one / found["bare"][1] for one in seconds["bare"]]  # of a forward
    loop = [one / counts.forwards for one in seconds["engine"]]
    return {
        "decoder": name,
        "requests": len(texts),
        "slots": options.slots,
        "prompt_length": prompt_length,
        "same_tokens": all(np.array_equal(a, b) for a, b in zip(canvases, answers, strict=True)),
        "static_seconds": _spread(seconds["static"]),
        "engine_seconds": _spread(seconds["engine"]),
        "speedup": _spread([a / b for a, b in zip(seconds["static"], seconds["engine"], strict=True)]),
        "static_forwards": forwards,
        "engine_forwards": counts.forwards,
        "least_forwards": counts.rows / options.slots,
        "rounds": counts.rounds,
        "full": counts.rows / (counts.forwards * options.slots),
        "bare_seconds_per_forward": _spread(pace),
        "engine_seconds_per_forward": _spread(loop),
        "pace": _spread([a / b for a, b in zip(pace, loop, strict=True)]),
    }


def _static(decode: Decoder, loaded: Loaded, rows: list[list[int]], size: int) -> tuple[list[np.ndarray], int]:
    """The canvas of each prompt, and the forwards of all batches."""
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    room = loaded.config.max_length - decode.config.gen_length
    canvases, forwards = {}, 0
    for part, (indices, count) in zip(range(0, len(rows), size), batches(order, size), strict=True):
        prompt, mask = pad_to_bucket(*left_pad([rows[i] for i in indices], 0), room)
        result = jax.device_get(decode(loaded.params, prompt, mask))
        forwards += int(result.forwards.max())
        canvases |= dict(zip(order[part : part + count], result.tokens, strict=False))
    return [canvases[i] for i in range(len(rows))], forwards


def _bare(decode: Decoder, loaded: Loaded, rows: list[list[int]], prompt_length: int) -> tuple[None, int]:
    """The forwards of one batch, again and again, at the shapes of the engine."""
    prompt, mask = left_pad([*rows, [0] * prompt_length], 0)
    forwards = 0
    for _ in range(_BARE_BATCHES):
        state = decode.start(loaded.params, prompt[:-1], mask[:-1], length=np.full(len(rows), decode.config.gen_length))
        state = jax.block_until_ready(decode.advance(loaded.params, state, decode.config.step_limit))
        forwards += int(np.max(state.forwards))
    return None, forwards


def _since(before: Counts, after: Counts) -> Counts:
    names = ("rounds", "forwards", "rows", "seconds")
    return dataclasses.replace(after, **{name: getattr(after, name) - getattr(before, name) for name in names})


def _spread(values: list[float]) -> dict[str, float]:
    return dataclasses.asdict(Spread.of(values))
