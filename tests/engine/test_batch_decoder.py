"""Columns in, columns out, as Ray Data hands them over, without Ray."""

import pickle
import sys

import numpy as np
import pytest
from byte_model import write_byte_model

from lrd_jax import DecodeConfig, Generator, load
from lrd_jax.engine import BatchDecoder
from lrd_jax.errors import Refused

PROMPTS = ["One.", "The second prompt is longer than sixteen.", "Zwölf 東京 🙂", "x" * 40, "a b c", "last"]
CONFIG = DecodeConfig.lrd(16, block_length=8)
ANSWER = {
    *("text", "stop_reason", "finish", "forwards", "refine_forwards", "seconds"),
    *("prompt_tokens", "completion_tokens", "error"),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(write_byte_model(tmp_path_factory.mktemp("bytes"), chat=True, max_length=128))


def decoder_of(model, **settings):
    return BatchDecoder(
        model, "lrd", gen_length=16, changes={"block_length": 8, **settings.pop("changes", {})}, slots=2, **settings
    )


@pytest.fixture(scope="module")
def decoder(model):
    return decoder_of(model)


@pytest.mark.slow
def test_answers_are_the_generators_and_other_columns_pass(decoder, model):
    columns = {"prompt": np.array(PROMPTS, object), "gold": np.arange(6)}
    got = decoder(columns)
    assert set(got) == ANSWER | {"prompt", "gold"} and {len(column) for column in got.values()} == {6}
    assert got["gold"] is columns["gold"]
    wanted = Generator(load(model), CONFIG).generate(PROMPTS)
    for name in ("text", "forwards", "refine_forwards", "stop_reason", "finish"):
        assert got[name].tolist() == [getattr(answer, name) for answer in wanted]
    assert got["completion_tokens"].tolist() == [len(answer.tokens) for answer in wanted]
    assert got["error"].tolist() == [""] * 6


@pytest.mark.slow
def test_it_pickles_as_its_arguments_and_answers_alike(decoder):
    data = pickle.dumps(decoder)
    assert len(data) < 1000 and "ray" not in sys.modules
    again = pickle.loads(data)({"prompt": PROMPTS})
    assert again["text"].tolist() == decoder({"prompt": PROMPTS[::-1]})["text"].tolist()[::-1]


@pytest.mark.slow
def test_rows_have_wishes_of_their_own(decoder, model):
    chat = [{"role": "user", "content": "Hi"}]
    generator = Generator(load(model), CONFIG)
    got = decoder({"messages": [np.array(chat, object), chat], "stop": [None, ["\x00"]]})
    (wanted,) = generator.generate([chat])
    assert got["text"].tolist() == [wanted.text, wanted.text.split("\x00")[0]]
    got = decoder({"prompt": ["One."] * 3, "length": [8.0, float("nan"), 16], "canvas": [None, None, None]})
    assert got["text"][1] == got["text"][2] == generator.generate(["One."])[0].text
    assert got["text"][0] == Generator(load(model), DecodeConfig.lrd(8, block_length=8)).generate(["One."])[0].text
    got = decoder({"prompt": ["One."], "canvas": ["a{7}"]})
    assert got["text"].tolist() == [generator.generate(["One."], canvases=[["a", 7]])[0].text]


@pytest.mark.slow
def test_draws_depend_on_the_row_and_not_on_its_batch(model):
    decoder = decoder_of(model, changes={"temperature": 5})
    rows = {"id": ["a", "b", "c"], "prompt": ["One."] * 3}
    together = decoder(rows)["text"].tolist()
    assert len(set(together)) == 3
    assert decoder({name: column[1:] for name, column in rows.items()})["text"].tolist() == together[1:]
    assert (
        decoder({**rows, "seed": [1, 1, 2]})["text"].tolist()[0]
        == decoder({**rows, "seed": [1, 1, 2]})["text"].tolist()[1]
    )
    assert decoder_of(model, changes={"temperature": 5}, seed=1)(rows)["text"].tolist() != together


@pytest.mark.slow
def test_a_row_that_cannot_be_answered_says_why(decoder):
    got = decoder({"prompt": ["One.", "", "x" * 500, None, 7], "id": [1, 2, 3, 4, 5]})
    assert [bool(error) for error in got["error"]] == [False, True, True, True, True]
    assert got["text"].tolist()[1:] == [""] * 4 and got["forwards"].tolist()[1:] == [0] * 4
    assert "is empty" in got["error"][1] and "exceed the model's context" in got["error"][2]


def test_an_empty_batch_has_its_columns(decoder):
    assert {name: len(column) for name, column in decoder({"prompt": []}).items()} == dict.fromkeys(
        ANSWER | {"prompt"}, 0
    )


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        (None, "columns must be a table"),
        ({}, "columns must be a table"),
        (["a"], "columns must be a table"),
        ({"prompt": 1}, "columns must be a table"),
        ({"text": ["a"]}, 'one of "prompt" and "messages", got text'),
        ({"prompt": ["a"], "messages": ["a"]}, 'one of "prompt" and "messages", got prompt, messages'),
        ({"prompt": ["a"], "text": ["b"]}, "columns named text would be lost"),
        ({"prompt": ["a"], "id": ["b", "c"]}, "must be of one length"),
    ],
)
def test_columns_that_are_none_are_refused(decoder, columns, words):
    with pytest.raises(Refused, match=words):
        decoder(columns)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"preset": "x"}, "preset 'x' is unknown"),
        ({"gen_length": 0}, "gen_length=0"),
        ({"changes": {"r_f": 2}}, "r_f=2"),
        ({"slots": 0}, "slots=0"),
        ({"seed": -1}, "seed=-1"),
        ({"stop": "x"}, "stop must be a list"),
        ({"chat": "yes"}, "chat='yes'"),
    ],
)
def test_what_it_is_made_of_is_checked_before_it_is_sent_anywhere(model, settings, words):
    with pytest.raises(Refused, match=words):
        BatchDecoder(model, **settings)
