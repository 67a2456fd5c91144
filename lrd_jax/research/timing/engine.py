"""An engine against static batches: a queue of mixed prompts answered by both, in turns.

static  batches of as many prompts as the engine has slots, sorted by length, each in one loop on the device
engine  the same prompts, all submitted at once, the longest first
steady  the engine with prompts of its longest length alone
bare    `advance` of a batch of those: what such a forward costs where the host asks for nothing
"""

import dataclasses
import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from lrd_jax.answer import Answer
from lrd_jax.batching import batches
from lrd_jax.checkpoint import Loaded, load
from lrd_jax.decoding.config import DecodeConfig
from lrd_jax.decoding.loop import Decoder, make_decode
from lrd_jax.engine import Counts, Engine, Request
from lrd_jax.research.timing.comparison import Say, configs_of, machine_facts
from lrd_jax.research.timing.measure import Spread
from lrd_jax.research.timing.options import DEFAULT_REQUESTS, DEFAULT_SLOTS, Bench
from lrd_jax.tasks import TASKS, problems
from lrd_jax.text import bucket_length, encode_text, left_pad, pad_to_bucket

DEFAULT_MODEL = "lrd-tiny-soft"
_BARE_BATCHES = 3
_ALL = 2**30  # forwards: more than any batch takes


def run(options: Bench, say: Say = lambda words: None) -> dict[str, Any]:
    """Measures what the options ask for.

    Returns:
      A JSON-ready dict, see docs/engine.md.

    Raises:
      ValueError: an unknown decoder, or a model that cannot be had.
    """
    _, configs = configs_of(options)
    say("loading the model")
    options = dataclasses.replace(
        options,
        model=options.model or DEFAULT_MODEL,
        requests=options.requests or DEFAULT_REQUESTS,
        slots=options.slots or DEFAULT_SLOTS,
    )
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
    rows.sort(key=len)
    room = loaded.config.max_length - config.gen_length
    lengths = sorted({bucket_length(len(row), room) for row in rows})
    longest = [row for row in rows if bucket_length(len(row), room) == lengths[-1]]
    say(f"compiling {name}")
    with Engine(loaded, config, slots=options.slots, prompt_length=lengths, queue=len(texts)) as engine:
        runs: dict[str, Callable[[], tuple[Any, Any]]] = {
            "static": lambda: (_static(decode, loaded, rows, options.slots), None),
            "engine": lambda: _through(engine, rows),
            "steady": lambda: _through(engine, longest),
            "bare": lambda: (_advanced(decode, loaded, bare, options.slots, _ALL), None),
        }
        bare = _BARE_BATCHES * longest[: options.slots]
        forwards, bare_forwards = (_advanced(decode, loaded, part, options.slots, 1) for part in (rows, bare))
        found, seconds = {kind: run() for kind, run in runs.items()}, {kind: [] for kind in runs}
        for turn, (kind, run) in itertools.product(range(options.repeats), runs.items()):
            say(f"run {turn + 1} of {options.repeats}: {name}, {kind}")
            began = time.perf_counter()
            found[kind] = run()
            seconds[kind].append(time.perf_counter() - began)
    answers, (asked, counts) = found["static"][0], found["engine"]
    own = sum(answer.forwards for answer in asked) / (1 if config.cfg_scale is None else 2)
    pace = [one / bare_forwards for one in seconds["bare"]]  # of a forward
    loop = [one / found["steady"][1].forwards for one in seconds["steady"]]
    return {
        "decoder": name,
        "requests": len(texts),
        "slots": options.slots,
        "prompt_lengths": lengths,
        "same_tokens": all(np.array_equal(a.canvas, b) for a, b in zip(asked, answers, strict=True)),
        "static_seconds": _spread(seconds["static"]),
        "engine_seconds": _spread(seconds["engine"]),
        "speedup": _spread([a / b for a, b in zip(seconds["static"], seconds["engine"], strict=True)]),
        "static_forwards": forwards,
        "engine_forwards": counts.forwards,
        "least_forwards": own / options.slots,
        "rounds": counts.rounds,
        "full": counts.rows / (counts.forwards * options.slots),
        "waited": 1 - own / counts.rows,
        "bare_seconds_per_forward": _spread(pace),
        "steady_seconds_per_forward": _spread(loop),
        "pace": _spread([a / b for a, b in zip(pace, loop, strict=True)]),
    }


def _through(engine: Engine, rows: list[list[int]]) -> tuple[list[Answer], Counts]:
    """The answer of each prompt, and what the engine did for them."""
    before = engine.counts
    handles = [engine.submit(Request(prompt=row)) for row in reversed(rows)]
    answers = [handle.result() for handle in reversed(handles)]
    return answers, _since(before, engine.counts)


def _batches(decode: Decoder, loaded: Loaded, rows: list[list[int]], size: int) -> Iterator[tuple[Any, Any, int]]:
    """Prompts and masks as batches, and how many rows of each are not filled up."""
    room = loaded.config.max_length - decode.config.gen_length
    for part, count in batches(rows, size):
        yield *pad_to_bucket(*left_pad(part, 0), room), count


def _static(decode: Decoder, loaded: Loaded, rows: list[list[int]], size: int) -> list[np.ndarray]:
    """The canvas of each prompt."""
    canvases = []
    for prompt, mask, count in _batches(decode, loaded, rows, size):
        canvases += list(jax.device_get(decode(loaded.params, prompt, mask)).tokens[:count])
    return canvases


def _advanced(decode: Decoder, loaded: Loaded, rows: list[list[int]], size: int, n: int) -> int:
    """Calls of `advance` by n forwards that it takes to decode all batches."""
    calls = 0
    for prompt, mask, _ in _batches(decode, loaded, rows, size):
        state = decode.start(loaded.params, prompt, mask, length=np.full(size, decode.config.gen_length))
        while np.any(state.running):
            state = decode.advance(loaded.params, state, n)
            calls += 1
    return calls


def _since(before: Counts, after: Counts) -> Counts:
    names = ("rounds", "forwards", "rows", "seconds")
    return dataclasses.replace(after, **{name: getattr(after, name) - getattr(before, name) for name in names})


def _spread(values: list[float]) -> dict[str, float]:
    return dataclasses.asdict(Spread.of(values))
