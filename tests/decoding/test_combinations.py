"""What combines with what: the tables of docs/decoders.md, and that each combination of them decodes as it should.

A combination that runs ends with nothing masked, a row of it does not depend on the others, and where it must agree
with a simpler decode it does. One that is refused says so at construction.
"""

import re
from pathlib import Path

import goldens
import jax.numpy as jnp
import numpy as np
import pytest
from padding import padded
from quick import some_always

from lrd_jax import (
    DAEDAL,
    DecodeConfig,
    DKVCache,
    DKVGreedy,
    DKVPrefill,
    DLLMCache,
    DualCache,
    LowestEntropy,
    Mix,
    PrefixCache,
    Prophet,
    Refine,
    SparseCache,
    Stop,
    make_decode,
)
from lrd_jax.errors import Refused

G, W = 16, 4
PAGE = Path(__file__).parents[2] / "docs" / "decoders.md"

DECODERS = {
    "plain": lambda **changes: DecodeConfig.plain(G, **changes),
    "threshold": lambda **changes: DecodeConfig.fast(G, threshold=0.3, **changes),
    "lrd": lambda **changes: DecodeConfig(
        G, **{"mix": Mix(0.4), "refine": Refine(0.2, 3), "commit": LowestEntropy(1, 0.4), "stop": Stop(0.05), **changes}
    ),
    "remix": lambda **changes: DecodeConfig.remix(G, threshold=0.3, **changes),
    "wino": lambda **changes: DecodeConfig.wino(G, threshold=0.3, threshold_back=0.2, **changes),
}
CACHES = {
    "prefix": PrefixCache(),
    "dual": DualCache(),
    "dkv": DKVCache(3),
    "dkv-prefill": DKVPrefill(),
    "dkv-greedy": DKVGreedy(),
    "dllm": DLLMCache(5, 3),
    "sparse": SparseCache(),
}
# Refreshed on every forward.
WHOLE = {"prefix": PrefixCache(1), "dual": DualCache(1), "dkv": DKVCache(1), "dllm": DLLMCache(1, 1)}
STOPS = {"none": None, "settled": Stop(0.05), "prophet": Prophet(0.4, 0.3, 0.2, answer_start=2)}
NEVER = {"settled": Stop(0.0), "prophet": Prophet(1e6, 1e6, 1e6, answer_start=2)}
LENGTHS = {"as asked": None, "daedal": DAEDAL(initial=5, factor=3, eos_conf=0.05, low=0.2, eos_check=2, eos=7)}
ALL_OF_IT = DAEDAL(initial=G)  # one forward more, which finds that nothing can be added


def table(heading):
    """(row, column) -> cell, of the table below a heading of the page."""
    lines = PAGE.read_text().split(f"## {heading}\n", 1)[1].split("\n## ")[0].splitlines()
    rows = [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    (_, *columns), _, *rows = rows
    return {(row[0], column): cell for row in rows for column, cell in zip(columns, row[1:], strict=True)}


def prompts():
    """Two batches of three prompts, left-padded, whose first rows are the same."""
    ids, mask = padded([goldens.arrays("lrd")[f"tiny-llada.{i:02}.prompt"][: 9 - i] for i in range(5)])
    return [(ids[batch], mask[batch]) for batch in ([0, 1, 2], [0, 3, 4])]


def decoded(checkpoint, config, name="tiny-llada-gqa"):
    """Two decodes by one program, the rows of the second of other lengths but for the first."""
    decoder, params = make_decode(*checkpoint(name)[:1], config), checkpoint(name)[1]
    lengths = ([12, 16, 4], [12, 8, 16])
    return [
        decoder(params, jnp.asarray(ids), jnp.asarray(mask), length=jnp.asarray(length))
        for (ids, mask), length in zip(prompts(), lengths, strict=True)
    ]


def check(first, second):
    for a, b in zip(
        (first.tokens, first.forwards, first.stop_reason),
        (second.tokens, second.forwards, second.stop_reason),
        strict=True,
    ):
        np.testing.assert_array_equal(a[0], b[0])
    for result in (first, second):
        assert np.isin(result.stop_reason, (1, 2)).all()  # everything is committed


def agrees(got, wanted, more=0):
    for a, b in zip(got, wanted, strict=True):
        np.testing.assert_array_equal(a.tokens, b.tokens)
        np.testing.assert_array_equal(a.forwards, b.forwards + more)


def refused(make):
    with pytest.raises(Refused) as error:
        make()
    assert re.match(r"DecodeConfig\.cache=.* (leave one of them out|take commit=.*)$", str(error.value))


PAIRS = [(cache, decoder) for cache in CACHES for decoder in DECODERS]


@pytest.fixture(scope="module")
def uncached(checkpoint):
    made = {}

    def of(decoder, block_length=W):
        if decoder not in made:
            made[decoder] = decoded(checkpoint, DECODERS[decoder](block_length=block_length))
        return made[decoder]

    return of


@pytest.mark.parametrize("pair", some_always(PAIRS, 12), ids="-".join)
def test_caches(checkpoint, uncached, pair):
    cache, decoder = pair
    cell = table("Caches under each decoder")[cache, decoder]

    def make(cache, block_length=W):
        return DECODERS[decoder](block_length=block_length, cache=cache)

    if cell == "refused":
        refused(lambda: make(CACHES[cache]))
        return
    assert cell == "runs"
    check(*decoded(checkpoint, make(CACHES[cache])))
    if cache in WHOLE:
        same = None if decoder == "remix" else W  # under most caches what it remembers ends with a block
        agrees(decoded(checkpoint, make(WHOLE[cache], same)), uncached(decoder, same))


# Without a stop and of the length that was asked for they are what caches are compared with, above.
SIZED = [(stop, length) for stop in STOPS for length in LENGTHS if (stop, length) != ("none", "as asked")]
TRIPLES = [(*sized, decoder) for sized in SIZED for decoder in DECODERS]


@pytest.mark.parametrize("triple", some_always(TRIPLES, 8), ids="-".join)
def test_stops_and_lengths(checkpoint, triple):
    stop, length, decoder = triple
    cell = table("Stops and lengths under each decoder")[f"{stop}, {length}", decoder]

    assert cell == "runs"
    check(*decoded(checkpoint, DECODERS[decoder](block_length=W, stop=STOPS[stop], length=LENGTHS[length])))


@pytest.mark.slow
@pytest.mark.parametrize("decoder", some_always(["plain", "threshold", "wino"], 1))
def test_what_never_happens_changes_nothing(checkpoint, uncached, decoder):
    for stop in NEVER.values():
        agrees(decoded(checkpoint, DECODERS[decoder](block_length=W, stop=stop)), uncached(decoder))
    agrees(decoded(checkpoint, DECODERS[decoder](block_length=W, length=ALL_OF_IT)), uncached(decoder), more=1)


def test_every_kind_of_part_is_in_the_tables():
    kinds = dict(table("Caches under each decoder")), dict(table("Stops and lengths under each decoder"))
    assert {cache for cache, _ in kinds[0]} == set(CACHES) and {d for _, d in kinds[0]} == set(DECODERS)
    assert {re.sub(", .*", "", row) for row, _ in kinds[1]} == set(STOPS)
