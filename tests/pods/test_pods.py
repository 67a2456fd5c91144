"""Two processes of two devices each: they decode what one process decodes, and one that dies ends the other."""

import contextlib
import json
import signal
import subprocess

import goldens
import jax
import numpy as np
import pytest
from pod_decodes import CONFIGS, DECODES, MESHES, QUESTIONS, prompts
from pod_launching import HERE, Pod

import lrd_jax
from lrd_jax.convert.conversion import convert
from lrd_jax.decoding.loop import make_decode

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def pod(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pod")
    (folder / "hf").symlink_to(goldens.GOLDEN)
    for name in ("tiny-llada", "tiny-dream"):
        convert(str(goldens.GOLDEN / name), folder / "orbax" / name)
    pod = Pod(folder, lambda address, process: [HERE / "program.py", address, "2", process, folder])
    try:
        yield pod
    finally:
        pod.stop()


@pytest.fixture(scope="module")
def one_process(checkpoint, pod):
    """What one device decodes, by checkpoint and decoder; computed while the pod runs."""
    results = {}
    for _, name, _, decoder in DECODES:
        if (name, decoder) not in results:
            model, params = checkpoint(name)
            results[name, decoder] = make_decode(model, CONFIGS[decoder])(params, *prompts())
    return results


@pytest.fixture(scope="module")
def seen(pod, one_process):
    """The facts and arrays of each process."""
    pod.wait("done")
    facts = [json.loads((pod.folder / f"{i}.json").read_text()) for i in range(2)]
    return facts, [dict(np.load(pod.folder / f"{i}.npz")) for i in range(2)]


@pytest.mark.parametrize(("name", "form"), [decode[1:3] for decode in DECODES if decode[0] == "across"])
def test_a_process_reads_its_own_parts(seen, checkpoint, name, form):
    whole = sum(leaf.nbytes for leaf in jax.tree.leaves(checkpoint(name)[1]))
    for facts in seen[0]:  # halves of what a row of the file is split by, all of what is split inside rows
        assert 0.5 * whole < facts[f"read.across.{name}"] < 0.75 * whole
        assert facts[f"read.fsdp.{name}"] == whole


def test_a_generator_answers_as_on_one_process(seen):
    loaded = lrd_jax.load("lrd-tiny-soft")
    answers = lrd_jax.Generator(loaded, CONFIGS["lrd"], batch=3).generate(QUESTIONS, seed=1)
    for facts in seen[0]:
        for mesh in MESHES:
            assert facts[f"answers.{mesh}"] == [answer.tokens for answer in answers], mesh


def test_what_differs_is_named_on_every_process(seen):
    for facts in seen[0]:
        assert facts["agreed"] is None
        assert facts["differ"] == (
            "the processes differ in their facts: b is 0 on process 0, 1 on process 1; give all of them the same"
        )
        assert "the processes differ in their requests: prompt 1 is" in facts["prompts differ"]
        assert facts["told"] == [7, "process 0 refuses"]


def test_arrays_come_whole_to_process_0(seen):
    np.testing.assert_array_equal(seen[1][0]["first"], np.arange(24).reshape(8, 3))


def test_processes_see_each_other(seen):
    assert [facts["devices"] for facts in seen[0]] == [[0, 2, 4, 2], [1, 2, 4, 2]]


@pytest.mark.parametrize("number", range(len(DECODES)), ids=["-".join(decode) for decode in DECODES])
def test_tokens_are_those_of_one_process(seen, one_process, number):
    _, name, _, decoder = DECODES[number]
    for arrays in seen[1]:
        np.testing.assert_array_equal(arrays[f"{number}.tokens"], one_process[name, decoder].tokens)
        np.testing.assert_array_equal(arrays[f"{number}.forwards"], one_process[name, decoder].forwards)


def test_prompts_need_not_be_placed(seen, one_process):
    for arrays in seen[1]:
        np.testing.assert_array_equal(arrays["unplaced.tokens"], one_process["tiny-llada", "plain"].tokens)


@pytest.mark.parametrize(("mesh", "name"), sorted({decode[:2] for decode in DECODES}))
def test_a_device_holds_its_part_and_no_more(seen, checkpoint, mesh, name):
    _, fsdp, tensor = MESHES[mesh]
    model, params = checkpoint(name)
    kv_parts = tensor if model.config.num_kv_heads % tensor == 0 else 1
    parts = dict.fromkeys(("table", "head", "q", "out", "gate", "up", "down"), fsdp * tensor)
    parts |= {"k": fsdp * kv_parts, "v": fsdp * kv_parts}
    parts |= {"q_bias": tensor, "k_bias": kv_parts, "v_bias": kv_parts}
    flat = jax.tree.leaves_with_path(params)
    want = sum(leaf.nbytes // parts.get(path[-1].key, 1) for path, leaf in flat)
    for facts in seen[0]:
        assert facts[f"bytes.{mesh}.{name}"] == [want, want]


def test_shard_gives_every_device_its_part(seen, checkpoint):
    whole = sum(leaf.nbytes for leaf in jax.tree.leaves(checkpoint("tiny-llada")[1]))
    assert [facts["bytes.shard"] for facts in seen[0]] == [[whole, whole]] * 2


def test_what_is_placed_is_fetched_whole(seen):
    rows = np.arange(24).reshape(8, 3)
    for facts, arrays in zip(*seen, strict=True):
        assert facts["bytes of place"] == [rows.size, rows.size]  # a quarter of int32
        np.testing.assert_array_equal(arrays["place.rows"], rows)
        np.testing.assert_array_equal(arrays["moved"], rows)
        assert arrays["place.one"] == np.float32(3)
        keys = jax.random.key_data(jax.random.split(jax.random.key(7), 4))
        np.testing.assert_array_equal(arrays["place.keys"], keys)


def test_data_goes_across_processes_and_tensor_stays_inside(seen):
    for facts in seen[0]:
        at = facts["processes of meshes"]
        assert at["tensor"] == [[[0, 0]], [[1, 1]]]
        assert at["across"] == [[[0, 0, 1, 1]]]
        assert at["fsdp"] == [[[0], [0]], [[1], [1]]]


def test_a_mesh_that_leaves_processes_out_is_refused(seen):
    for facts in seen[0]:
        two, three = facts["left out"]
        assert "takes 2 of the 4 devices of 2 processes, and leaves out processes 1; " in two
        assert "takes 3 of the 4 devices of 2 processes; give sizes whose product is 4" in three
        assert "6 rows does not split over mesh axis data=2 x fsdp=2" in facts["wrong rows"]


def test_a_process_that_dies_ends_the_other(pod, seen):
    first, second = pod.processes
    second.send_signal(signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        first.wait(60)  # six times the heartbeat
    assert first.returncode, "the other process went on, or ended as if all were well"
    assert "another task died" in pod.logs[0].read_text()
