"""Placement: the rule table and its refusals, bytes per device, and decodes that do not depend on the mesh."""

import dataclasses

import goldens
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from padding import padded
from quick import some_always, some_quick

from lrd_jax.decoding import reading
from lrd_jax.decoding.config import DecodeConfig
from lrd_jax.decoding.loop import make_decode
from lrd_jax.decoding.parts.cache.dkv import DKVCache
from lrd_jax.decoding.parts.cache.dllm import DLLMCache
from lrd_jax.decoding.parts.cache.greedy import DKVGreedy
from lrd_jax.decoding.parts.cache.region import DualCache
from lrd_jax.decoding.parts.cache.sparse import SparseCache
from lrd_jax.decoding.parts.commit.random_order import RandomOrder
from lrd_jax.decoding.parts.length import DAEDAL
from lrd_jax.models import CHECKPOINTS, Model
from lrd_jax.sharding import (
    RULES,
    batch_sharding,
    constrain_batch,
    make_mesh,
    padded_params,
    param_shardings,
    shard,
    shard_batch,
    vocab_is_split,
)

pytestmark = pytest.mark.slow

MESHES = {"8x1x1": (8, 1, 1), "1x8x1": (1, 8, 1), "1x1x4": (1, 1, 4), "2x2x2": (2, 2, 2)}


def bytes_by_device(tree):
    held = {}
    for leaf in jax.tree.leaves(tree):
        for part in leaf.addressable_shards:
            held[part.device] = held.get(part.device, 0) + part.data.nbytes
    return held


def prompts():
    """Eight prompts of different lengths, left-padded."""
    rows = [goldens.arrays("lrd")[f"tiny-llada.{i:02}.prompt"] for i in range(8)]
    return padded([row[: len(row) - i % 3] for i, row in enumerate(rows)])


def test_mesh_has_auto_axes_of_the_asked_sizes():
    mesh = make_mesh(data=2, fsdp=1, tensor=4)
    assert dict(mesh.shape) == {"data": 2, "fsdp": 1, "tensor": 4}
    assert set(mesh.axis_types) == {AxisType.Auto}


def test_mesh_takes_the_devices_it_is_given():
    assert make_mesh(tensor=2, devices=jax.devices()[4:]).devices.flatten().tolist() == jax.devices()[4:6]


@pytest.mark.parametrize("sizes, words", [({"tensor": 16}, "needs 16 devices, got 8"), ({"fsdp": 0}, "fsdp=0")])
def test_impossible_meshes_are_refused(sizes, words):
    with pytest.raises(ValueError, match=words):
        make_mesh(**sizes)


def test_parameters_follow_the_table(checkpoint):
    shardings = param_shardings(checkpoint("tiny-llada")[0], make_mesh(2, 2, 2))
    assert shardings["table"].spec == PartitionSpec("tensor", "fsdp")
    assert shardings["blocks"]["q"].spec == PartitionSpec(None, "fsdp", "tensor", None)
    assert shardings["blocks"]["down"].spec == PartitionSpec(None, "tensor", "fsdp")
    assert shardings["final_norm"].spec == PartitionSpec(None)


@pytest.mark.parametrize("shape", MESHES.values(), ids=MESHES)
@pytest.mark.parametrize("name", ["tiny-llada", "tiny-dream"])
def test_every_device_holds_its_part_and_no_more(checkpoint, name, shape):
    model, params = checkpoint(name)
    mesh = make_mesh(*shape)
    _, fsdp, tensor = shape
    kv_parts = tensor if model.config.num_kv_heads % tensor == 0 else 1
    parts = {"table": fsdp * tensor, "head": fsdp * tensor, "final_norm": 1}
    parts |= {name: fsdp * tensor for name in ("q", "out", "gate", "up", "down")}
    parts |= {name: fsdp * kv_parts for name in ("k", "v")}
    parts |= {"q_bias": tensor, "k_bias": kv_parts, "v_bias": kv_parts, "attn_norm": 1, "mlp_norm": 1}
    flat = jax.tree.leaves_with_path(params)
    want = sum(leaf.nbytes // parts[path[-1].key] for path, leaf in flat)
    held = bytes_by_device(shard(model, params, mesh))
    assert held == dict.fromkeys(mesh.devices.flatten(), want)


def test_rules_that_put_one_mesh_axis_twice_are_refused_naming_both(checkpoint):
    with pytest.raises(ValueError, match=r"'tensor' is put twice on table, by 'vocab' and 'embed'"):
        param_shardings(checkpoint("tiny-llada")[0], make_mesh(tensor=2), {**RULES, "embed": "tensor"})


@pytest.mark.parametrize(
    "rules, words",
    [
        ({**RULES, "mlp": "model"}, r"rule 'mlp' -> 'model': the mesh has data, fsdp, tensor"),
        ({name: rule for name, rule in RULES.items() if name != "norm"}, r"no rule for logical axis 'norm'"),
    ],
)
def test_rules_that_do_not_fit_model_or_mesh_are_refused(checkpoint, rules, words):
    with pytest.raises(ValueError, match=words):
        param_shardings(checkpoint("tiny-llada")[0], make_mesh(), rules)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"num_heads": 2, "num_kv_heads": 2}, r"tensor=4 does not divide heads \(2\), kv_heads \(2\); .*: 1, 2$"),
        ({"mlp_dim": 174}, r"tensor=4 does not divide mlp \(174\); .*: 1, 2$"),
    ],
    ids=["heads", "mlp"],
)
def test_sizes_that_do_not_divide_are_refused_with_those_that_do(checkpoint, change, words):
    model = Model(dataclasses.replace(checkpoint("tiny-llada")[0].config, **change))
    with pytest.raises(ValueError, match=words):
        param_shardings(model, make_mesh(tensor=4))


def test_fsdp_must_divide_the_width(checkpoint):
    model = Model(dataclasses.replace(checkpoint("tiny-llada")[0].config, embed_dim=72))
    with pytest.raises(
        ValueError, match=r"fsdp=7 does not divide embed \(72\); .*: 1, 2, 3, 4, 6, 8, 9, 12, 18, 24, 36, 72"
    ):
        param_shardings(model, make_mesh(fsdp=7))


def test_grouped_kv_heads_that_do_not_divide_are_replicated(checkpoint):
    mesh = make_mesh(tensor=4)
    grouped = param_shardings(checkpoint("tiny-llada-gqa")[0], mesh)["blocks"]
    assert grouped["k"].spec == PartitionSpec(None, "fsdp", None, None)
    assert grouped["q"].spec == PartitionSpec(None, "fsdp", "tensor", None)


def test_dreams_heads_and_a_small_vocabulary_are_padded():
    dream = CHECKPOINTS["dream-7b-base"].config
    lengths = padded_params(Model(dream), make_mesh(tensor=8))
    blocks = {name: leaf.shape for name, leaf in lengths["blocks"].items()}
    assert blocks["q"] == (28, 3584, 32, 128) and blocks["out"] == (28, 32, 128, 3584) and blocks["q_bias"][1] == 32
    assert blocks["k"] == (28, 3584, 4, 128)
    assert lengths["table"].shape == (152064, 3584)
    small = dataclasses.replace(dream, vocab_size=145, mask_id=1, eos_id=2, pad_id=2, bos_id=None, eot_id=None)
    lengths = padded_params(Model(small), make_mesh(tensor=8))
    assert lengths["table"].shape == (152, 3584) and lengths["head"].shape == (3584, 152)


def test_a_batch_that_does_not_split_is_refused():
    with pytest.raises(ValueError, match=r"3 rows does not split over mesh axis data=2 x fsdp=2; pad it to 4 rows"):
        shard_batch(jnp.zeros((3, 5)), make_mesh(2, 2, 2))


def test_activations_are_split_by_rows_under_a_mesh():
    mesh = make_mesh(2, 2, 2)
    x = jax.device_put(jnp.zeros((8, 6)), NamedSharding(mesh, PartitionSpec(None, "tensor")))
    with jax.set_mesh(mesh):
        split = jax.jit(constrain_batch)(x)
    assert split.sharding.is_equivalent_to(batch_sharding(mesh), 2)
    assert jax.jit(constrain_batch)(x).sharding.is_equivalent_to(x.sharding, 2)


def test_a_batch_that_does_not_split_is_not_constrained():
    mesh = make_mesh(2, 2, 2)
    x = jax.device_put(jnp.zeros((3, 6)), NamedSharding(mesh, PartitionSpec(None, "tensor")))
    with jax.set_mesh(mesh):
        assert jax.jit(constrain_batch)(x).sharding.is_equivalent_to(x.sharding, 2)


@pytest.mark.parametrize(("axes", "split"), [(("data", "tensor"), True), (("data", "model"), False)])
def test_a_vocabulary_is_split_where_the_mesh_has_the_axis(axes, split):
    with jax.set_mesh(jax.make_mesh((4, 2), axes, axis_types=(AxisType.Auto,) * 2)):
        assert jax.jit(lambda: jnp.full((), vocab_is_split()))() == split


@dataclasses.dataclass(frozen=True)
class Device:
    """What the layout of a mesh asks of a device."""

    id: int
    process_index: int
    slice_index: int
    platform: str = "cpu"
    device_kind: str = "cpu"


@pytest.mark.parametrize(
    ("sizes", "across"),
    [
        ((2, 1, 4), [[[0, 0, 0, 0]], [[1, 1, 1, 1]]]),
        ((1, 2, 4), [[[0, 0, 0, 0], [1, 1, 1, 1]]]),
        ((1, 4, 2), [[[0, 0], [0, 0], [1, 1], [1, 1]]]),
        ((1, 1, 8), [[[0, 0, 0, 0, 1, 1, 1, 1]]]),
    ],
)
@pytest.mark.parametrize("by", ["process_index", "slice_index"])
def test_the_slower_network_carries_data_first_and_tensor_last(sizes, across, by):
    one = {"process_index": 0, "slice_index": 0}
    devices = [Device(i, **{**one, by: i % 2}) for i in range(8)]  # not in the order of their groups
    got = make_mesh(*sizes, devices=devices).devices
    assert np.vectorize(lambda device: getattr(device, by), otypes=[int])(got).tolist() == across


def test_the_program_is_the_same_whether_or_not_the_mesh_is_set(checkpoint):
    model, params = checkpoint("tiny-llada")
    mesh = make_mesh(2, 2, 2)
    params, rows = shard(model, params, mesh), batch_sharding(mesh)
    decode = make_decode(model, DecodeConfig.lrd(8, block_length=4, cache=DualCache(3)))

    def lowered():
        return decode.lower(
            params, 8, 5, lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=rows)
        ).as_text()

    without = lowered()
    assert jax.sharding.get_abstract_mesh().empty
    with jax.set_mesh(mesh):
        assert lowered() == without
    assert "sharding_constraint" in without


def test_inside_another_jit_the_mesh_is_left_to_it(checkpoint):
    model, params = checkpoint("tiny-llada")
    ids, _ = prompts()
    params, decode = shard(model, params, make_mesh(8)), make_decode(model, DecodeConfig(8))
    closed_over = jax.jit(lambda: decode(params, ids).tokens).lower().as_text()
    assert "while" in closed_over and "sharding_constraint" not in closed_over


@pytest.fixture(scope="module")
def one_device(checkpoint):
    """What one device decodes, by checkpoint."""
    ids, mask = prompts()
    config = DecodeConfig.paper(16, block_length=8)
    results = {}
    for name in ("tiny-llada", "tiny-dream"):
        model, params = checkpoint(name)
        results[name] = make_decode(model, config)(params, ids, mask)
    return config, results


@pytest.mark.parametrize("shape", some_quick(MESHES.values(), 1), ids=MESHES)
@pytest.mark.parametrize("name", some_quick(["tiny-llada", "tiny-dream"], 1))
def test_decode_gives_the_tokens_of_one_device(checkpoint, one_device, name, shape):
    model, params = checkpoint(name)
    config, results = one_device
    mesh = make_mesh(*shape)
    ids, mask = shard_batch(prompts(), mesh)
    got = make_decode(model, config)(shard(model, params, mesh), ids, mask)
    np.testing.assert_array_equal(got.tokens, results[name].tokens)
    np.testing.assert_array_equal(got.forwards, results[name].forwards)


@pytest.mark.parametrize("sizes", [{"data": 2}, {"tensor": 2}])
def test_logits_are_cut_by_what_a_device_holds_of_them(checkpoint, monkeypatch, sizes):
    model, params = checkpoint("tiny-llada")
    ids, mask = prompts()
    monkeypatch.setattr(reading, "KEPT_BYTES", 4 * len(ids) * 12 * model.config.vocab_size // 2)
    monkeypatch.setattr(reading, "CHUNK_BYTES", 4 * len(ids) * 5 * model.config.vocab_size)
    decoder = make_decode(model, DecodeConfig.paper(12))
    alone = decoder.start(params, ids, mask)
    assert alone.previous.ndim == 4  # hidden states: the logits are too large for one device
    alone = decoder.advance(params, alone, 100)
    mesh = make_mesh(**sizes)
    params, (ids, mask) = shard(model, params, mesh), shard_batch((ids, mask), mesh)
    split = decoder.start(params, ids, mask)
    assert split.previous.ndim == 3
    split = decoder.advance(params, split, 100)
    np.testing.assert_array_equal(split.tokens, alone.tokens)
    np.testing.assert_array_equal(split.forwards, alone.forwards)


ON_A_MESH = {
    "daedal": DecodeConfig(16, block_length=4, length=DAEDAL(initial=6, factor=3, eos_conf=0.05, low=0.2)),
    "dkv-greedy": DecodeConfig(8, commit=RandomOrder(), cache=DKVGreedy(2, 4)),
    "prophet": DecodeConfig.prophet(8, steps=8),
    "remix": DecodeConfig.remix(8, block_length=4, threshold=0.05),
    "wino": DecodeConfig.wino(8, block_length=4, threshold=0.05),
}


@pytest.mark.parametrize("name", some_always(ON_A_MESH, 1))
def test_the_fields_decoders_decode_alike_on_a_mesh(checkpoint, name):
    model, params = checkpoint("tiny-llada")
    mesh, decode, key = make_mesh(2, 2, 2), make_decode(model, ON_A_MESH[name]), jax.random.key(0)
    want = decode(params, *prompts(), key)
    got = decode(shard(model, params, mesh), *shard_batch(prompts(), mesh), key)
    np.testing.assert_array_equal(got.tokens, want.tokens)
    np.testing.assert_array_equal(got.forwards, want.forwards)


@pytest.mark.parametrize("cache", some_quick([DLLMCache(5, 3), DKVCache(3), SparseCache()], 1))
def test_the_fields_caches_decode_alike_on_a_mesh(checkpoint, cache):
    """Whole and in pieces, and what they keep stays split by rows."""
    model, params = checkpoint("tiny-llada")
    mesh, decode = make_mesh(2, 2, 2), make_decode(model, DecodeConfig.fast(8, block_length=4, cache=cache))
    want = decode(params, *prompts())
    params, (ids, mask) = shard(model, params, mesh), shard_batch(prompts(), mesh)
    state = decode.advance(params, decode.start(params, ids, mask), 100)
    np.testing.assert_array_equal(decode.result(state).tokens, want.tokens)
    np.testing.assert_array_equal(decode.result(state).forwards, want.forwards)
    for leaf, rows in zip(jax.tree.leaves(state.cache), jax.tree.leaves(cache.row_axes(state.cache)), strict=True):
        assert leaf.sharding.shard_shape(leaf.shape)[rows] == 2
