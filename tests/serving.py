"""A server in a thread, for tests; who imports this is skipped where what it needs is not installed."""

# ruff: noqa: E402 (imports of what was looked for)

import contextlib
import dataclasses
import threading
import time

import pytest

for name in ("starlette", "uvicorn", "msgspec", "prometheus_client", "httpx"):
    pytest.importorskip(name, reason=f"{name} is not installed: pip install 'lrd-jax[test]'")

import httpx

from lrd_jax.serve.app import App
from lrd_jax.serve.desk import Desk
from lrd_jax.serve.guard import Guard
from lrd_jax.serve.options import Serve
from lrd_jax.serve.server import Server, bound


@dataclasses.dataclass
class Running:
    """A server under test."""

    url: str
    app: App
    desk: Desk
    server: Server
    thread: threading.Thread
    client: httpx.Client

    @property
    def address(self):
        return self.server.servers[0].sockets[0].getsockname()

    def post(self, path, body, **more):
        return self.client.post(path, json=body, **more)

    def calm(self):
        """Waits until whatever was sent to it has come in, and is answered or given up."""
        httpx.get(f"{self.url}/health", timeout=60)  # a connection is taken after those before it
        eventually(lambda: not self.server.server_state.tasks)
        assert not self.app.pending
        eventually(lambda: not self.desk.waiting and not self.desk.running)

    def end(self):
        self.server.should_exit = True
        self.thread.join(30)
        assert not self.thread.is_alive()
        self.client.close()


def started(desk, *, key=None, max_body=2**16, drain_seconds=20.0, host="127.0.0.1"):
    app, ready = App(desk, Guard(key, host, max_body=max_body)), threading.Event()
    server = Server(app, drain_seconds=drain_seconds, ready=ready.set)
    listening = bound(host, 0)
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    assert ready.wait(30)
    return Running(url, app, desk, server, thread, httpx.Client(base_url=url, timeout=60))


def eventually(holds, seconds=30.0):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it has not come to be"
        time.sleep(0.01)


@contextlib.contextmanager
def held(desk):
    """No round begins meanwhile: who asks waits."""
    holds, goes_on = threading.Event(), threading.Event()

    def hold():
        holds.set()
        goes_on.wait(60)

    thread = threading.Thread(target=desk.call, args=(hold,))
    thread.start()
    assert holds.wait(30)
    try:
        yield
    finally:
        goes_on.set()
        thread.join()


OPTIONS = Serve(model="bytes", gen_length=8, canvas=(32,), prompt_length=(96,), also=("fast",), slots=3, queue=6)
