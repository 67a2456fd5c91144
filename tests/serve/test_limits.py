"""Keys, sizes, queues, drains and a dead engine."""

import json
import socket
import threading
import time

import pytest
from serving import Desk, bound, eventually, held, httpx, started

from lrd_jax.errors import Refused
from lrd_jax.serve.options import Serve, check_reach
from lrd_jax.serve.server import listens

pytestmark = pytest.mark.slow

TEXT = "/v1/completions"
ASK = {"prompt": "One."}


@pytest.fixture
def another(desk):
    """Further servers of the same engines."""
    running = []

    def start(**options):
        running.append(started(desk, **options))
        return running[-1]

    yield start
    for server in running:
        server.end()


def in_background(server, body, results):
    thread = threading.Thread(target=lambda: results.append(server.post(TEXT, body)))
    thread.start()
    return thread


def test_a_key(another):
    server = another(key="secret")
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "secret"}, {"Authorization": "Bearer"}):
        response = server.post(TEXT, ASK, headers=headers)
        assert response.status_code == 401
        assert response.json()["error"]["code"] == "invalid_api_key"
        assert server.client.get("/v1/models", headers=headers).status_code == 401
    assert server.post(TEXT, ASK, headers={"Authorization": "Bearer secret"}).status_code == 200
    assert server.client.get("/health").status_code == 200


def test_other_sites_cannot_ask_a_server_without_a_key(server):
    assert server.post(TEXT, ASK, headers={"Host": "evil.example"}).status_code == 403
    assert server.post(TEXT, ASK, headers={"Host": "[::"}).status_code == 403
    assert server.post(TEXT, ASK, headers={"Origin": "http://evil.example"}).status_code == 403
    assert server.post(TEXT, ASK, headers={"Origin": server.url}).status_code == 200
    assert server.post(TEXT, ASK, headers={"Host": "localhost:1"}).status_code == 200


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_too_large(server, chunked):
    body = json.dumps({"prompt": "x" * 70_000}).encode()
    response = server.client.post(TEXT, content=iter([body]) if chunked else body)
    assert response.status_code == 413
    assert response.json()["error"]["code"] == "body_too_large"


def test_a_full_queue_says_come_again(server):
    results, threads = [], []
    with held(server.desk):
        threads.append(in_background(server, {**ASK, "n": 4}, results))
        eventually(lambda: server.desk.waiting == 4)
        full = server.post(TEXT, {**ASK, "n": 3})
        assert full.status_code == 429
        assert full.headers["retry-after"] == "1"
        assert full.json()["error"]["code"] == "queue_full"
        assert server.desk.waiting == 4
        threads.append(in_background(server, {**ASK, "n": 2}, results))
        eventually(lambda: server.desk.waiting == 6)
    for thread in threads:
        thread.join(60)
    assert [result.status_code for result in results] == [200, 200]


def test_labels_wait_in_the_same_queue(server):
    own, results = {"labels": ["a", "b"]}, []
    body = json.dumps({"prompt": ["One."] * 4, "lrd": own}).encode()
    with held(server.desk):
        with socket.create_connection(server.address) as leaves:
            leaves.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n")
            leaves.sendall(b"Content-Length: %d\r\n\r\n" % len(body) + body)
            eventually(lambda: server.desk.waiting == 4)
            for more in ({}, {"lrd": own}):
                full = server.post(TEXT, {"prompt": ["One."] * 3, **more})
                assert full.status_code == 429 and full.headers["retry-after"] == "1"
        eventually(lambda: not server.desk.waiting and not server.app.pending)
        thread = in_background(server, {"prompt": ["One."] * 2, "lrd": own}, results)
        eventually(lambda: server.desk.waiting == 2)
    thread.join(60)
    assert [len(result.json()["choices"]) for result in results] == [2]
    server.calm()


def test_a_drain_waits_for_labels_and_a_second_signal_for_nothing(another):
    server, results = another(), []
    with held(server.desk):
        threads = [in_background(server, {**ASK, **more}, results) for more in ({}, {"lrd": {"labels": ["a"]}})]
        eventually(lambda: len(server.app.pending) == 2)
        server.server.handle_exit(15, None)
        time.sleep(0.5)
        assert not results and server.thread.is_alive()
        server.server.handle_exit(15, None)
        for thread in threads:
            thread.join(60)
        server.thread.join(30)
        assert not server.thread.is_alive()
    assert [result.status_code for result in results] == [503, 503]
    assert {result.json()["error"]["code"] for result in results} == {"draining"}


def test_a_drain_finishes_what_runs_and_takes_no_more(another):
    server, results = another(), []
    with held(server.desk):
        thread = in_background(server, ASK, results)
        eventually(lambda: server.app.pending)
        server.server.handle_exit(15, None)
        assert server.client.get("/ready").status_code == 503
        refused = server.post(TEXT, ASK)
        assert refused.status_code == 503 and refused.headers["retry-after"]
        assert refused.json()["error"]["code"] == "draining"
    thread.join(60)
    assert results[0].status_code == 200
    server.thread.join(30)
    assert not server.thread.is_alive()


def test_a_drain_that_takes_too_long_ends_what_runs_with_an_error(another):
    server, results, events = another(drain_seconds=0.0), [], []

    def stream():
        with httpx.stream("POST", server.url + TEXT, json={**ASK, "stream": True}, timeout=60) as response:
            events.extend(response.read().decode().split("\n\n"))

    with held(server.desk):
        threads = [in_background(server, ASK, results), threading.Thread(target=stream)]
        threads[1].start()
        eventually(lambda: len(server.app.pending) == 2)
        server.server.handle_exit(15, None)
        for thread in threads:
            thread.join(60)
        eventually(lambda: not server.desk.waiting)
    assert results[0].status_code == 503
    assert json.loads(events[-3].removeprefix("data: "))["error"]["code"] == "draining"
    server.thread.join(30)
    assert not server.thread.is_alive()


def test_a_dead_engine_fails_all_and_ends_the_server(loaded, monkeypatch):
    desk = Desk(Serve(model="bytes", gen_length=8, canvas=(8,), prompt_length=(32,), slots=1), loaded, "bytes")
    server, results = started(desk), []
    with held(desk):
        thread = in_background(server, ASK, results)
        eventually(lambda: server.app.pending)
        (engine,) = desk._engines.values()
        monkeypatch.setattr(engine._lane, "begin", lambda: 1 / 0)
    thread.join(60)
    assert results[0].status_code == 500
    assert results[0].json()["error"]["code"] == "engine_failed"
    server.thread.join(30)
    assert not server.thread.is_alive()
    assert isinstance(server.app.failure, ZeroDivisionError)
    server.client.close()


def test_a_slow_body_and_idle_connections_hold_nobody_up(server, monkeypatch):
    monkeypatch.setattr("lrd_jax.serve.guard.BODY_SECONDS", 2.0)  # that of the quick one, too
    idle = [socket.create_connection(server.address) for _ in range(50)]
    slow = socket.create_connection(server.address)
    slow.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
    assert server.post(TEXT, ASK).status_code == 200
    assert b" 408 " in slow.recv(4096)
    for connection in (*idle, slow):
        connection.close()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org"])
def test_other_machines_need_a_key(host):
    with pytest.raises(Refused, match="can be reached from other machines, and there is no key"):
        check_reach(host, None, False)
    check_reach(host, "key", False)
    check_reach(host, None, True)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_this_machine_needs_none(host):
    check_reach(host, None, False)


def test_an_address_that_is_taken_or_none():
    with bound("127.0.0.1", 0) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(Refused, match=f"127.0.0.1:{port} cannot be listened on"):
            bound("127.0.0.1", port)
    with bound("127.0.0.1", 0) as first, bound("127.0.0.1", first.getsockname()[1]) as second:  # neither listens yet
        listens(first)
        with pytest.raises(Refused, match="cannot be listened on"):
            listens(second)
    with pytest.raises(Refused, match="is no address"):
        bound("no such host", 0)
