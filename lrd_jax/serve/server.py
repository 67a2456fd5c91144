"""The process: its socket, its signals, and how it ends."""

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import uvicorn

from lrd_jax.errors import Refused
from lrd_jax.serve.app import App
from lrd_jax.serve.connection import Connection
from lrd_jax.serve.errors import Told

_LOOK_SECONDS = 0.2  # between looks at the engines, and at what is left of a drain
_LAST_SECONDS = 2.0  # for the last words of requests that a drain has ended


class Server(uvicorn.Server):
    """uvicorn, with an end of its own: after a first signal what runs goes on for a while, a second ends it at once."""

    def __init__(self, app: App, *, drain_seconds: float, ready: Callable[[], None] = lambda: None):
        """
        Args:
          ready: called once it takes connections.
        """
        super().__init__(
            uvicorn.Config(
                app.asgi,
                http=Connection,
                ws="none",
                log_level="error",
                access_log=False,
                lifespan="off",
                server_header=False,
                timeout_keep_alive=75,
                timeout_graceful_shutdown=int(_LAST_SECONDS) + 1,
            )
        )
        self._app, self._drain_seconds, self._is_ready = app, drain_seconds, ready
        self._at_once = False

    def handle_exit(self, sig: int, frame: Any) -> None:
        self._at_once = self._app.draining
        self._app.draining = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._watch = asyncio.create_task(self._watched())
        self._is_ready()

    async def _watched(self) -> None:
        """Ends the server with its engines, or with its drain."""
        loop, until = asyncio.get_running_loop(), None
        while not self.should_exit:
            await asyncio.sleep(_LOOK_SECONDS)
            if self._app.failure is not None:
                self._app.interrupt(Told(500, "the engine has failed; the server ends", code="engine_failed"))
            if self._app.draining and until is None:
                until = loop.time() + self._drain_seconds
            drained = until is not None and (not self._app.pending or loop.time() >= until)
            if self._app.failure is not None or drained or self._at_once:
                self._app.interrupt(Told(503, "the server has shut down before the answer was there", code="draining"))
                end = loop.time() + _LAST_SECONDS
                while self._app.pending and loop.time() < end:
                    await asyncio.sleep(_LOOK_SECONDS)
                self.should_exit = True


def listens(bound: socket.socket) -> None:
    """Takes connections from now on.

    Raises:
      Refused: another process does, which had the address too and was ready first.
    """
    try:
        bound.listen(2048)
    except OSError as error:
        host, port = bound.getsockname()[:2]
        raise Refused(f"{host}:{port} cannot be listened on: {error.strerror}; choose another --port") from None


def bound(host: str, port: int) -> socket.socket:
    """A socket with its address, which does not take connections yet.

    Raises:
      Refused: the address is no machine's, or taken.
    """
    try:
        (family, *_, address), *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise Refused(f"host={host!r:.80} is no address: {error}") from None
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind(address)
    except OSError as error:
        made.close()
        raise Refused(f"{host}:{port} cannot be listened on: {error.strerror}; choose another --port") from None
    return made
