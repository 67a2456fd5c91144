"""What `generate` and `chat` share of the terminal: waiting, the live view, the answer with its facts."""

import sys
from typing import TYPE_CHECKING

from rich.console import Console

from lrd_jax.options import Decoding

if TYPE_CHECKING:
    from lrd_jax.cli.session import Answer, Session


def open_session(options: Decoding) -> "Session":
    """The session that the options ask for, with a sign of life on a terminal while it loads."""
    with Console(stderr=True).status(f"loading {options.model}"):
        from lrd_jax.cli.session import Session  # JAX and the rest take seconds to import: the user waits in here

        return Session(options)


def ask(session: "Session", question: str, options: Decoding, *, chat: bool) -> "Answer":
    """Answers a question, with the canvas in view where the output is a terminal and the options allow it."""
    console = Console()
    if not options.live or not sys.stdout.isatty() or console.is_dumb_terminal:
        return session.answer(question, chat=chat)
    from lrd_jax.cli.live import CanvasView

    title = f"{options.model}, {options.preset}"
    with CanvasView(console, session.tokenizer, session.config, session.decoder.config, title) as view:
        return session.answer(question, chat=chat, watch=view.show)


def say(answer: "Answer") -> None:
    """The answer on standard output, the facts on standard error."""
    text = answer.text
    if sys.stdout.isatty():  # a model may write escape sequences
        text = "".join(c if c.isprintable() or c in "\n\t" else "?" for c in text)
    print(text, flush=True)
    Console(stderr=True, highlight=False).print(answer.facts, style="dim", soft_wrap=True)
