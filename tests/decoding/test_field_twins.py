"""Decoders of the field where no golden reaches, against the slow twin: in both families, padded, of own lengths."""

import goldens
import numpy as np
import pytest
import twin
import twin_field
from quick import some_always
from twin_model import TwinModel

from lrd_jax import DUS, KLASS, WINO, Capped, DecodeConfig, DualCache, PrefixCache, Refine, ReMix, make_decode

FAMILIES = ("tiny-llada-gqa", "tiny-dream")
LENGTHS = (12, 4, 8, 12)

# (of the loop, of the twin); blocks of 4 of a canvas of 12.
CASES = {
    "dus": ({"commit": DUS()}, {"commit": twin_field.Dus}),
    "dus, only what is sure, ever thinner": (
        {"commit": DUS(3, 0.15)},
        {"commit": lambda: twin_field.Dus(3, 0.15)},
    ),
    "klass": ({"commit": KLASS(0.4, 0.1)}, {"commit": lambda: twin.Klass(0.4, 0.1, 2)}),
    "wino": ({"commit": WINO(0.15, 0.3)}, {"commit": lambda: twin_field.Wino(0.15, 0.3)}),
    "wino, prefix cache": (
        {"commit": WINO(0.15, 0.3), "cache": PrefixCache(2)},
        {"commit": lambda: twin_field.Wino(0.15, 0.3), "cache": ("prefix", 2)},
    ),
    "wino, dual cache": (
        {"commit": WINO(0.15, 0.3), "cache": DualCache()},
        {"commit": lambda: twin_field.Wino(0.15, 0.3), "cache": ("dual", None)},
    ),
    "remix": (
        {"mix": ReMix(0.3, 0.1), "commit": Capped(0.15)},
        {"mix": lambda: twin_field.Remix(0.3, 0.1), "commit": lambda: twin_field.capped(0.15)},
    ),
    "remix that recovers, under wino, in chunks": (
        {"mix": ReMix(0.3, 0.02, recovers=True), "commit": WINO(0.15, 0.3), "logit_chunk": 3},
        {"mix": lambda: twin_field.Remix(0.3, 0.02, recovers=True), "commit": lambda: twin_field.Wino(0.15, 0.3)},
    ),
    "remix under klass, refined, in chunks": (
        {"mix": ReMix(0.2, 0.2), "commit": KLASS(0.4, 0.1), "refine": Refine(0.3, 3), "logit_chunk": 3},
        {
            "mix": lambda: twin_field.Remix(0.2, 0.2),
            "commit": lambda: twin.Klass(0.4, 0.1, 2),
            "refine": (0.3, 3, "block"),
        },
    ),
    "remix, dual cache": (
        {"mix": ReMix(0.3, 0.4), "commit": Capped(0.15), "cache": DualCache()},
        {
            "mix": lambda: twin_field.Remix(0.3, 0.4),
            "commit": lambda: twin_field.capped(0.15),
            "cache": ("dual", None),
        },
    ),
    "wino under refinement": (
        {"commit": WINO(0.1, 0.4), "refine": Refine(0.3, 3)},
        {"commit": lambda: twin_field.Wino(0.1, 0.4), "refine": (0.3, 3, "block")},
    ),
}


def prompts(seed, lengths):
    """Left-padded random prompts: ids and mask `[B, P]`."""
    rng = np.random.default_rng(seed)
    P = max(lengths)
    ids = rng.integers(0, 300, (len(lengths), P)).astype(np.int32)
    return ids, np.arange(P) >= P - np.array(lengths)[:, None]


@pytest.fixture(scope="module")
def twins():
    return {name: TwinModel(goldens.GOLDEN / name) for name in FAMILIES}


# The cases take turns between the families; what the references have for LLaDA only is in both.
IN_BOTH = ("wino", "wino, dual cache", "remix")
PAIRS = [
    (case, name) for i, case in enumerate(CASES) for name in FAMILIES if case in IN_BOTH or name == FAMILIES[i % 2]
]


@pytest.mark.slow
@pytest.mark.parametrize("pair", some_always(PAIRS, 6), ids=" on ".join)
def test_equals_the_slow_twin(checkpoint, twins, pair):
    """The twin decodes each row alone, so that a row alone is the row in a batch."""
    case, name = pair
    settings, twin_settings = CASES[case]
    model, params = checkpoint(name)
    decode = make_decode(model, DecodeConfig(12, block_length=4, **settings))
    for seed in range(3):
        ids, mask = prompts(seed, (7, 3, 1, 5))
        got = decode(params, ids, mask, length=np.array(LENGTHS))
        for row, length in enumerate(LENGTHS):
            made = {key: make() if callable(make) else make for key, make in twin_settings.items()}
            want = twin.twin_decode(twins[name], ids[row, mask[row]], gen_length=length, block_length=4, **made)
            np.testing.assert_array_equal(got.tokens[row, :length], want.tokens, err_msg=f"seed {seed}, row {row}")
            assert int(got.forwards[row]) == want.forwards
