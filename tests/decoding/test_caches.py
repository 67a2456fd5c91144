"""The caches: Fast-dLLM's runs call by call, LRD on cached keys and values against the slow twin, rows in batches."""

import goldens
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import twin
from jax.sharding import PartitionSpec
from padding import padded
from quick import some_quick
from twin_model import TwinModel

from lrd_jax import (
    CommitRule,
    DecodeConfig,
    Draw,
    Dream,
    DualCache,
    FirstThen,
    LowestEntropy,
    Mix,
    PrefixCache,
    Refine,
    Scheduled,
    Stop,
    StopReason,
    Threshold,
    make_decode,
)
from lrd_jax.decoding.forward import embed
from lrd_jax.decoding.parts.commit.rule import best
from lrd_jax.decoding.parts.commit.schedule import dream_fractions, llada_count
from lrd_jax.decoding.request import check_request
from lrd_jax.decoding.setting import array, choice, number, setting
from lrd_jax.decoding.sight import Change
from lrd_jax.decoding.start import init_state
from lrd_jax.decoding.step import step
from lrd_jax.models import KeyValues, Model, positions_of
from lrd_jax.sharding import constrain_cache, make_mesh, shard, shard_batch

pytestmark = [pytest.mark.usefixtures("users_compiler"), pytest.mark.slow]
CACHES = {"prefix": PrefixCache(), "dual": DualCache()}
FAMILIES = ("tiny-llada-gqa", "tiny-dream")


def random_prompts(seed, lengths):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 300, n) for n in lengths]


def canvases_by_row(decode, params, ids, mask):
    """Decodes forward by forward: the last state, and each row's canvas after each of its own forwards."""
    state = decode.start(params, ids, mask)
    rows = [[] for _ in ids]
    while bool(jnp.any(state.running)):
        before, state = np.array(state.forwards), decode.advance(params, state)
        for row in np.flatnonzero(np.asarray(state.forwards) > before):
            rows[row].append(np.asarray(state.tokens[row]))
    return state, rows


def cached_runs():
    """Keys of the cached reference runs, by what they have in common: checkpoint, cache, block length."""
    groups = {}
    for key, run in goldens.reference_runs().items():
        if (cache := goldens.cache_of(key)) is not None:
            groups.setdefault((run["checkpoint"], cache[0], run["params"]["block_length"]), []).append(key)
    return groups


@setting
class RecordedRule(CommitRule):
    """The reference's rule of every row, as data: runs that differ in rule and prompt are the rows of one batch."""

    counts: jax.Array = array()  # [B, commits] tokens of each commit of a block; -1: the threshold decides
    threshold: jax.Array = number()
    order: str = choice("confidence", "entropy", default="confidence")

    @property
    def reads(self):
        return frozenset({"filtered"} if self.order == "entropy" else ())

    def __call__(self, sight, state):
        last = self.counts.shape[1] - 1
        count = self.counts[jnp.arange(len(self.counts)), jnp.minimum(sight.commits, last)]
        score = -sight.proposal.entropy if self.order == "entropy" else sight.proposal.confidence
        sure, _ = Threshold(self.threshold)(sight, ())
        return Change(jnp.where(count[:, None] < 0, sure.commit, best(score, sight.masked, count))), state


def recorded_counts(params, G):
    """Tokens that each commit of a block takes, `[G + 1]`."""
    W = params["block_length"]
    if params["threshold"] is not None:
        return np.full(G + 1, -1)
    steps = params["steps"] * W // G
    if "fn" in params:
        counts = llada_count(W, steps, np.arange(steps)).tolist()
    else:
        counts = [1]  # Dream's full forward commits the first position
        for fraction in dream_fractions(steps)[1:]:
            counts.append(int(np.float32(W - sum(counts)) * fraction))
    return np.array(counts + [1] * (G + 1))[: G + 1]


@pytest.mark.parametrize("group", some_quick(cached_runs(), 1), ids=lambda group: "-".join(map(str, group)))
def test_fast_dllm(checkpoint, group):
    """Every call of every run, as rows of a batch that the reference could not have run."""
    name, cache, block_length = group
    keys = cached_runs()[group]
    runs = [goldens.reference_runs()[key] for key in keys]
    G = goldens.canvases(keys[0]).shape[-1]
    rule = RecordedRule(
        np.stack([recorded_counts(run["params"], G) for run in runs]),
        np.array([run["params"]["threshold"] or 0.0 for run in runs], np.float32),
        "entropy" if name == "tiny-dream" else "confidence",
    )
    rule = FirstThen(rule) if name == "tiny-dream" else rule
    top_k = 50 if name == "tiny-dream" else None  # transformers' default, which the runs in blocks left alone
    model, params = checkpoint(name)
    config = DecodeConfig(
        G, block_length=block_length, commit=rule, cache=CACHES[cache], draw=Draw(top_k=top_k), suppress_mask=False
    )
    decode = make_decode(model, config)
    state, rows = canvases_by_row(decode, params, *padded([goldens.prompts(key)[0][0] for key in keys]))
    for key, run, canvases, forwards in zip(keys, runs, rows, state.forwards.tolist(), strict=True):
        empty = goldens.empty_calls(key)
        np.testing.assert_array_equal(canvases, goldens.canvases(key)[1:, 0][~empty], err_msg=key)
        assert forwards == run["nfe"] - empty.sum(), key


def first_run(checkpoint, **params):
    """The key of the first cached run of a checkpoint with these parameters."""
    runs = goldens.reference_runs()
    return next(
        key
        for key, run in runs.items()
        if goldens.cache_of(key) and run["checkpoint"] == checkpoint and params.items() <= run["params"].items()
    )


@pytest.mark.parametrize(("name", "top_k"), [("tiny-llada", None), ("tiny-dream", 50)])
def test_fast_dllm_with_the_rules_themselves(checkpoint, name, top_k):
    key = first_run(name, threshold=None)
    run, want = goldens.reference_runs()[key]["params"], goldens.canvases(key)[-1]
    rule = Scheduled(run["steps"]) if name == "tiny-llada" else FirstThen(Dream("entropy", run["steps"]))
    model, params = checkpoint(name)
    config = DecodeConfig(
        want.shape[-1],
        block_length=run["block_length"],
        commit=rule,
        cache=CACHES[goldens.cache_of(key)[0]],
        draw=Draw(top_k=top_k),
        suppress_mask=False,
    )
    result = make_decode(model, config)(params, goldens.prompts(key)[0])
    np.testing.assert_array_equal(result.tokens, want)
    assert result.forwards.tolist() == [goldens.reference_runs()[key]["nfe"] - goldens.empty_calls(key).sum()]
    assert result.stop_reason.tolist() == [StopReason.FINISHED]


def test_a_refresh_that_completes_a_block_is_its_only_forward(checkpoint):
    """Fast-dLLM makes an empty call after it, for the same tokens: two calls a block."""
    key = first_run("tiny-llada", threshold=0.01)
    run, want = goldens.reference_runs()[key], goldens.canvases(key)[-1]
    model, params = checkpoint("tiny-llada")
    blocks = want.shape[-1] // run["params"]["block_length"]
    config = DecodeConfig.fast(
        want.shape[-1],
        threshold=0.01,
        block_length=run["params"]["block_length"],
        cache=CACHES[goldens.cache_of(key)[0]],
        suppress_mask=False,
    )
    result = make_decode(model, config)(params, goldens.prompts(key)[0])
    np.testing.assert_array_equal(result.tokens, want)
    assert (result.forwards.tolist(), run["nfe"]) == ([blocks], 2 * blocks)


@pytest.mark.parametrize("name", some_quick(["tiny-llada", "tiny-llada-gqa", "tiny-dream"], 1))
@pytest.mark.usefixtures("strict_dtypes")
def test_window_forwards_are_the_references(checkpoint, name):
    model, params = checkpoint(name, "float32")
    stored = goldens.arrays(f"{name}.forward")
    old, new = (model.embed(params, stored[f"cache.{ids}"]) for ids in ("input_ids", "new_ids"))
    L, (start, stop) = old.shape[1], stored["cache.block"].tolist()
    place = np.arange(L)
    positions = positions_of(np.ones((1, L), bool))

    @jax.jit
    def windows(params):
        _, cache = model.hidden_and_cache(params, old, positions, jnp.ones((1, L), bool))
        logits = {}
        for kind, end in (("prefix", L), ("dual", stop)):
            kept = (place < start) | (place >= end)
            mask = np.concatenate([kept, np.ones(end - start, bool)])[None]
            part = slice(start, end)
            hidden, _ = model.hidden_and_cache(params, new[:, part], positions[:, part], mask, cache)
            logits[kind] = model.logits(params, hidden)
        return logits

    for kind, got in windows(params).items():
        np.testing.assert_allclose(got, stored[f"cache.{kind}_logits"], atol=2e-4)


# Each: the checkpoint, the canvas, the prompts' lengths, settings of the loop and of the twin.
LRD = {"mix": Mix(), "refine": Refine(0.2, 4), "stop": Stop(0.05)}
TWIN_LRD = {"mix": (0.15, 0.9), "refine": (0.2, 4, "block"), "stop": (0.05,)}
CASES = {
    "prefix": (
        "tiny-llada-gqa",
        8,
        (9, 1, 5),
        {**LRD, "cache": PrefixCache()},
        {**TWIN_LRD, "cache": ("prefix", None)},
    ),
    "prefix, refreshed every 3": (
        "tiny-dream",
        12,
        (9, 1, 5),
        {**LRD, "cache": PrefixCache(3)},
        {**TWIN_LRD, "cache": ("prefix", 3)},
    ),
    "dual, refreshed every 2": (
        "tiny-llada-gqa",
        12,
        (9, 1, 5),
        {**LRD, "cache": DualCache(2)},
        {**TWIN_LRD, "cache": ("dual", 2)},
    ),
    "dual": ("tiny-dream", 12, (9, 1, 5), {**LRD, "cache": DualCache()}, {**TWIN_LRD, "cache": ("dual", None)}),
    "a refresh every forward is no cache": (
        "tiny-dream",
        12,
        (9, 1, 5),
        {"commit": Threshold(0.3), "cache": DualCache(1)},
        {"commit": twin.fast_threshold(0.3)},
    ),
    "blocks of one position after one token": (
        "tiny-dream",
        3,
        (1,),
        {**LRD, "block_length": 1, "cache": PrefixCache()},
        {**TWIN_LRD, "block_length": 1, "cache": ("prefix", None)},
    ),
    "the whole canvas one block": (
        "tiny-dream",
        8,
        (2, 7),
        {"block_length": None, "commit": LowestEntropy(2), "cache": DualCache()},
        {"block_length": None, "commit": twin.lowest_entropy(2), "cache": ("dual", None)},
    ),
}


@pytest.mark.parametrize("case", some_quick(CASES, 1))
def test_equals_the_slow_twin(checkpoint, case):
    """A left-padded batch against one bare row of the twin at a time, forward by forward."""
    name, G, lengths, settings, twin_settings = CASES[case]
    rows = random_prompts(7, lengths)
    model, params = checkpoint(name)
    decode = make_decode(model, DecodeConfig(G, **{"block_length": 4, "trace": True, **settings}))
    result = decode(params, *padded(rows))
    slow = TwinModel(goldens.GOLDEN / name)
    for row, prompt in enumerate(rows):
        want = twin.twin_decode(slow, prompt, gen_length=G, **{"block_length": 4, **twin_settings})
        np.testing.assert_array_equal(result.tokens[row], want.tokens)
        assert int(result.forwards[row]) == want.forwards
        assert int(result.refine_forwards[row]) == want.refine_forwards
        assert StopReason(int(result.stop_reason[row])).name.lower() == want.stop_reason
        kl = result.trace.divergence[row, : want.forwards]
        np.testing.assert_allclose(kl, want.kl, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_row_alone_equals_the_row_in_a_batch(checkpoint, name):
    """Rows that need very different numbers of forwards, drawn with keys of their own."""
    model, params = checkpoint(name)
    cache = PrefixCache(4) if name == "tiny-dream" else DualCache(3)
    config = DecodeConfig(12, block_length=4, mix=Mix(), commit=Threshold(0.25), draw=Draw(0.7), cache=cache)
    ids, mask = padded(random_prompts(11, (8, 1, 5, 3)))
    keys = jax.random.split(jax.random.key(5), len(ids))
    decode = make_decode(model, config)
    together = decode(params, ids, mask, keys)
    for row in range(len(ids)):
        alone = decode(params, ids[row : row + 1], mask[row : row + 1], keys[row : row + 1])
        np.testing.assert_array_equal(together.tokens[row], alone.tokens[0])
        assert int(together.forwards[row]) == int(alone.forwards[0])


def test_rows_wait_for_a_refresh_until_all_running_rows_ask_for_one(checkpoint):
    model, params = checkpoint("tiny-llada")
    config = DecodeConfig(8, block_length=4, cache=DualCache(3))
    ids, mask = padded(random_prompts(0, (2, 2, 2)))
    state = init_state(model, params, config, check_request(ids, mask, None, None, None, config, model.config))
    for block_forwards, running, want in (
        ([0, 0, 0], [True, True, True], [False, False, False]),
        ([0, 1, 3], [True, True, True], [True, False, True]),
        ([0, 1, 3], [True, False, True], [False, False, False]),
        ([4, 1, 5], [True, True, True], [False, False, False]),
    ):
        reason = jnp.where(jnp.array(running), StopReason.RUNNING, StopReason.FINISHED)
        state = state.replace(block_forwards=jnp.array(block_forwards), reason=reason)
        assert config.cache.waiting(embed(model, params, config, state)).tolist() == want


@pytest.mark.parametrize(
    ("name", "cache", "lengths"),
    [
        ("tiny-llada", PrefixCache(), {7 + 12, 12, 8, 4}),
        ("tiny-dream", PrefixCache(), {7 + 12, 13, 9, 5}),
        ("tiny-llada", DualCache(), {7 + 12, 4}),
        ("tiny-dream", DualCache(), {7 + 12, 5}),  # and the position before it, which holds the first one's logits
    ],
)
def test_only_the_region_is_computed(checkpoint, name, cache, lengths):
    plain, params = checkpoint(name)
    seen = set()

    class Watched(Model):
        def hidden_and_cache(self, params, embeddings, *rest):
            seen.add(embeddings.shape[1])
            return super().hidden_and_cache(params, embeddings, *rest)

    model = Watched(plain.config)
    config = DecodeConfig(12, block_length=4, cache=cache)
    ids, mask = padded(random_prompts(0, (7, 3)))
    state = init_state(model, params, config, check_request(ids, mask, None, None, None, config, model.config))
    jax.eval_shape(lambda params, state: step(model, params, config, state), params, state)
    assert seen == lengths


@pytest.mark.parametrize(("count", "sizes"), [(1, (1,)), (3, (3, 2, 1)), (16, (16, 14, 12, 10, 8, 6, 4, 2))])
def test_a_prefix_cache_compiles_a_few_sizes(count, sizes):
    assert PrefixCache().sizes(count) == sizes


def test_decode_on_a_mesh_equals_the_slow_twin(checkpoint):
    model, params = checkpoint("tiny-llada")
    mesh = make_mesh(2, 2, 2)
    rows = random_prompts(3, (6, 1, 4, 5, 6, 3, 2, 6))
    ids, mask = shard_batch(padded(rows), mesh)
    config = DecodeConfig(8, block_length=4, **LRD, cache=DualCache(3))
    got = make_decode(model, config)(shard(model, params, mesh), ids, mask)
    slow = TwinModel(goldens.GOLDEN / "tiny-llada")
    for row, prompt in enumerate(rows):
        want = twin.twin_decode(slow, prompt, gen_length=8, block_length=4, **TWIN_LRD, cache=("dual", 3))
        np.testing.assert_array_equal(got.tokens[row], want.tokens)
        assert int(got.forwards[row]) == want.forwards


@pytest.mark.parametrize(("tensor", "heads"), [(2, "tensor"), (4, None)])
def test_a_cache_is_split_by_rows_and_by_heads_that_divide(checkpoint, tensor, heads):
    mesh = make_mesh(data=2, tensor=tensor)
    zeros = jnp.zeros((3, 4, 6, 2, 16))
    with jax.set_mesh(mesh):
        split = jax.jit(lambda x: constrain_cache(KeyValues(x, x)))(zeros)
    for x in (split.keys, split.values):
        want = jax.NamedSharding(mesh, PartitionSpec(None, ("data", "fsdp"), None, heads, None))
        assert x.sharding.is_equivalent_to(want, 5)
