"""Clients that mean no good: whatever they send, an error is told and no slot is lost."""

import json
import socket
import struct
import threading

import pytest
import serving
from hypothesis import given, settings
from hypothesis import strategies as st
from serving import eventually, started

from lrd_jax.serve.bodies import Chat, Text

pytestmark = pytest.mark.slow

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
BASES = {
    CHAT: (Chat, {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}),
    TEXT: (Text, {"prompt": "Hi", "max_tokens": 2}),
}

NUMBERS = (
    st.integers(-2, 40)
    | st.sampled_from([2**31, 2**63, 10**30, -(10**30)])
    | st.floats(allow_nan=False, allow_infinity=False)
)
LEAVES = st.none() | st.booleans() | NUMBERS | st.text(max_size=6) | st.sampled_from(["{2}", "lrd", "fast", "user"])
JSON = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "kind", "role"]), inner, max_size=2)
    ),
    max_leaves=6,
)
LRD = st.dictionaries(
    st.sampled_from(
        ["preset", "canvas", "labels", "stream", "numbers", "threshold", "commit", "refine.tau", "cache", ""]
    ),
    JSON,
    max_size=2,
)


@st.composite
def bodies(draw):
    path = draw(st.sampled_from(sorted(BASES)))
    kind, base = BASES[path]
    names = sorted(set(kind.__struct_fields__) - {"lrd"})
    wrong = draw(st.dictionaries(st.sampled_from(names), JSON, max_size=2))
    return path, base | wrong | draw(st.just({}) | LRD.map(lambda own: {"lrd": own}))


def check_error(response):
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"} and "\n" not in error["message"]


@settings(max_examples=120)
@given(bodies())
def test_anything_in_any_field_is_answered_or_refused(server, asked):
    path, body = asked
    response = server.post(path, body)
    assert response.status_code in (200, 400, 404), response.text
    if response.status_code != 200:
        check_error(response)


@pytest.mark.parametrize("depth", [10, 400, 700, 900, 990, 5_000])
@pytest.mark.parametrize("name", ["lrd", "tools", "prompt", "unread"])
def test_nesting(server, depth, name):
    for left, right in (("[", "]"), ('{"canvas":', "}")):
        nested = left * depth + "1" + right * depth
        own = f'{{"canvas": {nested}}}' if name == "lrd" else nested
        response = server.client.post(TEXT, content=f'{{"max_tokens": 2, "prompt": "Hi", "{name}": {own}}}')
        assert response.status_code == 200 if name == "unread" and depth < 900 else response.status_code in (200, 400)


@pytest.mark.parametrize("text", [rb"\ud800", b"\xed\xa0\x80", rb"\u0000", rb"\u202e", b"\x00"])
def test_text_that_is_none(server, text):
    response = server.client.post(TEXT, content=b'{"max_tokens": 2, "prompt": "a%b", "stop": "%b"}' % (text, text))
    assert response.status_code in (200, 400)


def test_more_answers_than_may_wait_cost_nothing(server):
    many = {"prompt": ["a"] * 12_000, "n": 128, "max_tokens": 2}
    for body in (many, {**many, "lrd": {"labels": ["a", "b"]}}):
        response = server.post(TEXT, body)
        assert "the request has 1536000 answers, more than 6 may wait" in response.json()["error"]["message"]


def raw(server, data, wait=5.0):
    """What the server says to bytes."""
    with socket.create_connection(server.address, timeout=wait) as connection:
        connection.sendall(data)
        said = b""
        while b"\r\n\r\n" not in said:
            more = connection.recv(4096)
            if not more:
                break
            said += more
        return said


BODY = json.dumps({"prompt": "Hi", "max_tokens": 2}).encode()
POST = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n"


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(50) + b"\r\n\r\n", 400),  # TLS
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),  # no host
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", None),
        (POST + b"X: " + b"y" * 70_000 + b"\r\n\r\n", None),
        (POST + b"Content-Length: -1\r\n\r\n", 400),
        (POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n{}", 400),
        (POST + b"Content-Length: 99999999999999999999\r\n\r\n", 413),
        (POST + b"Transfer-Encoding: gzip\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", None),
        (POST + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n", 400),  # no body
        (POST + b"Origin: http://[\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY, 403),
        (POST + b"Origin: null\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY, 403),
        (POST + b"Authorization: Bearer \xff\xfe\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY, 200),
        (POST + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(BODY), 100),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", 200),
        (b"GET //evil.example/%2e%2e HTTP/1.1\r\nHost: [::\r\n\r\n", 404),
        (b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"TRACE / HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
    ],
)
def test_heads_that_are_none(server, data, status):
    said = raw(server, data)
    if status is None:  # whether it is too long depends on how it arrives; a connection that ends is an answer
        assert not said or said.split()[1] in (b"400", b"404", b"499")
    else:
        assert said.split()[1] == str(status).encode(), said
    assert server.post(TEXT, {"prompt": "Hi", "max_tokens": 2}).status_code == 200


def test_a_head_that_does_not_come_ends_the_connection(server, monkeypatch):
    monkeypatch.setattr("lrd_jax.serve.connection.HEAD_SECONDS", 2.0)  # the good one has no longer
    idle, slow, used = (socket.create_connection(server.address, timeout=10) for _ in range(3))
    slow.sendall(b"GET / HT")
    used.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert b"200" in used.recv(4096)
    used.sendall(b"GET /he")
    for connection in (idle, slow, used):
        assert connection.recv(4096) == b""
        connection.close()


def test_a_reader_that_takes_nothing_is_given_up(desk, monkeypatch):
    def small(host, port):
        listening = bound(host, port)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # its connections have the same
        return listening

    bound = serving.bound
    monkeypatch.setattr(serving, "bound", small)
    monkeypatch.setattr("lrd_jax.serve.stream.READ_SECONDS", 0.3)
    server = started(desk)
    slow = {"prompt": "x" * 90, "max_tokens": 32, "n": 6, "stream": True}
    body = json.dumps({**slow, "lrd": {"preset": "fast", "threshold": 1.0, "stream": "canvas"}}).encode()
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(server.address)
    gone = server.app._meter._gone._value.get()
    connection.sendall(POST + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    eventually(lambda: server.app._meter._gone._value.get() == gone + 1)
    server.calm()
    connection.close()
    server.end()


def test_a_flood_of_cancels_leaves_every_slot_free(server):
    body = json.dumps({"prompt": "Hi", "max_tokens": 32, "stream": True}).encode()
    head = POST + b"Content-Length: %d\r\n\r\n" % len(body)

    def flood():
        for place in range(40):
            with socket.create_connection(server.address) as connection:
                if place % 2:  # a reset, not a farewell
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                connection.sendall(head + body[: len(body) if place % 3 else 10])

    floods = [threading.Thread(target=flood) for _ in range(3)]
    for thread in floods:
        thread.start()
    for thread in floods:
        thread.join(60)
    server.calm()
    assert server.post(TEXT, {"prompt": "Hi", "max_tokens": 2}).status_code == 200


def test_requests_behind_one_another_in_one_connection(server):
    """Pipelined: the second is answered after the first, and what comes behind a body is no part of it."""
    one = POST + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
    with socket.create_connection(server.address, timeout=20) as connection:
        connection.sendall(one + one + b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        said = b""
        while more := connection.recv(65536):
            said += more
    assert said.count(b"HTTP/1.1 200") == 3


def test_the_description_is_of_the_api(server):
    told = server.client.get("/openapi.json").json()
    for path, (kind, _) in BASES.items():
        name = told["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]["$ref"]
        assert set(told["components"]["schemas"][name.rpartition("/")[2]]["properties"]) == set(kind.__struct_fields__)
    for path in told["paths"]:
        assert server.client.get(path).status_code in (200, 405)
