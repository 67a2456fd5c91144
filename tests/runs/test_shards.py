"""Which prompts are a process's: as it was told, or as what launched it says."""

import pytest

from lrd_jax.errors import Refused
from lrd_jax.runs.shards import Shard, launched_shard, parse_shard


@pytest.mark.parametrize("texts", [["0/3", "1/3", "2/3"], ["1/3", "2/3", "3/3"]])
def test_shards_part_the_prompts_counted_from_0_or_from_1(texts):
    held = [[place for place in range(10) if parse_shard(text).has(place)] for text in texts]
    assert sorted(place for places in held for place in places) == list(range(10))
    assert max(map(len, held)) - min(map(len, held)) == 1


@pytest.mark.parametrize(
    "text", ["", "1", "1/", "/2", "-1/2", "3/2", "0/0", "a/b", "1/2/3", "1.0/2", "1 /2", "\u0661/2"]
)
def test_what_is_no_shard_is_refused(text):
    with pytest.raises(Refused, match="must be written i/n"):
        parse_shard(text)


SLURM = {"SLURM_ARRAY_TASK_ID": "5", "SLURM_ARRAY_TASK_COUNT": "4", "SLURM_ARRAY_TASK_MIN": "3"}


@pytest.mark.parametrize(
    ("environ", "shard"),
    [
        ({}, "0/1"),
        (SLURM, "2/4"),
        ({**SLURM, "SLURM_ARRAY_TASK_STEP": "2"}, "1/4"),
        ({"SLURM_ARRAY_TASK_ID": "0", "SLURM_ARRAY_TASK_COUNT": "8"}, "0/8"),
        ({"JOB_COMPLETION_INDEX": "3", "LRD_JAX_NUM_SHARDS": "8"}, "3/8"),
        ({"SKYPILOT_NODE_RANK": "1", "SKYPILOT_NUM_NODES": "2"}, "1/2"),
        ({"OMPI_COMM_WORLD_RANK": "6", "OMPI_COMM_WORLD_SIZE": "7"}, "6/7"),
        ({"AWS_BATCH_JOB_ARRAY_INDEX": "1", "AWS_BATCH_JOB_ARRAY_SIZE": "2"}, "1/2"),
    ],
)
def test_launchers_say_which_shard_a_process_is(environ, shard):
    assert str(launched_shard(environ)) == shard
    assert launched_shard(environ).said in environ or not environ


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"JOB_COMPLETION_INDEX": "3"}, "JOB_COMPLETION_INDEX=3 says which shard this is, and nothing of how many"),
        ({**SLURM, "SLURM_ARRAY_TASK_ID": "9"}, "not numbered one after another"),
        ({**SLURM, "SLURM_ARRAY_TASK_ID": "2"}, "not numbered one after another"),
        ({**SLURM, "SLURM_ARRAY_TASK_ID": "4", "SLURM_ARRAY_TASK_STEP": "2"}, "not numbered one after another"),
        ({"LRD_JAX_NUM_SHARDS": "abc"}, "LRD_JAX_NUM_SHARDS=abc says how many shards there are, and nothing says"),
        ({"LRD_JAX_NUM_SHARDS": "4"}, "LRD_JAX_NUM_SHARDS=4 says how many shards there are, and nothing says which"),
        ({"SKYPILOT_NODE_RANK": "first", "SKYPILOT_NUM_NODES": "2"}, "numbers were wanted"),
    ],
)
def test_a_launcher_that_cannot_be_understood_is_refused(environ, words):
    with pytest.raises(Refused, match=words):
        launched_shard(environ)


def test_a_shard_is_what_it_says():
    assert str(Shard(1, 2)) == "1/2" and Shard(1, 2, "X") == Shard(1, 2)
