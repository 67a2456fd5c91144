"""The application: which address does what."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from importlib import resources
from typing import Any

import jax
import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lrd_jax.answer import Answer
from lrd_jax.serve.asking import Asking, Brought
from lrd_jax.serve.bodies import Body, Chat, Text, messages_of, prompts_of, read, refuse_unable
from lrd_jax.serve.description import description
from lrd_jax.serve.desk import Desk, Prompt
from lrd_jax.serve.errors import Gone, Told
from lrd_jax.serve.forms import Form
from lrd_jax.serve.guard import Guard
from lrd_jax.serve.meter import CONTENT_TYPE, Meter
from lrd_jax.serve.scoring import Scorings
from lrd_jax.serve.stream import EventStream
from lrd_jax.version import __version__

Handler = Callable[[Request], Awaitable[Response]]

_RETRY_SECONDS = 5  # after a drain


class App:
    """One server's.

    Attributes:
      asgi: what an ASGI server runs.
      pending: requests under way.
      draining: no more are taken.
    """

    def __init__(self, desk: Desk, guard: Guard):
        self._desk, self._guard, self._meter = desk, guard, Meter(desk)
        self._created = int(time.time())
        self.pending: set[Asking | Scorings] = set()
        self.draining = False
        self.asgi = Starlette(
            routes=[
                Route("/v1/chat/completions", self._told(self._chat), methods=["POST"]),
                Route("/v1/completions", self._told(self._text), methods=["POST"]),
                Route("/v1/models", self._told(self._models)),
                Route("/v1/models/{name:path}", self._told(self._model)),
                Route("/health", self._told(self._health, is_public=True)),
                Route("/ready", self._told(self._ready, is_public=True)),
                Route("/version", self._told(self._version, is_public=True)),
                Route("/metrics", self._told(self._metrics, is_public=True)),
                Route("/openapi.json", self._told(self._description, is_public=True)),
                Route("/", self._told(self._page, is_public=True)),
            ],
            exception_handlers={404: self._no_route, 405: self._no_route, Exception: _broken},
        )

    @property
    def failure(self) -> BaseException | None:
        """What ended the engines."""
        return self._desk.failure

    def interrupt(self, error: Told) -> None:
        """Ends all requests with an error."""
        for asking in list(self.pending):
            asking.interrupt(error)

    def _told(self, handler: Handler, *, is_public: bool = False) -> Handler:
        async def handle(request: Request) -> Response:
            try:
                if not is_public:
                    self._guard.admit(request)
                return await handler(request)
            except Told as error:
                self._meter.refused(error.status)
                return _json(error.body, error.status, error.headers)
            except Gone:
                self._meter.gone()
                return Response(status_code=499)

        return handle

    async def _chat(self, request: Request) -> Response:
        body = await self._read(request, Chat)
        try:
            prompt = self._desk.prompt_of(messages_of(body))
        except ValueError as error:
            raise Told(400, str(error), param="messages") from None
        form = self._form(is_chat=True, logprobs=bool(body.logprobs), top=bool(body.top_logprobs))
        return await self._answer(request, body, [prompt], form)

    async def _text(self, request: Request) -> Response:
        body = await self._read(request, Text)
        logprobs = body.logprobs is not None and body.logprobs is not False
        return await self._answer(request, body, prompts_of(body), self._form(is_chat=False, logprobs=logprobs))

    def _form(self, **asked: bool) -> Form:
        assert self._desk.loaded.tokenizer is not None
        return Form(self._desk.loaded.tokenizer, self._desk.name, **asked)

    async def _read(self, request: Request, kind: type[Any]) -> Any:
        if self.failure is not None:
            raise Told(500, "the engine has failed; the server ends", code="engine_failed")
        if self.draining:
            words = "the server is shutting down: ask another, or come again"
            raise Told(503, words, code="draining", headers={"Retry-After": str(_RETRY_SECONDS)})
        body = read(await self._guard.body(request), kind)
        self._check_model(body.model)
        refuse_unable(body)
        return body

    def _check_model(self, name: str | None) -> None:
        if name not in (None, "", self._desk.name):
            raise Told(
                404, f"model {name!r:.80} is not here; this is {self._desk.name}", param="model", code="model_not_found"
            )

    async def _answer(self, request: Request, body: Body, prompts: Sequence[Prompt], form: Form) -> Response:
        self._desk.check_count(body, prompts)
        if (body.lrd or {}).get("labels") is not None:
            return await self._scored(request, body, prompts, form)
        asked = await asyncio.to_thread(self._desk.check, body, prompts)
        asking = Asking(self._desk, asked, streams=bool(body.stream))
        self.pending.add(asking)
        try:
            asking.submit()
        except Told:
            self.pending.discard(asking)
            raise
        if body.stream:
            include_usage = body.stream_options is not None and bool(body.stream_options.include_usage)
            return EventStream(asking, form, include_usage=include_usage, ended=self._ended, left=self._left)
        try:
            rows: dict[int, Brought] = {}
            async with contextlib.aclosing(asking.brought(request.receive)) as all_brought:
                async for brought in all_brought:
                    if brought.answer is not None:
                        rows[brought.index] = brought
            ended = [rows[index] for index in range(len(rows))]
            self._ended(asking, ended)
            return _json(form.whole(asking, ended))
        finally:
            self._left(asking)

    async def _scored(self, request: Request, body: Body, prompts: Sequence[Prompt], form: Form) -> Response:
        """The answer to a request for labels."""
        asked = Scorings(self._desk, await asyncio.to_thread(self._desk.check_labels, body, prompts))
        self.pending.add(asked)
        try:
            found = await asked.scored(request.receive)
        finally:
            self._left(asked)
        self._meter.scored(asked.prompt_tokens, len(found), time.monotonic() - asked.began)
        return _json(form.scored(found))

    def _ended(self, asking: Asking, ended: list[Brought]) -> None:
        """All its answers are there."""
        for handle, brought in zip(asking.handles, ended, strict=True):
            assert isinstance(brought.answer, Answer)
            self._meter.row(handle, brought.answer, asking.generated(brought))
        self._meter.request(asking, time.monotonic() - asking.began)

    def _left(self, asking: Asking | Scorings, error: Told | Gone | None = None) -> None:
        """It is over; with an error where a stream has told it, or could not."""
        self.pending.discard(asking)
        if isinstance(error, Gone):
            self._meter.gone()
        elif error is not None:
            self._meter.refused(error.status)

    async def _models(self, request: Request) -> Response:
        return _json({"object": "list", "data": [self._about()]})

    async def _model(self, request: Request) -> Response:
        self._check_model(request.path_params["name"])
        return _json(self._about())

    def _about(self) -> dict[str, Any]:
        name = self._desk.name
        return {
            "id": name,
            "object": "model",
            "created": self._created,
            "owned_by": "lrd-jax",
            "lrd": self._desk.describe(),
        }

    async def _health(self, request: Request) -> Response:
        alive = self.failure is None
        return _json({"status": "ok" if alive else "the engine has failed"}, 200 if alive else 503)

    async def _ready(self, request: Request) -> Response:
        if self.draining or self.failure is not None:
            return _json({"status": "draining" if self.draining else "the engine has failed"}, 503)
        return _json({"status": "ready"})

    async def _version(self, request: Request) -> Response:
        return _json({"version": __version__, "jax": jax.__version__})

    async def _metrics(self, request: Request) -> Response:
        return Response(self._meter.text(), headers={"Content-Type": CONTENT_TYPE})

    async def _description(self, request: Request) -> Response:
        return _json(description())

    async def _page(self, request: Request) -> Response:
        page = resources.files("lrd_jax.serve").joinpath("page/index.html").read_bytes()
        inline = "script-src 'unsafe-inline'; style-src 'unsafe-inline'"
        policy = f"default-src 'none'; {inline}; connect-src 'self'; img-src data:; frame-ancestors 'none'"
        return Response(page, media_type="text/html", headers={"Content-Security-Policy": policy})

    async def _no_route(self, request: Request, error: Exception) -> Response:
        status = getattr(error, "status_code", 404)
        asked = f"{request.method} {request.scope['path'][:80]}"  # its URL may be none
        headers = getattr(error, "headers", None)
        if status == 405:
            words = f"{asked} is not what this address takes: {(headers or {}).get('Allow')}"
        else:
            words = f"{asked} is not here; see /v1/models, /v1/completions, /v1/chat/completions"
        self._meter.refused(status)
        return _json(Told(status, words).body, status, headers)


def _json(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(content), status, headers, media_type="application/json")


async def _broken(request: Request, error: Exception) -> Response:
    return _json(Told(500, "the server made a mistake; its log says which").body, 500)
