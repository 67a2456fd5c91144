"""One process of a pod: `program.py COORDINATOR PROCESSES PROCESS FOLDER`. Every process runs all of it.

It decodes what `pod_decodes.py` lists, writes what it saw to FOLDER, and waits to be killed.
"""

import json
import sys
import time
from pathlib import Path

import jax
import numpy as np
from jax._src.distributed import global_state
from jax.sharding import NamedSharding, PartitionSpec
from pod_decodes import CONFIGS, DECODES, MESHES, QUESTIONS, prompts

import lrd_jax
import lrd_jax.errors
from lrd_jax import Generator
from lrd_jax import checkpoint as checkpoint_room
from lrd_jax.convert import tables
from lrd_jax.convert.placing import place_params
from lrd_jax.pods import agree, connect, fetch, fetch_to_first, from_first, place
from lrd_jax.sharding import batch_sharding, make_mesh, shard, shard_batch

coordinator, processes, process, folder = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
HEARTBEAT = 10

connect(coordinator, processes, process, heartbeat_seconds=HEARTBEAT, timeout_seconds=120)
connect()  # does nothing the second time
facts, arrays = {}, {}
facts["devices"] = [jax.process_index(), jax.process_count(), jax.device_count(), jax.local_device_count()]


def meet(name):
    """Collectives of CPUs give up on a peer that still compiles, so all meet where none is needed."""
    global_state.client.wait_at_barrier(name, 120_000)


def refusal(function, *args, **kwargs):
    try:
        function(*args, **kwargs)
    except ValueError as error:
        return str(error)


def held(tree):
    """Bytes on each device of this process."""
    total = {}
    for leaf in jax.tree.leaves(tree):
        for part in leaf.addressable_shards:
            total[part.device.id] = total.get(part.device.id, 0) + part.data.nbytes
    return list(total.values())


meshes = {name: make_mesh(*sizes) for name, sizes in MESHES.items()}
facts["processes of meshes"] = {
    name: np.vectorize(lambda device: device.process_index)(mesh.devices).tolist() for name, mesh in meshes.items()
}
facts["left out"] = [refusal(make_mesh, data=2), refusal(make_mesh, data=3)]

mesh = meshes["fsdp"]
tree = {
    "rows": np.arange(24).reshape(8, 3),
    "one": np.float32(3),
    "keys": jax.random.split(jax.random.key(7), 4),
}
rows = batch_sharding(mesh)
whole = NamedSharding(mesh, PartitionSpec())
placed = place(tree, {"rows": rows, "one": whole, "keys": rows})
facts["bytes of place"] = held(placed["rows"])
arrays |= {f"place.{name}": value for name, value in fetch(placed).items()}
arrays["moved"] = fetch(place(placed["rows"], NamedSharding(mesh, PartitionSpec(None, None))))
facts["wrong rows"] = refusal(shard_batch, np.zeros((6, 2), np.int32), mesh)

facts["agreed"] = refusal(agree, "facts", {"a": 1})
facts["differ"] = refusal(agree, "facts", {"a": 1, "b": process})


def refuse():
    raise lrd_jax.errors.Refused("process 0 refuses")


facts["told"] = [from_first(lambda: 7 + process), refusal(from_first, refuse)]
first = fetch_to_first(placed["rows"])
arrays |= {} if process else {"first": first}

tables.SLAB_ELEMENTS = 1 << 10  # a slab of a tiny model
loads, read = {}, {}


def counting(config, dtypes, shardings, read_slab, padded=None):
    """`place_params` that counts the bytes that are read."""

    def counted(tensor, slab):
        values = read_slab(tensor, slab)
        read[key] += values.nbytes
        return values

    return place_params(config, dtypes, shardings, counted, padded)


checkpoint_room.place_params = counting
for number, (mesh_name, checkpoint, form, decoder) in enumerate(DECODES):
    mesh = meshes[mesh_name]
    if (mesh_name, checkpoint) not in loads:
        key = f"read.{mesh_name}.{checkpoint}"
        read[key] = 0
        loads[mesh_name, checkpoint] = lrd_jax.load(folder / form / checkpoint, mesh=mesh)
        facts[f"bytes.{mesh_name}.{checkpoint}"] = held(loads[mesh_name, checkpoint].params)
    loaded = loads[mesh_name, checkpoint]
    decode = lrd_jax.make_decode(loaded.model, CONFIGS[decoder])
    ids, mask = shard_batch(prompts(), mesh)

    def on_rows(leaf, mesh=mesh):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=batch_sharding(mesh))

    decode.lower(loaded.params, *ids.shape, on_rows).compile()
    meet(f"compiled {number}")
    result = fetch(decode(loaded.params, ids, mask))
    arrays |= {f"{number}.tokens": result.tokens, f"{number}.forwards": result.forwards}

facts |= read
checkpoint_room.place_params = place_params
for mesh_name, mesh in meshes.items():
    generator = Generator(lrd_jax.load("lrd-tiny-soft", mesh=mesh), CONFIGS["lrd"], batch=3)
    facts[f"answers.{mesh_name}"] = [answer.tokens for answer in generator.generate(QUESTIONS, seed=1)]
asked = [QUESTIONS[0], QUESTIONS[process]]
facts["prompts differ"] = refusal(generator.generate, asked)

# Parameters in the memory of each process, and prompts that were not placed.
loaded = lrd_jax.load(folder / "hf" / "tiny-llada")
params = shard(loaded.model, jax.tree.map(np.asarray, loaded.params), meshes["data"])
facts["bytes.shard"] = held(params)
result = fetch(lrd_jax.make_decode(loaded.model, CONFIGS["plain"])(params, *prompts()))
arrays["unplaced.tokens"] = result.tokens

np.savez(folder / f"{process}.npz", **arrays)
(folder / f"{process}.json").write_text(json.dumps(facts))
meet("done")
(folder / f"{process}.done").touch()
time.sleep(600)
