"""Every answer of an engine is that of its batch of one: random requests, few slots, two engines on one device."""

import dataclasses
import random
import time

import jax
import numpy as np
import pytest
from byte_model import write_byte_model

from lrd_jax import DecodeConfig, DualCache, load, make_decode
from lrd_jax.engine import Engine, Request
from lrd_jax.presets import adjusted
from lrd_jax.text import left_pad

PROMPT, CANVAS, COUNT = 24, 24, 250
POISON = 200  # a token whose embedding is not finite

CONFIGS = {
    "lrd": DecodeConfig.lrd(CANVAS, block_length=8, end_of_text=False),
    "cached": DecodeConfig.fast(CANVAS, block_length=8, cache=DualCache(3)),
}
NUMBERS = {
    "lrd": {"refine.tau": (0.0, 0.1, 10.0), "r_f": (0.0, 0.3), "temperature": (0.0, 0.8), "threshold": (0.1, 0.9)},
    "cached": {"threshold": (0.02, 0.1, 0.9), "temperature": (0.0, 1.0)},
}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    loaded = load(write_byte_model(tmp_path_factory.mktemp("bytes"), max_length=64))
    table = loaded.params["table"].at[POISON].set(jax.numpy.nan)
    return {"lrd": loaded, "cached": dataclasses.replace(loaded, params={**loaded.params, "table": table})}


def random_request(rng, name):
    vocab = [i for i in range(4, 256) if i != POISON]
    ids = rng.choices(vocab, k=rng.randint(1, PROMPT))
    if name == "cached" and rng.random() < 0.1:
        ids[rng.randrange(len(ids))] = POISON
    numbers = {key: rng.choice(values) for key, values in NUMBERS[name].items() if rng.random() < 0.5}
    return Request(prompt=ids, length=rng.choice((8, 16, 24)), seed=rng.randrange(2**34), numbers=numbers)


def alone(decode, loaded, request):
    """Its batch of one."""
    prompt, mask = left_pad([request.prompt, [5] * PROMPT], 0)  # of one shape, so that all share a compile
    return decode(
        loaded.params,
        prompt[:1],
        mask[:1],
        jax.random.key(request.seed),
        length=np.array([request.length]),
        config=adjusted(decode.config, request.numbers),
    )


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0])
def test_500_random_requests_answer_as_each_does_alone(models, seed):
    rng = random.Random(seed)
    lrd = Engine(models["lrd"], CONFIGS["lrd"], slots=5, prompt_length=(8, PROMPT))
    cached = Engine(models["cached"], CONFIGS["cached"], slots=3, prompt_length=(8, 16, PROMPT), beside=lrd)
    engines, asked = {"lrd": lrd, "cached": cached}, []
    names = [name for name in engines for _ in range(COUNT)]
    rng.shuffle(names)
    with lrd, cached:
        for name in names:
            request = random_request(rng, name)
            asked.append((name, request, engines[name].submit(request)))
            if rng.random() < 0.1:
                rng.choice(asked)[2].cancel()
            if rng.random() < 0.2:
                time.sleep(rng.uniform(0, 0.02))
    for engine in engines.values():
        counts = engine.counts
        assert (counts.running, counts.waiting, sum(counts.ended.values())) == (0, 0, COUNT)

    decoders = {name: make_decode(models[name].model, config) for name, config in CONFIGS.items()}
    reasons = set()
    for name, request, handle in asked:
        answer, wanted = handle.result(0), alone(decoders[name], models[name], request)
        tokens = np.asarray(wanted.tokens[0, : request.length])
        reasons.add(answer.stop_reason)
        if answer.stop_reason == "cancelled":
            committed = answer.canvas != models[name].config.mask_id
            assert (answer.canvas[committed] == tokens[committed]).all()
            assert answer.forwards <= wanted.forwards[0]
            continue
        assert answer.canvas.tolist() == tokens.tolist(), request
        assert (answer.forwards, answer.refine_forwards) == (wanted.forwards[0], wanted.refine_forwards[0])
        poisoned = POISON in request.prompt
        assert (answer.stop_reason == "non-finite") == (wanted.stop_reason[0] == 5)
        assert answer.stop_reason == "non-finite" or not poisoned
    assert {"finished", "cancelled", "non-finite"} <= reasons
