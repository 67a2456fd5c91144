"""`place` and `fetch` in one process, on several devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from lrd_jax.pods import fetch, place
from lrd_jax.sharding import make_mesh


@pytest.fixture(scope="module")
def rows():
    return NamedSharding(make_mesh(data=4), PartitionSpec("data"))


@pytest.mark.parametrize(
    "kind", [np.asarray, jnp.asarray, lambda x: place(x, NamedSharding(make_mesh(8), PartitionSpec()))]
)
def test_each_device_gets_its_part(rows, kind):
    values = np.arange(24, dtype=np.int32).reshape(8, 3)
    got = place(kind(values), rows)
    assert got.sharding == rows
    assert all(part.data.shape == (2, 3) for part in got.addressable_shards)
    np.testing.assert_array_equal(got, values, strict=True)


def test_what_lies_there_stays(rows):
    there = place(np.zeros(4), rows)
    assert place(there, rows) is there


def test_a_sharding_speaks_for_its_branch(rows):
    whole = NamedSharding(rows.mesh, PartitionSpec())
    tree = {"rows": (np.zeros((4, 2)), np.zeros(8)), "whole": 3, "none": None}
    got = place(tree, {"rows": rows, "whole": whole, "none": None})
    assert [leaf.sharding for leaf in jax.tree.leaves(got)] == [rows, rows, whole]


def test_keys_are_placed_and_their_data_fetched(rows):
    keys = jax.random.split(jax.random.key(3), 4)
    placed = place(keys, rows)
    assert placed.dtype == keys.dtype and placed.sharding.is_equivalent_to(rows, 1)
    np.testing.assert_array_equal(fetch(placed), jax.random.key_data(keys))


def test_fetch_gives_numpy(rows):
    got = fetch({"placed": place(np.arange(4), rows), "number": 2, "host": np.ones(2)})
    assert {name: type(value) for name, value in got.items()} == dict.fromkeys(got, np.ndarray)
    np.testing.assert_array_equal(got["placed"], np.arange(4))
