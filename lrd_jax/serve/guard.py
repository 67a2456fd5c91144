"""Who may ask, and how much: keys, hosts, origins and sizes, before anything is read of a request."""

import asyncio
import hmac
import time
from urllib.parse import urlsplit

from starlette.requests import Request

from lrd_jax.serve.errors import Gone, Told
from lrd_jax.serve.options import is_loopback

BODY_SECONDS = 30.0  # a body takes no longer to come


class Guard:
    """The rules of one server."""

    def __init__(self, key: str | None, host: str, *, max_body: int, is_open: bool = False):
        """
        Args:
          host: that it listens on: without a key a loopback server is asked by its loopback names alone, so that a page
            of another site cannot reach it under a name of its own.
        """
        self._key = None if key is None else key.encode()
        self._own_names = key is None and not is_open and is_loopback(host)
        self._max_body = max_body

    def admit(self, request: Request) -> None:
        """Raises Told, 401 or 403, where a request may not be made."""
        host = request.headers.get("host", "")
        if self._own_names and not _is_own(host):
            raise Told(
                403, f"host {host!r:.80} is not of this machine; ask by 127.0.0.1, or start the server with a key"
            )
        if self._key is not None:
            kind, _, given = request.headers.get("authorization", "").partition(" ")
            matches = hmac.compare_digest(given.strip().encode(), self._key)
            if kind.lower() != "bearer" or not matches:
                raise Told(
                    401,
                    "the key is wrong or missing: send it as Authorization: Bearer KEY",
                    code="invalid_api_key",
                    headers={"WWW-Authenticate": "Bearer"},
                )
        elif (origin := request.headers.get("origin")) is not None and _place(origin) != host:
            raise Told(403, f"a page of {origin!r:.80} may not ask this server; start it with a key to let it")

    async def body(self, request: Request) -> bytes:
        """The body.

        Raises:
          Told: 413 for one that is too large, 408 for one that does not come.
          Gone: the client is.
        """
        too_large = Told(413, f"the body is larger than {self._max_body} bytes", code="body_too_large")
        length = request.headers.get("content-length", "")
        if length.isdecimal() and int(length[:20]) > self._max_body:
            raise too_large
        parts, size, end = [], 0, time.monotonic() + BODY_SECONDS
        while True:
            try:
                message = await asyncio.wait_for(request.receive(), max(0.0, end - time.monotonic()))
            except TimeoutError:
                raise Told(408, f"the body did not come within {BODY_SECONDS:.0f} s") from None
            if message["type"] == "http.disconnect":
                raise Gone
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > self._max_body:
                raise too_large
            if not message.get("more_body"):
                return b"".join(parts)


def _is_own(host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname
    except ValueError:
        return False
    return name is not None and is_loopback(name)


def _place(origin: str) -> str | None:
    """Its host and port."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None
