"""`lrd-jax chat`: questions line by line until the input ends."""

import sys
from collections.abc import Iterator

from lrd_jax.cli import INCOMPLETE
from lrd_jax.cli.files import text_of, unmarked
from lrd_jax.cli.options import Chat
from lrd_jax.cli.terminal import ask, open_generator, say
from lrd_jax.errors import Refused

RESET = "/reset"


def run(options: Chat) -> int:
    generator = open_generator(options)
    from lrd_jax.cli.session import said, seed_for
    from lrd_jax.pods import from_first

    seed = seed_for(options, generator.config)
    keeps = options.chat and generator.loaded.tokenizer.chat_template is not None
    if options.system is not None and not keeps:
        raise Refused("--system needs a conversation: a model with a chat template, and no --no-chat")
    begin = [] if options.system is None else [{"role": "system", "content": options.system}]
    messages, status = list(begin), 0
    lines = _lines()
    while (line := from_first(lambda: next(lines, None))) is not None:
        try:
            question = text_of(line.encode(errors="surrogateescape"))
            if not question.strip():
                continue
            if keeps and question.strip() == RESET:
                messages = list(begin)
                continue
            asked = [*messages, {"role": "user", "content": question}]
            answer = ask(generator, asked if keeps else question, options, seed=seed, stop=options.stop_text)
        except Refused as error:
            print(f"error: {said(error)}", file=sys.stderr)
            status = INCOMPLETE
            continue
        say(answer, seed)
        messages = [*asked, {"role": "assistant", "content": answer.text}]
        if not answer.complete:
            status = INCOMPLETE
    return 0 if sys.stdin.isatty() else status


def _lines() -> Iterator[str]:
    """What is asked, by hand with the terminal's editing, or the lines of a pipe; surrogates stand for wrong UTF-8."""
    if not sys.stdin.isatty():
        for place, line in enumerate(sys.stdin.buffer):
            line = line if place else unmarked(line)
            yield line.removesuffix(b"\n").decode(errors="surrogateescape")
        return
    while True:
        try:
            yield input("> ")
        except EOFError:
            print()
            return
