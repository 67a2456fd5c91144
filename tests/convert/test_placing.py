"""Parameters onto devices: every slab once, into memory that JAX adopts, and only what this process holds."""

import collections

import goldens
import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from lrd_jax.convert import placing, read_hf, tables
from lrd_jax.convert.placing import place_params
from lrd_jax.convert.reader import open_source
from lrd_jax.convert.tables import flatten, param_shapes, tensors
from lrd_jax.models import Model
from lrd_jax.sharding import make_mesh, param_shardings


@pytest.fixture(scope="module", params=["tiny-llada", "tiny-dream"])
def source(request):
    return open_source(goldens.GOLDEN / request.param)


@pytest.fixture
def small_slabs(monkeypatch):
    monkeypatch.setattr(tables, "SLAB_ELEMENTS", 3000)


def here(config):
    return dict.fromkeys(param_shapes(config), jax.sharding.SingleDeviceSharding(jax.devices()[0]))


def counted(read):
    """`read`, and how often each slab was read."""
    seen = collections.Counter()

    def reading(tensor, slab):
        seen[tensor.name, slab.rows.start] += 1
        return read(tensor, slab)

    return reading, seen


@pytest.mark.parametrize("sizes", [{"data": 8}, {"fsdp": 8}, {"tensor": 2}, {"data": 2, "fsdp": 2, "tensor": 2}])
@pytest.mark.usefixtures("small_slabs")
def test_a_mesh_reads_every_slab_once(source, sizes):
    shardings = flatten(param_shardings(Model(source.config), make_mesh(**sizes)))
    read, seen = counted(source.read)
    params = place_params(source.config, source.dtypes(None), shardings, read)
    assert set(seen.values()) == {1} and len(seen) > len(tensors(source.config))
    _, wanted = read_hf(source.folder)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(np.asarray(a), b, strict=True), params, wanted)
    for path, leaf in flatten(params).items():
        assert leaf.sharding == shardings[path]
        for part in leaf.addressable_shards:
            np.testing.assert_array_equal(part.data, flatten(wanted)[path][part.index])


@pytest.mark.parametrize("dtype", [None, "bfloat16"])
def test_the_memory_that_is_filled_is_the_array(source, dtype, monkeypatch):
    filled, aligned_empty = [], placing.aligned_empty
    monkeypatch.setattr(placing, "aligned_empty", lambda *args: filled.append(aligned_empty(*args)) or filled[-1])
    params = place_params(source.config, source.dtypes(dtype), here(source.config), source.read)
    pointers = {leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(params)}
    assert pointers == {array.ctypes.data for array in filled}
    assert len(filled) == len(param_shapes(source.config))


def test_replicas_share_memory(source):
    shardings = dict.fromkeys(param_shapes(source.config), NamedSharding(make_mesh(data=8), PartitionSpec()))
    params = place_params(source.config, source.dtypes(None), shardings, source.read)
    for leaf in jax.tree.leaves(params):
        assert len({part.data.unsafe_buffer_pointer() for part in leaf.addressable_shards}) == 1


def test_giving_an_adopted_array_away_is_safe(source):
    params = place_params(source.config, source.dtypes(None), here(source.config), source.read)
    wanted = np.array(params["table"])
    kept = jax.device_put(params["table"])
    doubled = jax.jit(lambda x: 2 * x, donate_argnums=0)(params["table"])
    np.testing.assert_array_equal(doubled, 2 * wanted)
    del params, kept
    np.testing.assert_array_equal(doubled, 2 * wanted)


@pytest.mark.usefixtures("small_slabs")
def test_a_process_reads_only_what_its_devices_hold(source, monkeypatch):
    class FirstBlock:
        """A sharding of which this process holds the first index of every parameter."""

        def addressable_devices_indices_map(self, shape):
            return {jax.devices()[0]: (slice(0, 1), *(slice(None),) * (len(shape) - 1))}

    def only_part(shape, sharding, arrays, dtype):
        return arrays[0]

    monkeypatch.setattr(placing.jax, "make_array_from_single_device_arrays", only_part)
    read, seen = counted(source.read)
    params = place_params(
        source.config, source.dtypes(None), dict.fromkeys(param_shapes(source.config), FirstBlock()), read
    )
    assert {tensor.layer for tensor in tensors(source.config) for name, _ in seen if name == tensor.name} == {0, None}
    table = next(tensor for tensor in tensors(source.config) if tensor.path == ("table",))
    assert len([name for name, _ in seen if name == table.name]) == 1 < len(list(table.slabs()))
    _, wanted = read_hf(source.folder)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b[:1]), params, wanted)
