"""Slots of decoders that reach over the whole canvas: rows that grow, and rows that are decided at once."""

import itertools

import numpy as np
import pytest
from byte_model import write_byte_model

from lrd_jax import DAEDAL, DecodeConfig, Generator, Prophet, Threshold, load
from lrd_jax.engine import Engine, Request
from lrd_jax.errors import Refused

PROMPTS = ["One.", "The second prompt is longer.", "Zwölf", "a b c", "last"]
GROWS = DecodeConfig(
    16, block_length=8, commit=Threshold(), length=DAEDAL(initial=4, factor=3, low=0.5, eos_conf=0.0, eos_check=4)
)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """Random weights over bytes: every belief is in doubt, and no end is ever seen."""
    return load(write_byte_model(tmp_path_factory.mktemp("bytes"), max_length=128))


def timeless(answer):
    fields = answer.to_json()
    return {name: value for name, value in fields.items() if "second" not in name} | {"canvas": answer.canvas.tolist()}


def committed(canvas):
    """What forwards have committed, in its order: pairs of a token and how sure it was."""
    logprob = canvas.beliefs.logprob
    return [(int(t), float(p)) for t, p in zip(canvas.tokens, logprob, strict=True) if p < 0]


@pytest.mark.slow
def test_rows_grow_in_their_slots_as_they_do_alone(loaded):
    """Whatever was in the slot before, and by numbers of their own."""
    numbers = {"length.eos_conf": 0.2, "length.initial": 3}
    asked = [Request(prompt=prompt) for prompt in PROMPTS]
    asked += [Request(prompt="One.", numbers=numbers)]
    wanted = Generator(loaded, GROWS).generate(PROMPTS)
    other = GROWS.replace(length=DAEDAL(initial=3, factor=3, low=0.5, eos_conf=0.2, eos_check=4))
    wanted += Generator(loaded, other).generate(PROMPTS[:1])
    heard = {}
    with Engine(loaded, GROWS, slots=3, prompt_length=64, every=1) as engine:
        listen = [
            lambda update, index=index: heard.setdefault(index, []).append(update.canvas) for index in range(len(asked))
        ]
        handles = [engine.submit(request, listen=one) for request, one in zip(asked, listen, strict=True)]
        got = [timeless(handle.result(60)) for handle in handles]
    assert got == [timeless(answer) for answer in wanted]
    end = loaded.config.eos_id
    for canvases in heard.values():
        assert np.sum(canvases[0].tokens != end) < np.sum(canvases[-1].tokens != end)  # it has grown
        for before, after in itertools.pairwise(canvases):  # and what moved has kept its probability
            left = iter(committed(after))
            assert all(pair in left for pair in committed(before))


@pytest.mark.slow
def test_what_is_decided_at_once_is_told_of_in_every_block(loaded):
    config = DecodeConfig(16, block_length=4, stop=Prophet(0.0, 0.0, 0.0, answer_start=10))
    (wanted,) = Generator(loaded, config).generate(PROMPTS[:1])
    heard = []
    with Engine(loaded, config, slots=2, prompt_length=64, every=1) as engine:
        answer = engine.submit(Request(prompt=PROMPTS[0]), listen=lambda update: heard.append(update.canvas)).result(60)
    assert timeless(answer) == timeless(wanted)
    assert (answer.forwards, answer.stop_reason) == (1, "settled")
    assert (heard[-1].beliefs.logprob < 0).all()


def test_holes_stay_where_they_are(loaded):
    with pytest.raises(Refused, match=r"a canvas gives tokens at their places, and length=DAEDAL"):
        Generator(loaded, GROWS).generate(PROMPTS[:1], canvases=[["ab", 6]])
