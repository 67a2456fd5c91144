"""Reading HLO: a small program by hand, and programs that XLA compiles for eight CPU devices."""

import collections
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from lrd_jax.decoding.parts.cache.region import DualCache
from lrd_jax.models import LogitAlignment, ModelConfig
from lrd_jax.plan.decode import DecodeJob
from lrd_jax.plan.hlo import Program, Traffic, array_bytes
from lrd_jax.presets import preset
from lrd_jax.sharding import make_mesh

# By hand, in the TPU compiler's words. A loop of the data's choosing that holds: a loop of 3 trips with an all-reduce,
# one without a number of trips, a forward's conditional, a collective in two fusions, and one with a start and an end.
BY_HAND = (Path(__file__).parent / "step.hlo").read_text()

SIZES = dict(num_layers=3, embed_dim=32, mlp_dim=64, num_heads=4, num_kv_heads=4, max_length=128, vocab_size=256)
MODEL = ModelConfig(
    family="llada",
    **SIZES,
    rope_theta=1e4,
    rope_full_precision=True,
    norm_eps=1e-5,
    qkv_bias=False,
    tied_head=False,
    scale_logits=False,
    alignment=LogitAlignment.SAME_POSITION,
    mask_id=255,
    eos_id=1,
    pad_id=1,
)


def decode_job(batch=8, cache=None):
    changes = {} if cache is None else {"cache": cache, "block_length": 8}
    return DecodeJob(model=MODEL, config=preset("lrd", 16, **changes), batch=batch, prompt_length=16, dtype="float32")


def test_a_step_is_the_loop_body_with_inner_loops_by_their_trips():
    step = Program(BY_HAND).step(occasional=False)
    assert step.cycles == {"forward": 3 * 100, "attention": 3 * 7, "other": 10 + 5}


def test_what_is_done_now_and_then_is_counted_apart():
    refresh = Program(BY_HAND).step()
    assert refresh.cycles == {"forward": 3 * 100, "attention": 3 * 7, "other": 1000 + 5}


def test_collectives_are_counted_with_their_groups():
    step = Program(BY_HAND).step()
    counts = {
        Traffic("all-reduce", 4): 3,
        Traffic("all-gather", 2): 1,
        Traffic("collective-permute", 2): 1,
        Traffic("send", 2): 1,
        Traffic("all-reduce", 8): 1,
    }
    assert step.counts == counts
    assert step.moved == {
        Traffic("all-reduce", 4): 3 * 64,
        Traffic("all-gather", 2): 16,
        Traffic("collective-permute", 2): 16,
        Traffic("send", 2): 4,
        Traffic("all-reduce", 8): 4,
    }
    assert step.largest[Traffic("all-reduce", 4)] == 64


@pytest.mark.parametrize("shape, sizes", [("(s32[], /*index=1*/bf16[2,3]{1,0:T(8,128)})", [4, 12]), ("token[]", [])])
def test_bytes_of_a_shape(shape, sizes):
    assert array_bytes(shape) == sizes


def test_trips_of_a_scan_and_bytes_of_its_collectives():
    mesh = make_mesh(data=2, tensor=4)
    split = NamedSharding(mesh, PartitionSpec(None, "tensor", None))
    down = jax.ShapeDtypeStruct((5, 64, 16), jnp.float32, sharding=split)
    up = jax.ShapeDtypeStruct(
        (5, 16, 64), jnp.float32, sharding=NamedSharding(mesh, PartitionSpec(None, None, "tensor"))
    )
    x = jax.ShapeDtypeStruct((6, 16), jnp.float32, sharding=NamedSharding(mesh, PartitionSpec("data")))

    def layer(x, weights):
        return (x @ weights[0]) @ weights[1], None

    def run(x, *weights):
        return jax.lax.while_loop(lambda x: jnp.sum(x) < 100, lambda x: jax.lax.scan(layer, x, weights)[0], x)

    step = Program(jax.jit(run).lower(x, up, down).compile().as_text()).step()
    assert step.counts[Traffic("all-reduce", 4)] == 5
    assert step.moved[Traffic("all-reduce", 4)] == 5 * 3 * 16 * 4
    assert step.largest[Traffic("all-reduce", 4)] == 3 * 16 * 4
    assert step.moved[Traffic("all-reduce", 2)] == 4  # the sum of the condition


@pytest.fixture(scope="module")
def compiled():
    """Cache -> (job, mesh, compiled program) of a decode on 2 x 4 devices."""
    mesh = make_mesh(data=2, tensor=4)
    jobs = {cache: decode_job(cache=cache) for cache in (None, "dual")}
    return {cache: (job, mesh, job.lower(mesh).compile()) for cache, job in jobs.items()}


@pytest.mark.slow
@pytest.mark.parametrize("cache", [None, "dual"])
def test_what_is_counted_is_what_the_program_holds(compiled, cache):
    job, mesh, program = compiled[cache]
    counted = job.counted(mesh)
    prompts = 4 * 16 * (4 + 1)
    numbers = program.memory_analysis().argument_size_in_bytes - counted["parameters"] - prompts
    assert 0 <= numbers <= 64  # of the decoder
    carried = sum(array_bytes(Program(program.as_text()).loop().shape))
    assert carried >= counted["cache"] + counted["state"] + counted["parameters"] - prompts
    assert program.memory_analysis().temp_size_in_bytes >= counted["cache"]


def test_the_cache_lies_as_counted(compiled):
    job, mesh, program = compiled["dual"]
    part = "f32[3,4,32,1,8]"  # layers, rows of 8 over data=2, positions, heads of 4 over tensor=4, head dimension
    assert Program(program.as_text()).loop().shape.count(part) >= 2
    assert job.counted(mesh)["cache"] == 2 * 4 * 3 * 4 * 32 * 8
    assert isinstance(job.config.cache, DualCache)


def test_a_layer_reduces_twice(compiled):
    job, _, program = compiled[None]
    step = job.steps(Program(program.as_text()))["forward"]
    assert step.largest[Traffic("all-reduce", 4)] == 4 * 32 * 32 * 4  # rows, positions, width, float32
    assert step.moved[Traffic("all-reduce", 4)] >= 3 * 2 * step.largest[Traffic("all-reduce", 4)]


def test_a_cached_forward_moves_less_than_its_refresh(compiled):
    job, _, program = compiled["dual"]
    steps = job.steps(Program(program.as_text()))
    moved = {kind: collections.Counter(step.moved)[Traffic("all-reduce", 4)] for kind, step in steps.items()}
    assert moved["forward"] < moved["refresh"] / 2
    assert steps["refresh"].largest[Traffic("all-reduce", 4)] == 4 * 32 * 32 * 4
    assert steps["forward"].largest[Traffic("all-reduce", 4)] <= 4 * 16 * 32 * 4  # the region is the canvas
