"""`lrd-jax serve`: OpenAI's API and a page, until a signal ends it."""

import os
import sys
import traceback
from pathlib import Path

from rich.console import Console

from lrd_jax.cli import INCOMPLETE
from lrd_jax.errors import Refused
from lrd_jax.serve.options import KEY_VARIABLE, Serve, check_reach


def run(options: Serve) -> int:
    """Says where it listens on standard error, once it is ready."""
    key = options.api_key or os.environ.get(KEY_VARIABLE) or None
    check_reach(options.host, key, options.open)
    with Console(stderr=True).status(f"loading {options.model}") as status:
        try:
            from lrd_jax.serve.app import App
            from lrd_jax.serve.server import Server, bound
        except ModuleNotFoundError as error:
            raise Refused(f"serve needs {error.name}, which is not installed: pip install 'lrd-jax[serve]'") from None
        from lrd_jax.cli.session import open_model
        from lrd_jax.pods import is_first
        from lrd_jax.serve.desk import Desk, config_of, lengths
        from lrd_jax.serve.guard import Guard
        from lrd_jax.text import require_tokenizer

        for preset in (options.preset, *options.also):
            config_of(options, preset, options.gen_length)

        def look(empty) -> None:
            require_tokenizer(empty.tokenizer)
            lengths(options, empty.config.max_length)

        listening = bound(options.host, options.port) if is_first() else None
        loaded = open_model(options, look)
        status.update(f"compiling {options.model}")
        name = options.name or Path(options.model).resolve().name
        desk = Desk(options, loaded, name)
    if listening is None:
        desk.close()
        return 0
    host, port = listening.getsockname()[:2]
    app = App(desk, Guard(key, options.host, max_body=options.max_body, is_open=options.open))

    def say_ready() -> None:
        where = f"[{host}]" if ":" in host else host
        print(f"{name} is ready: http://{where}:{port}/v1, and the page http://{where}:{port}/", file=sys.stderr)

    Server(app, drain_seconds=options.drain_seconds, ready=say_ready).run(sockets=[listening])
    failure = app.failure
    if failure is not None:
        traceback.print_exception(failure)
        return INCOMPLETE
    desk.close(drain=False)
    return 0
