"""What autoregressive servers cannot do: holes, suffixes, and labels scored by one forward."""

import json

import numpy as np
import pytest
import serving  # noqa: F401 (skips where the extra is not installed)

from lrd_jax import DecodeConfig, Generator
from lrd_jax.labels import score_labels

pytestmark = pytest.mark.slow

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
PROMPT = "The second prompt is longer."


def test_a_suffix(loaded, server):
    (wanted,) = Generator(loaded, DecodeConfig.lrd(32)).generate([PROMPT], canvases=[[8, " end."]])
    body = {"prompt": PROMPT, "suffix": " end.", "max_tokens": 8}
    got = server.post(TEXT, body).json()
    (choice,) = got["choices"]
    assert (choice["text"], choice["finish_reason"]) == (wanted.holes[0], "stop")
    given = len(loaded.tokenizer(PROMPT)["input_ids"]) + len(loaded.tokenizer(" end.")["input_ids"])
    assert got["usage"]["prompt_tokens"] == given
    with server.client.stream("POST", TEXT, json={**body, "stream": True}) as response:
        events = response.read().decode().split("\n\n")[:-2]
    pieces = [json.loads(event.removeprefix("data: "))["choices"][0]["text"] for event in events]
    assert "".join(pieces) == wanted.holes[0]


@pytest.mark.parametrize("canvas", ["ab{10}cd{2}", ["ab", 10, "cd", 2]])
def test_a_canvas_with_holes(loaded, server, canvas):
    (wanted,) = Generator(loaded, DecodeConfig.lrd(32)).generate([PROMPT], canvases=[["ab", 10, "cd", 2]])
    (choice,) = server.post(TEXT, {"prompt": PROMPT, "lrd": {"canvas": canvas}}).json()["choices"]
    assert (choice["text"], choice["lrd"]["holes"]) == (wanted.text, list(wanted.holes))


def test_what_was_given_of_a_canvas_is_counted_once(loaded, server):
    got = server.post(TEXT, {"prompt": PROMPT, "lrd": {"canvas": ["ab", 10, "cd", 2]}}).json()
    assert got["usage"]["completion_tokens"] == 12
    assert got["usage"]["total_tokens"] == len(loaded.tokenizer(PROMPT)["input_ids"]) + 16


def test_labels(loaded, server):
    wanted = score_labels(Generator(loaded, DecodeConfig.plain(8)), PROMPT, ["yes", "no"])
    got = server.post(TEXT, {"prompt": [PROMPT, PROMPT], "lrd": {"labels": ["yes", "no"]}}).json()
    for choice in got["choices"]:
        told = choice["lrd"]["labels"]
        assert [label["text"] for label in told] == ["yes", "no"]
        assert np.allclose([label["logprob"] for label in told], [label.logprob for label in wanted], atol=1e-4)
        assert choice["text"] == max(wanted, key=lambda label: label.logprob).text
    assert len(got["choices"]) == got["lrd"]["forwards"] == 2
    asked = {"messages": [{"role": "user", "content": "Hi"}], "lrd": {"labels": ["a", "b"], "canvas": "It is {1}."}}
    (choice,) = server.post(CHAT, asked).json()["choices"]
    assert choice["message"]["content"] in ("a", "b")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"suffix": "x", "lrd": {"canvas": "{2}"}}, "suffix and lrd.canvas were both given"),
        ({"max_tokens": 4, "lrd": {"canvas": "{2}"}}, "the canvas brings its own length"),
        ({"lrd": {"canvas": "{2"}}, "lone"),
        ({"lrd": {"canvas": "full"}}, "has no hole"),
        ({"lrd": {"canvas": 3}}, "lrd.canvas must be a text with holes"),
        ({"lrd": {"canvas": "{99}"}}, "has 99 positions, more than"),
        ({"suffix": "x" * 30, "max_tokens": 8}, "has 38 positions, more than"),
        ({"lrd": {"labels": []}}, "labels must be a list of texts"),
        ({"lrd": {"labels": ["a", "a"]}}, "holds a text twice"),
        ({"lrd": {"labels": ["abc"], "canvas": "{2}"}}, "has 3 tokens, and the hole 2 positions"),
        ({"lrd": {"labels": ["a"], "threshold": 0.5}}, "does not go with lrd.labels"),
        ({"lrd": {"labels": ["a"]}, "stream": True}, "stream does not go with lrd.labels"),
        ({"lrd": {"labels": ["a"]}, "n": 3}, "n does not go with lrd.labels"),
        ({"lrd": {"labels": ["a"]}, "suffix": "."}, "suffix does not go with lrd.labels"),
        ({"lrd": {"labels": ["a"]}, "stop": ["."]}, "stop does not go with lrd.labels"),
        ({"lrd": {"labels": ["a"]}, "logprobs": 1}, "logprobs does not go with lrd.labels"),
        ({"lrd": {"labels": ["a"]}, "temperature": 0.5}, "temperature does not go with lrd.labels"),
        ({"lrd": {"labels": ["a"]}, "top_p": 0.5}, "top_p does not go with lrd.labels"),
        ({"lrd": {"labels": ["a"], "canvas": "{1}"}, "max_tokens": 3}, "the canvas brings its own length"),
        ({"lrd": {"labels": ["<|mdm_mask|>"]}}, "holds the mask token"),
        ({"lrd": {"labels": ["a"]}, "prompt": [2**40]}, "outside the vocabulary"),
        ({"lrd": {"labels": ["a"]}, "prompt": [5] * 97}, "has 97 tokens, more than prompt_length=96"),
        ({"lrd": {"labels": ["a"]}, "prompt": [5] * 6000}, "has 6000 tokens, more than the 224"),
        ({"lrd": {"canvas": [2**20] * 20}}, "has more than 1048576 positions"),
        ({"lrd": {"x" * 900: 1}}, "..."),
        ({"lrd": {"a\nb": 1}}, "lrd: a b is unknown"),
    ],
)
def test_what_is_refused(server, more, words):
    response = server.post(TEXT, {"prompt": PROMPT, **more})
    assert response.status_code == 400
    assert words in response.json()["error"]["message"]
