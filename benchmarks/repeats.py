"""Is the same call the same answer, bit for bit, and are sums and products right, with every set of CPU fusions?

    python benchmarks/repeats.py                              # every setting, ten minutes
    python benchmarks/repeats.py --minutes 60 --load 4 --threads 16

Every setting is a process of its own, since threads and optimisation levels are a process's: fusions that XLA's CPU
backend hands to its library, threads of its pool (0: one a core; 1: on one core), optimisation level. Two kinds of
work take turns in it until its time is over:

- Decodes of several rows, plain, LRD and fast, whole and in blocks with both caches. Every array of the final state is
  compared with the first run's: tokens, masks, traces of every forward, last logits, keys and values. Programs are
  compiled anew every so often.
- Operations of a forward and of a reading at random sizes, and the faulty one of jax#39103, compared with float64.

Exits 1 where anything differed or was wrong.
"""

import dataclasses
import functools
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import tyro

_FUSIONS = "xla_cpu_experimental_ynn_fusion_type"
FUSIONS = {
    "default": {},  # what XLA does unasked: products are fused with what reads them
    "products, reductions": {_FUSIONS: "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE"},
    "products": {_FUSIONS: "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"},
    "none": {_FUSIONS: ""},
}
FusionName = Literal["default", "products, reductions", "products", "none"]
TOLERANCE = 1e-4  # of the largest value that is wanted: rounding is a hundred times less, a fault far more


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What is tried, and for how long."""

    minutes: float = 10.0
    """For all settings together."""
    fusions: tuple[FusionName, ...] = tuple(FUSIONS)
    threads: tuple[int, ...] = (0, 1, 4, 16)
    levels: tuple[int, ...] = (0, 3)
    """Of optimisation; tests compile at 0, users at 3."""
    devices: int = 1
    """Simulated devices of the process; tests have 8."""
    load: int = 0
    """Busy processes beside each."""
    fresh: int = 20
    """Decodes from one compile; each kind is compiled anew when its turn comes again."""
    golden: Path = Path(__file__).parents[1] / "tests" / "golden"
    """Where the tiny checkpoints lie."""
    setting: str | None = None
    """Used by the script itself: run this one, as JSON."""


@dataclasses.dataclass(frozen=True)
class Setting:
    """What a process fixes when it starts."""

    fusions: str
    threads: int
    level: int

    def environment(self) -> dict[str, str]:
        flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level={self.level}"
        pool = {"NPROC": str(self.threads)} if self.threads else {}
        return {**os.environ, **pool, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}


@dataclasses.dataclass
class Count:
    """What one setting saw."""

    decodes: int = 0
    compiles: int = 0
    differing: int = 0
    operations: int = 0
    wrong: int = 0
    found: list[str] = dataclasses.field(default_factory=list)


def repeated(options: Options) -> Iterator[tuple[str, Callable[[], dict[str, np.ndarray]]]]:
    """Decodes by name; each gives every array of its final state."""
    import jax

    import lrd_jax
    from lrd_jax import DecodeConfig, DualCache, PrefixCache, make_decode

    rng = np.random.default_rng(0)

    def run(decode, params, ids, mask):
        state = decode.advance(params, decode.start(params, ids, mask), 1_000_000)
        leaves = jax.tree_util.tree_leaves_with_path(jax.device_get(state))
        return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}

    blocks = {"block_length": 8}
    configs = {
        "plain": DecodeConfig.plain(32, trace=True),
        "lrd": DecodeConfig.lrd(32, trace=True),
        "lrd, dual": DecodeConfig.lrd(32, trace=True, cache=DualCache(), **blocks),
        "fast, prefix": DecodeConfig.fast(32, trace=True, cache=PrefixCache(), **blocks),
        "plain, dual": DecodeConfig.plain(32, trace=True, cache=DualCache(), **blocks),
    }
    for name in ("tiny-llada-gqa", "tiny-dream", "lrd-tiny"):
        loaded = lrd_jax.load(name if name == "lrd-tiny" else options.golden / name)
        ids = rng.integers(0, 200, (5, 9))
        mask = np.arange(9) >= np.array([0, 2, 5, 8, 1])[:, None]
        for decoder, config in configs.items():
            yield (
                f"{name}, {decoder}",
                functools.partial(run, make_decode(loaded.model, config), loaded.params, ids, mask),
            )


def squares_of_products(rng):
    """jax#39103: a matrix times many vectors, squared and summed."""
    import jax
    import jax.numpy as jnp

    rows = int(rng.choice([rng.integers(1, 1000), 128 * rng.integers(1, 600) + rng.integers(-1, 2)]))
    inner, outer = rng.choice([3, 3, rng.integers(2, 9)]), rng.choice([3, 3, rng.integers(2, 9)])
    x, matrix = normal(rng, rows, inner), normal(rng, outer, inner)
    want = np.sum((x.astype(float) @ matrix.astype(float).T) ** 2, axis=1)
    return lambda x, m: jax.vmap(lambda row: jnp.sum((m @ row) ** 2))(x), (x, matrix), want


def norms(rng):
    from lrd_jax.models.transformer import rms_norm

    width = int(rng.choice([64, 32, rng.integers(1, 600)]))
    x, kernel = normal(rng, *few(rng, width), width), normal(rng, width, width)
    h = x.astype(float) @ kernel.astype(float) + x
    want = h / np.sqrt(np.mean(h**2, axis=-1, keepdims=True) + 1e-5)
    return lambda x, kernel: rms_norm(x @ kernel + x, np.float32(1.0), 1e-5), (x, kernel), want


def attentions(rng):
    from lrd_jax.models.attention import attention

    groups, kv, head = (int(rng.integers(1, n)) for n in (4, 4, 40))
    B, T, S = int(rng.integers(1, 7)), int(rng.integers(1, 130)), int(rng.integers(1, 300))
    q, k, v = normal(rng, B, T, groups * kv, head), normal(rng, B, S, kv, head), normal(rng, B, S, kv, head)
    mask = rng.random((B, 1, S)) < 0.8
    mask[:, :, rng.integers(S)] = True
    wide_k, wide_v = (np.repeat(x, groups, axis=2).astype(float) for x in (k, v))
    scores = np.einsum("BTNH,BSNH->BNTS", q.astype(float), wide_k) * head**-0.5
    weights = np.exp(np.where(mask[:, None], scores, -np.inf) - np.max(scores, axis=-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return attention, (q, k, v, mask), np.einsum("BNTS,BSNH->BTNH", weights, wide_v)


def readings(rng):
    """Confidences, entropies, KLs and argmax, from hidden states."""
    import jax.numpy as jnp

    from lrd_jax.decoding.vocab import belief as beliefs

    vocab, width = int(rng.choice([384, 8193, 20_000, rng.integers(2, 3000)])), int(rng.choice([1, 8, 64]))
    hidden, before, head = (normal(rng, *few(rng, vocab), width), normal(rng, width, vocab), normal(rng, width, vocab))

    def read(hidden, before, head):
        now, then = hidden @ head, hidden @ before
        belief = beliefs.read(now)
        kl = beliefs.kl(now, belief.log_z, then, beliefs.log_z(then))
        chosen = jnp.take_along_axis(now, belief.token[..., None], axis=-1)[..., 0]
        return jnp.stack([belief.confidence, belief.entropy, belief.log_z, kl, chosen])

    def logs(kernel):
        x = hidden.astype(float) @ kernel.astype(float)
        top = x.max(-1, keepdims=True)
        log_z = top + np.log(np.sum(np.exp(x - top), axis=-1, keepdims=True))
        return x, x - log_z, log_z[..., 0]

    (x, log_p, log_z), (_, log_q, _) = logs(head), logs(before)
    p = np.exp(log_p)
    want = [p.max(-1), -np.sum(p * log_p, -1), log_z, np.sum(p * (log_p - log_q), -1), x.max(-1)]
    return read, (hidden, before, head), np.stack(want)


OPERATIONS = (squares_of_products, norms, attentions, readings)


def normal(rng, *shape) -> np.ndarray:
    return rng.standard_normal(shape, np.float32)


def few(rng, width: int) -> tuple[int, int]:
    """Rows and positions, at most 2^22 numbers of that width; now and then more than 32,768 positions."""
    most = max(1, 2**22 // width)
    total = int(np.exp(rng.uniform(0, np.log(min(most, 70_000)))))
    rows = int(rng.integers(1, min(9, total) + 1))
    return rows, max(1, total // rows)


def unequal(got: dict[str, np.ndarray], want: dict[str, np.ndarray]) -> list[str]:
    """Names of the arrays that are not equal bit for bit."""
    return [name for name in want if got[name].tobytes() != want[name].tobytes()]


def run_setting(options: Options, setting: Setting, seconds: float) -> Count:
    """Works until the time is over, inside the process that is set so."""
    if setting.threads == 1:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    import jax

    from lrd_jax.decoding import compiling

    jax.config.update("jax_num_cpu_devices", options.devices)
    jax.config.update("jax_enable_compilation_cache", False)
    compiling.CPU = FUSIONS[setting.fusions]
    ends, count, rng = time.monotonic() + seconds, Count(), np.random.default_rng(1)
    decodes, first = list(repeated(options)), {}
    for name, decode in itertools.cycle(decodes):
        jax.clear_caches()
        count.compiles += 1
        for _ in range(options.fresh):
            got = decode()
            count.decodes += name in first
            if differing := unequal(got, first.setdefault(name, got)):
                count.differing += 1
                count.found.append(f"{name}, compile {count.compiles}: {', '.join(differing)}")
        for operation in OPERATIONS:
            function, args, want = operation(rng)
            out = np.asarray(jax.jit(function, compiler_options=FUSIONS[setting.fusions])(*args))
            count.operations += 1
            wrong = ~(np.abs(out - want) <= TOLERANCE * (1 + np.max(np.abs(want))))
            if wrong.any():
                count.wrong += 1
                shapes = " ".join(str(x.shape) for x in args)
                count.found.append(f"{operation.__name__} of {shapes}: {wrong.sum()} of {wrong.size} values")
            if time.monotonic() > ends:
                return count


def started(options: Options, setting: Setting) -> Count:
    """`run_setting` in a process of its own, with the load beside it."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(options.load)]
    try:
        asked = ["--setting", json.dumps(dataclasses.asdict(setting))]
        done = subprocess.run(
            [sys.executable, __file__, *sys.argv[1:], *asked],
            env=setting.environment(),
            stdout=subprocess.PIPE,
            text=True,
        )
    finally:
        for process in busy:
            process.kill()
            process.wait()
    if done.returncode:
        return Count(differing=1, found=[f"ended with status {done.returncode}"])
    return Count(**json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    settings = [Setting(f, t, level) for f in options.fusions for t in options.threads for level in options.levels]
    seconds = 60 * options.minutes / len(settings)
    if options.setting is not None:
        count = run_setting(options, Setting(**json.loads(options.setting)), seconds)
        print(json.dumps(dataclasses.asdict(count)))
        return
    from importlib.metadata import version

    print(
        f"jaxlib {version('jaxlib')}, {os.cpu_count()} cores, {seconds:.0f} s a setting, {options.load} busy beside it"
    )
    print("fusions                threads  level  repeats  compiles  differing  operations  wrong")
    bad = False
    for setting in settings:
        c = started(options, setting)
        bad |= bool(c.differing or c.wrong)
        print(
            f"{setting.fusions:22} {setting.threads or 'cores':>7}  {setting.level:5}  {c.decodes:7}  {c.compiles:8}  "
            f"{c.differing:9}  {c.operations:10}  {c.wrong:5}",
            flush=True,
        )
        for line in c.found[:20]:
            print(f"    {line}", flush=True)
    sys.exit(bad)


if __name__ == "__main__":
    main()
