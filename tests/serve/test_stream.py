"""Streams: pieces together are the whole answer, held back where a piece could still change; clients that go away."""

import json
import socket

import pytest
from serving import eventually, held

from lrd_jax import Generator
from lrd_jax.decoding.config import DecodeConfig

pytestmark = pytest.mark.slow

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
PROMPTS = ["One.", "The second prompt is longer.", "Zwölf 東京 🙂"]


def streamed(server, path, body):
    """The chunks, without [DONE]."""
    with server.client.stream("POST", path, json={**body, "stream": True}) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        events = response.read().decode().split("\n\n")
    assert events.pop() == "" and events.pop() == "data: [DONE]"
    return [json.loads(event.removeprefix("data: ")) for event in events]


def text_of(chunks, index=0):
    choices = [choice for chunk in chunks for choice in chunk["choices"] if choice["index"] == index]
    return "".join(c["text"] if "text" in c else c["delta"].get("content", "") for c in choices)


@pytest.mark.parametrize("asked", [{}, {"stop": ["\u00e9", "a"]}, {"max_tokens": 13}])
def test_pieces_together_are_the_answer(server, asked):
    for prompt in PROMPTS:
        body = {"prompt": prompt, "max_tokens": 32, **asked}
        (whole,) = server.post(TEXT, body).json()["choices"]
        chunks = streamed(server, TEXT, body)
        assert text_of(chunks) == whole["text"]
        ends = [chunk["choices"][0]["finish_reason"] for chunk in chunks]
        assert ends[:-1] == [None] * (len(ends) - 1) and ends[-1] == whole["finish_reason"]
        assert chunks[-1]["choices"][0]["lrd"] == whole["lrd"]
        assert not any(chunk["choices"][0]["text"].endswith("\ufffd") for chunk in chunks[:-1])


def test_a_conversation_streams_with_its_role_and_usage(server):
    body = {"messages": [{"role": "user", "content": "Hi"}], "n": 2, "seed": 1, "temperature": 1, "max_tokens": 16}
    whole = server.post(CHAT, body).json()
    chunks = streamed(server, CHAT, {**body, "stream_options": {"include_usage": True}})
    assert [chunk["choices"][0]["delta"] for chunk in chunks[:2]] == [{"role": "assistant", "content": ""}] * 2
    assert all(chunk["object"] == "chat.completion.chunk" and chunk["id"] == chunks[0]["id"] for chunk in chunks)
    assert [text_of(chunks, i) for i in (0, 1)] == [choice["message"]["content"] for choice in whole["choices"]]
    assert chunks[-1]["choices"] == []
    assert (chunks[-1]["usage"], chunks[-1]["lrd"]) == (whole["usage"], whole["lrd"])


def test_a_stream_of_canvases_tells_every_forward(loaded, server):
    body = {"prompt": PROMPTS[0], "max_tokens": 16, "lrd": {"stream": "canvas"}}
    (wanted,) = Generator(loaded, DecodeConfig.lrd(16)).generate(PROMPTS[:1])
    chunks = streamed(server, TEXT, body)
    assert text_of(chunks) == wanted.text
    empty, *seen = [chunk["choices"][0]["lrd"]["canvas"] for chunk in chunks]
    assert (empty["forward"], empty["window"], empty["ids"]) == (0, None, [None] * 16)
    assert [canvas["forward"] for canvas in seen] == list(range(1, wanted.forwards + 1))
    for canvas in seen[:-1]:
        assert canvas["window"] == [0, 16]
        columns = (canvas[name] for name in ("ids", "text", "guess", "confidence"))
        for token, text, guess, sure in zip(*columns, strict=True):
            assert (token is None) == (text is None) == (guess is not None) == (sure is not None)
            assert sure is None or 0 < sure <= 1
    assert seen[-1]["ids"] == wanted.canvas.tolist()
    assert [canvas["divergence"] is None for canvas in seen][:2] == [True, False]


def test_what_is_refused_is_refused_before_the_stream(server):
    response = server.post(TEXT, {"prompt": "x", "max_tokens": 99, "stream": True})
    assert response.status_code == 400


SLOW = {"prompt": "One.", "max_tokens": 32, "lrd": {"preset": "fast", "threshold": 1.0}}  # a token a forward


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_away_frees_its_slot(server, stream):
    ended = server.desk.ended.get("cancelled", 0)
    body = json.dumps({**SLOW, "stream": stream}).encode()
    with held(server.desk):
        with socket.create_connection(server.address) as connection:
            connection.sendall(b"POST %s HTTP/1.1\r\nHost: localhost\r\n" % TEXT.encode())
            connection.sendall(b"Content-Length: %d\r\n\r\n" % len(body) + body)
            eventually(lambda: server.desk.waiting == 1)
        eventually(lambda: not server.app.pending)
    eventually(lambda: not server.desk.running and not server.desk.waiting)
    assert server.desk.ended["cancelled"] == ended + 1
