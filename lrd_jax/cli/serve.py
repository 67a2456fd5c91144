"""`lrd-jax serve`: OpenAI's API and a page, until a signal ends it."""

import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from lrd_jax.errors import Refused
from lrd_jax.serve.options import KEY_VARIABLE, Serve, check_reach

if TYPE_CHECKING:
    from lrd_jax.checkpoint import Loaded
    from lrd_jax.serve.desk import Desk


def run(options: Serve) -> int:
    """Says where it listens on standard error, once it is ready."""
    key = options.api_key or os.environ.get(KEY_VARIABLE) or None
    check_reach(options.host, key, options.open)
    try:
        from lrd_jax.serve import server
    except ModuleNotFoundError as error:
        raise Refused(f"serve needs {error.name}, which is not installed: pip install 'lrd-jax[serve]'") from None
    from lrd_jax.pods import is_first

    if not is_first():  # it decodes with process 0, which serves
        _desk(options).close()
        return 0
    with server.bound(options.host, options.port) as listening:
        return _serve(options, key, listening)


def _serve(options: Serve, key: str | None, listening: socket.socket) -> int:
    from lrd_jax.serve.app import App
    from lrd_jax.serve.guard import Guard
    from lrd_jax.serve.server import Server, listens

    desk = _desk(options)
    try:
        listens(listening)
    except Refused:
        desk.close(drain=False)
        raise
    app = App(desk, Guard(key, options.host, max_body=options.max_body, is_open=options.open))
    host, port = listening.getsockname()[:2]
    address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def say_ready() -> None:
        print(f"{desk.name} is ready: {address}/v1, and the page {address}/", file=sys.stderr, flush=True)

    Server(app, drain_seconds=options.drain_seconds, ready=say_ready).run(sockets=[listening])
    if app.failure is not None:
        raise app.failure
    desk.close(drain=False)
    return 0


def _desk(options: Serve) -> "Desk":
    """The model, loaded and compiled; what is wrong with the options is known before its weights are read."""
    with Console(stderr=True).status(f"loading {options.model}") as status:
        from lrd_jax.cli.session import open_model
        from lrd_jax.serve.desk import Desk, config_of, lengths
        from lrd_jax.text import require_tokenizer

        for preset in (options.preset, *options.also):
            config_of(options, preset, options.gen_length)

        def look(empty: "Loaded") -> None:
            require_tokenizer(empty.tokenizer)
            lengths(options, empty.config.max_length)

        loaded = open_model(options, look)
        status.update(f"compiling for {options.model}")
        return Desk(options, loaded, options.name or Path(options.model).resolve().name)
