"""Labels scored by one forward: against log-probabilities computed here, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from byte_model import write_byte_model

from lrd_jax import DecodeConfig, Generator, load
from lrd_jax.errors import Refused
from lrd_jax.labels import _scores, score_labels
from lrd_jax.models import positions_of


@pytest.fixture(scope="module")
def generator(tmp_path_factory):
    return Generator(load(write_byte_model(tmp_path_factory.mktemp("bytes"), max_length=128)), DecodeConfig.lrd(8))


def beliefs(generator, ids, canvas):
    """Log-probabilities [G, V] of a canvas, -1 where it is open, without padding and without batches."""
    model, params, special = generator.loaded.model, generator.loaded.params, generator.loaded.config
    tokens = jnp.array([[*ids, *(special.mask_id if token < 0 else token for token in canvas)]])
    seen = jnp.ones(tokens.shape, bool)
    logits = model.logits(params, model.hidden(params, model.embed(params, tokens), positions_of(seen), seen))
    logits = logits[0, len(ids) :].at[:, special.mask_id].set(-jnp.inf)
    return np.asarray(jax.nn.log_softmax(logits, axis=-1))


@pytest.mark.slow
def test_an_open_canvas_counts_the_end(generator):
    ids = generator.encode("Yes or no?")
    logprobs, end = beliefs(generator, ids, [-1] * 8), generator.loaded.config.eos_id
    labels = ["yes", "no", "maybe"]
    wanted = []
    for label in labels:
        row = generator.tokenizer(label)["input_ids"]
        wanted.append(sum(logprobs[place, token] for place, token in enumerate([*row, end])))
    for prompt in ("Yes or no?", ids):
        found = score_labels(generator, prompt, labels)
        assert [label.text for label in found] == labels
        assert np.allclose([label.logprob for label in found], wanted, atol=1e-4)
    softmax = np.exp(wanted - np.logaddexp.reduce(wanted))
    assert np.allclose([label.probability for label in found], softmax, atol=1e-5)
    shorter = score_labels(generator, ids, ["abcd"], length=4)[0]
    logprobs = beliefs(generator, ids, [-1] * 4)
    row = generator.tokenizer("abcd")["input_ids"]
    assert np.isclose(shorter.logprob, sum(logprobs[place, token] for place, token in enumerate(row)), atol=1e-4)


@pytest.mark.slow
def test_a_hole_is_filled(generator):
    ids = generator.encode("Yes or no?")
    before, after = (generator.tokenizer(text)["input_ids"] for text in ("a:", "."))
    logprobs = beliefs(generator, ids, [*before, -1, -1, *after])
    found = score_labels(generator, ids, ["no", "ok"], canvas=["a:", 2, "."])
    for label in found:
        row = generator.tokenizer(label.text)["input_ids"]
        assert np.isclose(label.logprob, logprobs[2, row[0]] + logprobs[3, row[1]], atol=1e-4)


@pytest.mark.parametrize(
    ("labels", "more", "words"),
    [
        ([], {}, "labels must be a list of texts"),
        ("yes", {}, "labels must be a list of texts"),
        ([1], {}, "labels must be texts"),
        (["a", "a"], {}, "holds a text twice"),
        ([""], {}, "is empty"),
        (["too long for it"], {}, "more than the 8 positions"),
        (["a"], {"length": 9}, "length=9 must be from 1 to gen_length=8"),
        (["abc"], {"canvas": ["x", 2]}, "label 'abc' has 3 tokens, and the hole 2 positions"),
        (["a"], {"canvas": [1, "x", 1]}, "the canvas has 2 holes"),
        (["a"], {"canvas": ["x"]}, "has no hole"),
        (["a"], {"canvas": [2**20, 2**20, "x"]}, "has more than 1048576 positions"),
        (["<|mdm_mask|>"], {}, "holds the mask token"),
        (["a"], {"prompt": [2**40]}, "holds id 1099511627776 at 0, outside the vocabulary of 259"),
        (["a"], {"prompt": [5] * 121}, "has 121 tokens, more than the 120 that the context leaves"),
    ],
)
def test_what_is_refused(generator, labels, more, words):
    with pytest.raises(Refused, match=words):
        score_labels(generator, **{"prompt": "Q", "labels": labels, **more})


def test_a_word_that_the_model_does_not_know_is_refused():
    words = Generator(load("lrd-tiny"), DecodeConfig.lrd(8))
    with pytest.raises(Refused, match="does not know 'zebra' in label 'zebra'"):
        score_labels(words, "Tom has 14 apples. How many are left?", ["8", "zebra"])


@pytest.mark.slow
def test_few_shapes_are_compiled(generator):
    """Whatever the canvas, the labels and the prompt: each of these is padded."""
    score_labels(generator, "Q", ["abc"], length=5)
    compiled = _scores.cache_size()
    score_labels(generator, "Yes or no?", [*"abcdefgh", "wxyz"], length=8)
    score_labels(generator, "?", ["abc", "abd"], canvas=["xy", 3, "z"])
    assert _scores.cache_size() == compiled
